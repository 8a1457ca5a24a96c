"""Attention within a frame, along the frames, and to the report."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ctflow_fed.shapes import Hidden, HiddenTokens, TokenMask

__all__ = ["CrossAttention", "SelfAttention"]

Rows = Float[Tensor, "rows tokens features"]
Queries = Float[Tensor, "batch heads queries features"]
Keys = Float[Tensor, "batch heads keys features"]
Seen = Bool[Tensor, "batch 1 1 keys"]

VECTOR = 32
"""Numbers in bfloat16 that a CPU has in one vector."""

SHORT = 64
"""Keys up to which a CPU takes up to twice as long with the fused kernel in bfloat16 as
with plain matrix products; the gradient takes two to ten times as long with any."""


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to one another."""

    def __init__(self, features: int, heads: int, *, scrambled_heads: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scrambled_heads = scrambled_heads
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Rows) -> Rows:
        """Attend over the second axis."""
        # Four axes, no more: only for these has every device a fused kernel.
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        merged = attend(query, key, value)
        if not self.scrambled_heads:
            merged = merged.transpose(1, 2)
        return self.proj(merged.reshape(x.shape))


class CrossAttention(nn.Module):
    """Multi-head attention of every patch to the tokens of its report."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(features, features)
        self.kv_linear = nn.Linear(features, 2 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Hidden, report: HiddenTokens, mask: TokenMask) -> Hidden:
        """Attend from ``x`` to ``report``; tokens outside ``mask`` are not seen.

        Of each report at least one token is seen.
        """
        if report.shape[1] == 1 and not torch.is_grad_enabled():
            # The softmax over one token is 1, whatever the query.
            value = self.kv_linear(report).chunk(2, dim=-1)[1]
            return self.proj(value)[:, None].expand(x.shape)
        query = self.q_linear(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))
        pairs = self.kv_linear(report).unflatten(-1, (2, self.heads, -1))
        key, value = pairs.movedim(-3, 0).transpose(-3, -2)
        query = query.transpose(-3, -2)
        attended = attend(query, key, value, mask[:, None, None, :])
        return self.proj(attended.transpose(-3, -2).reshape(x.shape))


def attend(query: Queries, key: Keys, value: Keys, seen: Seen | None = None) -> Queries:
    """Return ``softmax(query key^T / sqrt(features)) value``, over the keys seen."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    is_plain = key.shape[-2] <= SHORT or torch.is_grad_enabled()
    if not (on_cpu and is_plain):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    # Rows that do not fill the vectors of a CPU are slow in bfloat16.
    within = torch.float32 if key.shape[-2] % VECTOR else query.dtype
    return scores.softmax(-1, dtype=within).to(value) @ value
