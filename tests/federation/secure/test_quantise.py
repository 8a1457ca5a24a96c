import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.federation.secure import Terms, smallest_threshold
from ctflow_fed.federation.secure.quantise import (
    dequantise,
    quantise,
    steps_per_unit,
)

values = st.floats(-1e6, 1e6, width=32)


def terms_of(count, bound):
    return Terms(
        order="0" * 64,
        attempt=1,
        shares={f"s{number}": 1 / count for number in range(count)},
        manifest={},
        bound=bound,
        threshold=smallest_threshold(count),
    )


@given(st.lists(values, min_size=3, max_size=20), st.floats(1e-6, 1e3))
def test_a_sum_is_within_half_a_step_a_site(numbers, bound):
    terms = terms_of(len(numbers), bound)
    arrays = [np.full(2, number, np.float32) for number in numbers]
    total = np.zeros(2, np.uint32)
    for site, array in zip(terms.sites, arrays, strict=True):
        total += quantise(array, site, terms)

    mean = dequantise(total, 1.0, terms)

    expected = np.mean([np.clip(each.astype(float), -bound, bound) for each in arrays])
    steps = len(numbers) / 2 / steps_per_unit(terms)
    assert np.all(np.abs(mean - expected) <= steps + 2e-7 * bound)


def test_the_largest_sum_of_many_sites_does_not_wrap():
    terms = terms_of(1000, 1.0)
    total = np.zeros(1, np.uint32)
    for site in terms.sites:
        total += quantise(np.float32([7.0]), site, terms)

    assert abs(dequantise(total, 1.0, terms)[0] - 1.0) < 1e-6
