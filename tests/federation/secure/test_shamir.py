from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.secure.shamir import PRIME, SHARE_BYTES, combine, split

secrets = st.binary(min_size=32, max_size=32)


@given(secrets, st.integers(2, 9), st.integers(0, 5), st.randoms())
def test_any_threshold_of_shares_is_the_secret(secret, threshold, more, random):
    shares = split(secret, range(1, threshold + more + 1), threshold)
    some = random.sample(sorted(shares), threshold)

    assert combine({point: shares[point] for point in some}) == secret
    assert combine(shares) == secret


@given(secrets, secrets)
def test_one_share_too_few_fits_any_secret(secret, other):
    shares = split(secret, (1, 2, 3), 3)
    known = [int.from_bytes(shares[point], "big") for point in (1, 2)]
    # The third share of a polynomial with value `other` at 0: w = 3, -3, 1 at 1, 2, 3.
    third = (int.from_bytes(other, "big") - 3 * known[0] + 3 * known[1]) % PRIME

    assert combine({**shares, 3: third.to_bytes(SHARE_BYTES, "big")}) == other


def test_a_share_of_one_secret_is_another_each_time():
    low = Counter(split(bytes(32), (1, 2), 2)[1][-1] % 4 for _ in range(4000))

    assert all(800 < low[value] < 1200 for value in range(4))


@pytest.mark.parametrize("share", [b"", bytes(65), b"\xff" * SHARE_BYTES])
def test_what_is_no_share_is_refused(share):
    good = split(bytes(32), (1, 2), 2)

    with pytest.raises(UpdateError, match="share"):
        combine({**good, 2: share})
