import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ctflow_fed.errors import MismatchError, SettingsError, UpdateError
from ctflow_fed.federation.secure import Terms
from ctflow_fed.federation.secure.advertisement import commitment_of
from ctflow_fed.federation.secure.masks import add_mask
from ctflow_fed.federation.secure.quantise import steps_per_unit
from ctflow_fed.federation.secure.shamir import combine


@pytest.mark.parametrize(
    ("count", "before_sharing", "after_sharing"),
    [(3, 0, 0), (4, 0, 0), (4, 1, 0), (4, 0, 1), (7, 0, 0), (7, 1, 2), (7, 0, 3)],
)
def test_the_mean_is_exact_to_quantisation_whoever_drops_out(
    consortium, count, before_sharing, after_sharing
):
    group = consortium(count)
    wires = group.advertise(group.names)
    sharing = group.names[before_sharing:]
    inbox = group.share(sharing, wires)
    survivors = group.close(group.masked(sharing[after_sharing:], inbox))
    revealed = group.reveal(survivors)

    mean = group.server.unmask(revealed)

    share = sum(group.terms.shares[name] for name in survivors)
    steps = len(survivors) / 2 / steps_per_unit(group.terms) / share
    for key, expected in group.mean(survivors).items():
        rounding = np.spacing(np.abs(expected).astype(np.float32))
        assert np.all(np.abs(mean[key] - expected) <= steps + rounding)


def test_the_threshold_of_survivors_is_enough_to_unmask(consortium):
    group = consortium(7)
    survivors = group.close(group.up_to_masked())
    revealed = group.reveal(survivors)
    revealed = {name: revealed[name] for name in survivors[:4]}

    mean = group.server.unmask(revealed)

    expected = group.mean(survivors)["weight"]
    assert np.allclose(mean["weight"], expected, atol=1e-6)
    with pytest.raises(UpdateError, match="from 4 sites"):
        group.server.unmask(dict(list(revealed.items())[:3]))


def test_a_masked_update_looks_uniform(consortium):
    group = consortium(3, manifest={"w": (60_000,)})
    group.updates = {name: {"w": np.zeros(60_000, np.float32)} for name in group.names}

    for masked in group.up_to_masked().values():
        counts = np.bincount(masked["w"].view(np.uint8), minlength=256)
        chi_square = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert chi_square < 400  # 255 degrees of freedom: p is about 1e-8


def test_one_unknown_pair_seed_hides_a_site_when_all_else_is_known(consortium):
    group = consortium(4, manifest={"w": (60_000,)})
    group.updates = {name: {"w": np.zeros(60_000, np.float32)} for name in group.names}
    masked = group.up_to_masked()
    for name in group.names[2:]:
        group.server.add(name, masked[name])
    group.server.add(group.names[0], masked[group.names[0]])

    survivors = group.server.close()  # site-1 is not in: its pair masks are left on
    known = group.reveal(survivors)
    for name in survivors:
        secret = group.server._secret(name, known)
        for key, sign in group.server._masks_of(name, secret):
            add_mask(group.server._total["w"], key, "w", group.terms, sign=sign)
    counts = np.bincount(group.server._total["w"].view(np.uint8), minlength=256)
    chi_square = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())

    assert chi_square < 400


def test_a_late_update_stays_hidden(consortium):
    group = consortium(4)
    masked = group.up_to_masked()
    late = group.names[0]
    survivors = group.close({name: masked[name] for name in group.names[1:]})
    revealed = group.reveal(survivors)

    group.server.unmask(revealed)

    with pytest.raises(UpdateError, match="before"):
        group.server.add(late, masked[late])
    shares = {name: row[late] for name, row in revealed.items()}
    secret = combine({group.terms.point(name): each for name, each in shares.items()})
    assert commitment_of(secret) != group.server._advertised[late].commitment


