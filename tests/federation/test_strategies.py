import shutil
from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.errors import PackageError
from ctflow_fed.federation import (
    STRATEGIES,
    ServerState,
    advance,
    beside,
    beside_digest,
    follow,
    manifest_of,
    read_beside,
    save_beside,
    writing_state,
)
from ctflow_fed.federation.arrays import Run, values_of

START = {"w": np.float32([1.0, -2.0, 0.5])}
MEANS = ({"w": np.float32([1.5, -2.0, 0.25])}, {"w": np.float32([1.25, -1.0, 0.25])})
RULED = [name for name, each in STRATEGIES.items() if each.rule]


def played(name, means=MEANS, rate=0.5, decay=0.0, state=None, first=1):
    """Return the state after a round for each mean."""
    state = state or ServerState(START, {}, {})
    for number, mean in enumerate(means, start=first):
        state = advance(state, mean, STRATEGIES[name], rate)
        state = follow(state, decay, number)
    return state


def deltas(name):
    """Return the two ways that the rule was given, in float64."""
    after = played(name, MEANS[:1]).weights["w"].astype(np.float64)
    return MEANS[0]["w"] - START["w"].astype(np.float64), MEANS[1]["w"] - after, after


@pytest.mark.parametrize("name", ["fedavg", "trimmed-mean", "median"])
def test_a_strategy_without_a_rule_takes_the_mean_as_it_is(name):
    state = played(name)

    assert state.weights is MEANS[1]
    assert beside_digest(beside(state, merged=False)) == ""


def test_fedavgm_goes_on_in_the_direction_of_before():
    first, second, after = deltas("fedavgm")

    expected = after + 0.5 * (0.9 * first + second)
    assert played("fedavgm").weights["w"] == pytest.approx(expected)


def test_diloco_looks_ahead_of_its_momentum():
    first, second, after = deltas("diloco")

    assert after == pytest.approx(START["w"] + 0.5 * (first + 0.9 * first))
    expected = after + 0.5 * (second + 0.9 * (0.9 * first + second))
    assert played("diloco").weights["w"] == pytest.approx(expected)


def test_fedadam_divides_by_how_far_each_weight_usually_goes():
    first, second, after = deltas("fedadam")

    v = 0.99 * 1e-6 + 0.01 * first**2
    expected = START["w"] + 0.5 * 0.1 * first / (np.sqrt(v) + 1e-3)
    assert after == pytest.approx(expected, rel=1e-5)
    v = 0.99 * v + 0.01 * second**2
    m = 0.9 * 0.1 * first + 0.1 * second
    expected = after + 0.5 * m / (np.sqrt(v) + 1e-3)
    assert played("fedadam").weights["w"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", RULED)
def test_sites_that_stay_where_they_are_move_nothing(name):
    state = played(name, [START, START])

    assert np.array_equal(state.weights["w"], START["w"])


def test_an_average_is_the_plain_mean_until_its_decay_takes_over():
    means = [{"w": np.float32([value])} for value in (3.0, 5.0, 10.0)]

    state = played("fedavg", means, decay=0.6)

    assert state.weights["w"] == pytest.approx([10.0])
    assert state.model["w"] == pytest.approx([0.6 * (3.0 + 5.0) / 2 + 0.4 * 10.0])


def saved(state, root, *, merged=False):
    """Write a state, and keep what the package of its model does not hold."""
    with writing_state(root / "next", manifest_of(START)) as writer:
        writer.write(state)
    kinds = beside(writer.state, merged=merged)
    shutil.rmtree(root / "server", ignore_errors=True)
    save_beside(root / "server", kinds)
    return beside_digest(kinds)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_state_that_was_saved_goes_on_to_the_same_bits(tmp_path, name, decay, merged):
    unbroken = played(name, decay=decay)
    before = played(name, MEANS[:1], decay=decay)
    digest = saved(before, tmp_path, merged=merged)
    read = read_beside(tmp_path / "server", {} if merged else before.model, digest)

    state = played(name, MEANS[1:], decay=decay, state=read, first=2)
    assert state.weights["w"].tobytes() == unbroken.weights["w"].tobytes()
    assert state.model["w"].tobytes() == unbroken.model["w"].tobytes()
    digests = {beside_digest(beside(s, merged=merged)) for s in (state, unbroken)}
    assert len(digests) == 1
    assert (tmp_path / "server").exists() == (name in RULED or decay > 0 or merged)


def test_what_rounding_has_left_is_saved_with_the_state(tmp_path):
    state = replace(played("diloco"), residual={"w": np.float32([0.1, 0.2, 0.3])})
    digest = saved(state, tmp_path)

    read = read_beside(tmp_path / "server", state.model, digest)
    assert read.residual["w"].tobytes() == state.residual["w"].tobytes()
    assert read.moments.keys() == state.moments.keys()
    assert read.average == {}


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "other", "more"])
def test_a_state_that_is_not_the_one_of_the_ledger_is_refused(tmp_path, damage):
    other, state = played("diloco", MEANS[:1]), played("diloco")
    digest = saved(state, tmp_path)
    path = tmp_path / "server" / "momentum.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    {
        "gone": path.unlink,
        "cut": lambda: path.write_bytes(data[:-5]),
        "changed": lambda: path.write_bytes(data),
        "other": lambda: saved(other, tmp_path),
        "more": lambda: path.with_name("weights.safetensors").write_bytes(data),
    }[damage]()

    with pytest.raises(PackageError, match="server of the last round"):
        read_beside(tmp_path / "server", state.model, digest)


def test_a_state_may_be_advanced_run_by_run(tmp_path):
    start = {**START, "v": np.float32([[2.0]])}
    means = {**MEANS[0], "v": np.float32([[3.0]])}
    fedadam = STRATEGIES["fedadam"]
    whole = follow(advance(ServerState(start), means, fedadam, 0.5), 0.9, 1)
    runs = [Run("v", slice(0, 1)), Run("w", slice(0, 2)), Run("w", slice(2, 3))]

    with writing_state(tmp_path, manifest_of(start)) as writer:
        for run in runs:
            mean = {run.name: values_of(means, run)}
            piece = advance(ServerState(start).only(run), mean, fedadam, 0.5)
            writer.write(follow(piece, 0.9, 1))

    for kind, arrays in beside(whole, merged=True).items():
        written = beside(writer.state, merged=True)[kind]
        assert all(np.array_equal(written[name], arrays[name]) for name in start)
