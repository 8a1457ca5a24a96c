"""One block of FMvT."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ctflow_fed.model.attention import CrossAttention, SelfAttention
from ctflow_fed.shapes import Hidden, HiddenTokens, TokenMask

__all__ = ["FMvTBlock", "modulate", "modulation_table"]

Modulation = Float[Tensor, "batch parts hidden"]
Part = Float[Tensor, "batch 1 1 hidden"]


def modulate(x: Hidden, shift: Part, scale: Part) -> Hidden:
    """Return ``LayerNorm(x) (1 + scale) + shift``, the norm without weights."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def modulation_table(parts: int, features: int) -> nn.Parameter:
    """Return what a layer adds to the modulation of the time, to begin with.

    Divided in place: for a network without values torch would load its compiler.
    """
    return nn.Parameter(torch.randn(parts, features).div_(features**0.5))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside.

    The released network takes its approximation by tanh, off by 5e-4 at most and in
    bfloat16 on a CPU six times as slow.
    """

    def __init__(self, features: int, *, released: bool) -> None:
        super().__init__()
        self.approximate = "tanh" if released else "none"
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2 = nn.Linear(4 * features, features)

    def forward(self, x: Hidden) -> Hidden:
        """Transform each patch alone."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class FMvTBlock(nn.Module):
    """Spatial, temporal and report attention, then a feed-forward network.

    The order and the shared gate are those of the released network, which lacks the
    norms before temporal and report attention.
    """

    def __init__(self, features: int, heads: int, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.scale_shift_table = modulation_table(6, features)
        self.attn = SelfAttention(features, heads, scrambled_heads=released)
        self.attn_temp = SelfAttention(features, heads, scrambled_heads=released)
        self.cross_attn = CrossAttention(features, heads)
        self.mlp = FeedForward(features, released=released)

    def forward(
        self,
        x: Hidden,
        modulation: Modulation,
        report: HiddenTokens,
        report_mask: TokenMask,
        frames: Float[Tensor, "pairs hidden"] | None,
    ) -> Hidden:
        """Pass ``x`` through; ``frames`` are the positions that block 0 alone gets."""
        b, pairs = x.shape[:2]
        parts = (self.scale_shift_table + modulation)[:, :, None, None]
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = (
            parts.unbind(1)
        )
        # Within a frame.
        within = modulate(x, shift_attn, scale_attn).flatten(0, 1)
        x = torch.addcmul(x, gate_attn, self.attn(within).unflatten(0, (b, pairs)))
        # Along the frames, at one place.
        along = self._normed(x)
        if frames is not None:
            along = along + frames[:, None]
        # Of one clip this is a view, and a linear layer is slow with strides.
        along = along.transpose(1, 2).flatten(0, 1).contiguous()
        along = self.attn_temp(along)
        x = torch.addcmul(x, gate_attn, along.unflatten(0, (b, -1)).transpose(1, 2))
        # To the report.
        x = x + self.cross_attn(self._normed(x), report, report_mask)
        # Each patch alone.
        return torch.addcmul(x, gate_mlp, self.mlp(modulate(x, shift_mlp, scale_mlp)))

    def _normed(self, x: Hidden) -> Hidden:
        return x if self.released else F.layer_norm(x, x.shape[-1:], eps=1e-6)