def test_no_step_is_done_twice_nor_out_of_order(consortium):
    group = consortium(3)
    survivors = group.close(group.up_to_masked())
    site = group.site("site-0")
    with pytest.raises(MismatchError, match="step 3"):
        site.mask(group.updates["site-0"], {})
    with pytest.raises(MismatchError, match="step 4"):
        site.reveal({})
    words = {name: group.site(name).confirm(survivors) for name in survivors}
    with pytest.raises(MismatchError, match="step 3"):
        site.confirm(survivors)
    site.reveal(words)

    for step in (lambda: site.reveal(words), site.advertise):
        with pytest.raises(MismatchError, match="another attempt"):
            step()


def test_the_secrets_are_private_and_gone_after_the_round(consortium):
    group = consortium(3)
    survivors = group.close(group.up_to_masked())
    (path,) = (group.folder / "site-0").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    group.reveal(survivors)

    assert b'"seed": ""' in path.read_bytes()
    assert b'"mask_secret": ""' in path.read_bytes()


def test_a_new_round_wipes_the_secrets_of_one_that_came_to_nothing(consortium):
    group = consortium(3)
    group.up_to_masked()
    (path,) = (group.folder / "site-0").iterdir()
    consortium(3, attempt=2).site("site-0").advertise()

    assert b'"seed": ""' in path.read_bytes()
    with pytest.raises(MismatchError, match="another attempt"):
        group.site("site-0").confirm(group.names)


def test_keys_that_the_server_put_in_place_are_refused(consortium):
    group = consortium(3)
    wires = dict(group.advertise(group.names))
    wires["site-1"] = {**wires["site-1"], "cipher": bytes(32)}

    with pytest.raises(UpdateError, match="signed"):
        group.site("site-0").share(wires)


def test_keys_signed_for_other_terms_are_refused(consortium, tmp_path):
    group = consortium(3)
    wires = dict(group.advertise(group.names))
    other = consortium(3, attempt=2)
    other.keys, other.registry = group.keys, group.registry

    wires["site-1"] = other.site("site-1").advertise()

    with pytest.raises(UpdateError, match="signed"):
        group.site("site-0").share(wires)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: {},
        lambda wire: {**wire, "mask": wire["mask"] + b"x"},
        lambda wire: {**wire, "mask": 7},
        lambda wire: {**wire, "signature": b"x" * 100_000},
        lambda wire: {**wire, "signature": b""},
    ],
)
def test_a_broken_advertisement_is_refused_by_name(consortium, spoil):
    group = consortium(3)
    wires = {name: group.site(name).advertise() for name in group.names}
    wires["site-1"] = spoil(wires["site-1"])

    with pytest.raises(UpdateError, match="site-1"):
        group.server.advertised(wires)


def test_a_site_that_the_server_invents_is_refused(consortium):
    group = consortium(3)
    wires = {name: group.site(name).advertise() for name in group.names}
    forged = {**wires["site-1"], "certificate": b"made by the server"}

    with pytest.raises(UpdateError, match="of another site"):
        group.server.advertised({**wires, "stranger": wires["site-0"]})
    with pytest.raises(UpdateError, match="certificate of the consortium"):
        group.site("site-0").share({**wires, "site-1": forged})


def test_sites_that_are_told_of_different_sums_reveal_nothing(consortium):
    group = consortium(5)
    group.close(group.up_to_masked())
    first, second = group.names[:4], group.names[1:]  # each is enough by itself
    words = {name: group.site(name).confirm(first) for name in first[:2]}
    words |= {name: group.site(name).confirm(second) for name in second[1:]}

    for name in group.names:
        with pytest.raises(UpdateError, match="different things"):
            group.site(name).reveal({n: w for n, w in words.items() if n != "site-4"})
    assert b'"seed": ""' not in next((group.folder / "site-0").iterdir()).read_bytes()


