"""The released layout written plainly: what the speed of FMvT is measured against.

Eager operations, one after another, as the description of CTFlow's network reads: no
fused attention, nothing kept from one block for the next, nothing left out. It takes
the weights of an `FMvT` of the released layout and gives the same numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ctflow_fed.model import FMvT
from ctflow_fed.model.embed import PATCH, frame_positions, place_positions


class PlainNetwork:
    """The released network for clips of one size, a function of its weights.

    Args:
        network: what the weights are taken from, of the released layout.
        size: frames, height and width of a clip of latents.
    """

    def __init__(self, network: FMvT, size: tuple[int, int, int]) -> None:
        self.weights: Mapping[str, Tensor] = network.state_dict()
        self.layers, self.heads = network.config.layers, network.config.heads
        frames, height, width = (length // PATCH for length in size)
        self.grid = (frames, height, width)
        features = network.config.features
        device = self.weights["final_layer.linear.weight"].device
        self.places = place_positions(height, width, features).to(device)
        self.frames = frame_positions(frames, features).to(device)

    def __call__(
        self, noisy: Tensor, t: Tensor, context: Tensor, text: Tensor
    ) -> Tensor:
        """Return the velocity; ``text`` is one token, ``[batch, 1, features]``."""
        b, (frames, height, width) = len(noisy), self.grid
        x = self._patches(torch.cat([noisy, context], dim=1))
        x = (x.reshape(b, frames, -1, x.shape[-1]) + self.places).flatten(1, 2)
        time = self._time(t)
        text = F.normalize(text, dim=-1, eps=1e-6)
        text = F.gelu(self._linear("y_embedder.y_proj.fc1", text), approximate="tanh")
        text = self._linear("y_embedder.y_proj.fc2", text)
        shared = self._linear("t_block.1", F.silu(time)).reshape(b, 6, -1)
        for layer in range(self.layers):
            x = self._block(f"blocks.{layer}", x, shared, text, first=layer == 0)
        table = self.weights["final_layer.scale_shift_table"] + time[:, None]
        shift, scale = table.chunk(2, dim=1)
        x = self._linear("final_layer.linear", _norm(x) * (1 + scale) + shift)
        x = x.reshape(b, frames, height, width, PATCH, PATCH, PATCH, -1)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(noisy.shape)

    def _block(
        self, name: str, x: Tensor, shared: Tensor, text: Tensor, *, first: bool
    ) -> Tensor:
        b, (frames, *_), features = len(x), self.grid, x.shape[-1]
        table = self.weights[f"{name}.scale_shift_table"] + shared
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table.chunk(6, dim=1)
        # Within a frame.
        y = _norm(x) * (1 + scale_a) + shift_a
        y = self._attend(f"{name}.attn", y.reshape(b * frames, -1, features))
        x = x + gate_a * y.reshape(x.shape)
        # Along the frames.
        y = x.reshape(b, frames, -1, features).transpose(1, 2)
        if first:
            y = y + self.frames
        y = self._attend(f"{name}.attn_temp", y.reshape(-1, frames, features))
        y = y.reshape(b, -1, frames, features).transpose(1, 2)
        x = x + gate_a * y.reshape(x.shape)
        # To the text.
        x = x + self._attend_to(f"{name}.cross_attn", x, text)
        # Each patch alone.
        y = self._linear(f"{name}.mlp.fc1", _norm(x) * (1 + scale_m) + shift_m)
        y = self._linear(f"{name}.mlp.fc2", F.gelu(y, approximate="tanh"))
        return x + gate_m * y

    def _attend(self, name: str, x: Tensor) -> Tensor:
        rows, tokens, features = x.shape
        qkv = self._linear(f"{name}.qkv", x).reshape(rows, tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        # The released network does not move the heads back behind the tokens.
        merged = _attention(query, key, value).reshape(rows, tokens, features)
        return self._linear(f"{name}.proj", merged)

    def _attend_to(self, name: str, x: Tensor, text: Tensor) -> Tensor:
        b, tokens, features = x.shape
        query = self._linear(f"{name}.q_linear", x).reshape(b, tokens, self.heads, -1)
        pairs = self._linear(f"{name}.kv_linear", text)
        pairs = pairs.reshape(b, text.shape[1], 2, self.heads, -1)
        key, value = pairs.permute(2, 0, 3, 1, 4)
        merged = _attention(query.transpose(1, 2), key, value).transpose(1, 2)
        return self._linear(f"{name}.proj", merged.reshape(b, tokens, features))

    def _patches(self, clip: Tensor) -> Tensor:
        weight = self.weights["x_embedder.proj.weight"]
        patches = F.conv3d(clip, weight, self.weights["x_embedder.proj.bias"], PATCH)
        return patches.flatten(2).transpose(1, 2)

    def _time(self, t: Tensor) -> Tensor:
        rates = 10000.0 ** -(torch.arange(128, device=t.device) / 128)
        angles = t[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        hidden = F.silu(self._linear("t_embedder.mlp.0", waves))
        return self._linear("t_embedder.mlp.2", hidden)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ value
