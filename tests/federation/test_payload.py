import numpy as np
import pytest
import torch

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    arrays_of,
    check_change,
    manifest_digest,
    manifest_of,
    moved_from,
    network_of,
    norm_of,
)
from ctflow_fed.model import PRESETS, fresh_network

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.float32([0.5]),
}
MANIFEST = manifest_of(ARRAYS)


def test_a_network_takes_back_its_own_weights():
    network = fresh_network(PRESETS["nano"], seed=1)

    other = network_of(PRESETS["nano"], arrays_of(network))

    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_network_refuses_the_weights_of_another_size():
    tiny = fresh_network(PRESETS["tiny"], seed=1)

    with pytest.raises(UpdateError, match="another network"):
        network_of(PRESETS["nano"], arrays_of(tiny))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_change_that_is_not_finite_is_refused(bad):
    change = {**ARRAYS, "b": np.float32([bad])}

    with pytest.raises(UpdateError, match="not finite"):
        check_change(change, norm_of(ARRAYS))


def test_a_change_that_was_scaled_is_refused():
    update = {name: value * 1000 for name, value in ARRAYS.items()}

    with pytest.raises(UpdateError, match="999 times"):
        check_change(moved_from(update, ARRAYS), norm_of(ARRAYS))


def test_an_honest_update_tells_how_far_it_moved():
    update = {name: value * 1.5 for name, value in ARRAYS.items()}

    moved = check_change(moved_from(update, ARRAYS), norm_of(ARRAYS))
    assert moved == pytest.approx(0.5)
    assert norm_of(ARRAYS) == pytest.approx((0 + 1 + 4 + 9 + 16 + 25 + 0.25) ** 0.5)


def test_the_manifest_digest_depends_on_names_and_shapes_but_not_on_order():
    backwards = dict(reversed(ARRAYS.items()))
    other = {**ARRAYS, "b": np.zeros(2, np.float32)}

    assert manifest_digest(manifest_of(backwards)) == manifest_digest(MANIFEST)
    assert manifest_digest(manifest_of(other)) != manifest_digest(MANIFEST)