def test_a_word_that_was_not_given_counts_for_nothing(consortium):
    group = consortium(3)
    survivors = group.close(group.up_to_masked())
    words = {name: group.site(name).confirm(survivors) for name in survivors}
    forged = {**words, "site-1": words["site-2"], "site-2": b"x"}

    with pytest.raises(UpdateError, match="got that of 1"):
        group.site("site-0").reveal(forged)
    assert group.server.agreed({**words, "site-1": b"x"}).keys() == {"site-0", "site-2"}


def test_terms_survive_their_message(consortium):
    terms = consortium(3).terms

    assert Terms.from_text(terms.to_text()) == terms
    assert Terms.from_text(terms.to_text()).digest == terms.digest
    for text in (None, "", "[]", "{}", terms.to_text().replace("shares", "shame")):
        with pytest.raises(UpdateError, match="the terms"):
            Terms.from_text(text)


def test_shares_that_were_changed_or_moved_are_refused(consortium):
    group = consortium(3)
    inbox = group.share(group.names, group.advertise(group.names))["site-0"]
    swapped = {"site-1": inbox["site-2"], "site-2": inbox["site-1"]}
    changed = {**inbox, "site-1": inbox["site-1"][:-1] + b"\0\0"}

    for bad in (swapped, changed, {**inbox, "site-1": b""}):
        with pytest.raises(UpdateError, match="sealed"):
            group.site("site-0").mask(group.updates["site-0"], bad)


def test_a_site_refuses_a_sum_of_fewer_than_it_wants(consortium):
    group = consortium(4)
    masked = group.up_to_masked()

    for few in (("site-0", "site-1"), ("site-1", "site-2", "site-3")):
        with pytest.raises(UpdateError, match="at least 3"):
            group.site("site-0").confirm(few)
    with pytest.raises(UpdateError, match="at least 4"):
        group.site("site-0", least=4).confirm(group.names[:3])
    assert len(masked) == 4


def test_a_wrong_share_is_found_and_the_right_ones_still_unmask(consortium):
    group = consortium(4)
    survivors = group.close(group.up_to_masked())
    revealed = group.reveal(survivors)
    wrong = {**revealed["site-0"], "site-2": bytes(65) + b"\1"}

    with pytest.raises(UpdateError, match="shares"):
        group.server.unmask({**revealed, "site-0": wrong})

    mean = group.server.unmask(revealed)
    expected = group.mean(survivors)["bias"]
    assert np.allclose(mean["bias"], expected, atol=1e-6)


def test_numbers_that_are_not_finite_never_leave(consortium):
    group = consortium(3)
    inbox = group.share(group.names, group.advertise(group.names))
    group.updates["site-0"]["bias"][0] = np.nan

    with pytest.raises(UpdateError, match="finite"):
        group.masked(["site-0"], inbox)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 1},
        {"threshold": 4},
        {"bound": 0.0},
        {"bound": float("inf")},
        {"shares": {"a": 0.5, "b": 0.5}},
        {"shares": {"a": 0.9, "b": 0.9, "c": 0.1}},
        {"shares": {"a": 0.5, "b": 0.5, "c": 0.0}},
    ],
)
def test_terms_that_protect_nobody_are_refused(consortium, changes):
    with pytest.raises(SettingsError):
        consortium(3, **changes)


def test_a_site_whose_key_is_not_registered_is_refused(consortium):
    group = consortium(3)
    group.keys["site-1"] = ec.generate_private_key(ec.SECP384R1())
    wires = {name: group.site(name).advertise() for name in group.names}

    with pytest.raises(UpdateError, match="signed"):
        group.server.advertised(wires)


def test_twenty_megabytes_of_four_sites_with_a_dropout_take_seconds(consortium):
    group = consortium(4, manifest={f"w{number}": (500, 500) for number in range(20)})
    begin = time.perf_counter()
    masked = group.up_to_masked()
    del masked["site-2"]
    survivors = group.close(masked)
    revealed = group.reveal(survivors)

    mean = group.server.unmask(revealed)

    assert time.perf_counter() - begin < 20
    expected = group.mean(survivors)
    assert all(np.allclose(mean[key], expected[key], atol=1e-6) for key in mean)
