"""Attention is the same, whether a kernel computes it or it is written out."""

import pytest
import torch
from torch.nn import functional as F

from ctflow_fed.model.attention import SHORT, attend

LENGTHS = (3, 7, 24, 25, 64, SHORT + 1)


def random_rows(keys: int) -> tuple[torch.Tensor, ...]:
    """Return queries, keys and values, of which the first key is not seen."""
    torch.manual_seed(keys)
    query = torch.randn(3, 6, 40, 24)
    key, value = torch.randn(2, 3, 6, keys, 24)
    rows = tuple(each.bfloat16().requires_grad_() for each in (query, key, value))
    return *rows, (torch.arange(keys) > 0)[None, None, None].expand(3, 1, 1, keys)


@pytest.mark.parametrize("keys", LENGTHS)
@pytest.mark.parametrize("masked", [True, False])
def test_attention_in_bfloat16_is_that_of_float32_to_rounding(
    keys: int, masked: bool
) -> None:
    *rows, seen = random_rows(keys)
    mask = seen if masked else None
    exact = [each.detach().float().requires_grad_() for each in rows]

    found = attend(*rows, mask)
    with torch.no_grad():
        drawn = attend(*rows, mask)
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask)

    for each in (found, drawn):
        assert each.dtype == torch.bfloat16
        torch.testing.assert_close(each.float(), expected, atol=0.02, rtol=0.02)
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad((found.float() * weights).sum(), rows)
    theirs = torch.autograd.grad((expected * weights).sum(), exact)
    for one, other in zip(ours, theirs, strict=True):
        off = (one.float() - other).norm() / other.norm()
        assert off < 0.02


def test_a_key_that_is_not_seen_has_no_say() -> None:
    query, key, value, seen = random_rows(25)
    changed = torch.where(seen.mT, value, 1e4)

    assert torch.equal(
        attend(query, key, value, seen), attend(query, key, changed, seen)
    )
