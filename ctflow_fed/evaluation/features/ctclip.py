"""CT-CLIP's image tower (Hamamci et al., arXiv 2403.17834): volumes beside reports.

Its weights are a whole checkpoint as safetensors, with the authors' names: a CTViT
under ``visual_transformer`` and its projection ``to_visual_latent``. Sizes are those of
the weights. Patches of 10 x 20 x 20 voxels attend to those of their slices, then to
those above and below; each becomes the nearest of a codebook, and the mean over the
height is projected to the space that reports are projected to as well.
"""

import math
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import (
    conv3d,
    gelu,
    interpolate,
    layer_norm,
    leaky_relu,
    linear,
    normalize,
    pad,
    scaled_dot_product_attention,
)

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import PackageError
from ctflow_fed.evaluation.features.extractor import fitted, refuse_large
from ctflow_fed.evaluation.features.resnet import Weights, read_weights
from ctflow_fed.files import digest_of
from ctflow_fed.model import default_device
from ctflow_fed.shapes import Slices
from ctflow_fed.weights import weights_digest

__all__ = ["CTCLIPVolumes", "as_published"]

TOWER, PROJECTION = "visual_transformer.", "to_visual_latent.weight"
CODEBOOK = "vq._codebook.embed"
PARTS = ("to_patch_emb.", "spatial_rel_pos_bias.", "enc_spatial", "enc_temporal")
USED = (PROJECTION, *(f"{TOWER}{part}" for part in PARTS), f"{TOWER}{CODEBOOK}")
PATCH = (10, 20, 20)
SLICES = 240
SPACING_MM = (1.5, 0.75, 0.75)
MOST_GRID, MOST_HEADS = 32, 32
"""Patches along a slice, and heads, that weights may claim; 24 and 8 are published."""

MOST_HU = 1000
SHARPNESS = 8.0
"""What cosines of queries and keys are multiplied with."""

Rows = Float[Tensor, "rows patches features"]


class CTCLIPVolumes:
    """Volumes -> what CT-CLIP compares with a report, 512 numbers of length 1.

    A volume is given at 0.75 mm; two slices are averaged to one of 1.5 mm. It is cut or
    filled up with the darkest of the window to 240 slices of 480 x 480; 0 and 1 of a
    window are to the network what -1000 and 1000 HU are (`as_published`).
    """

    name = "ctclip"
    axes: Literal[2, 3] = 3
    pretrained = True
    spacing_mm = SPACING_MM[1]

    def __init__(self, weights: Path) -> None:
        known = {
            name.removeprefix(TOWER): each.float()
            for name, each in read_weights(weights).items()
            if name.startswith(USED)
        }
        self.extractor_id = digest_of([self.name, weights_digest(known)])
        self._weights = {n: each.to(default_device()) for n, each in known.items()}
        try:
            self.width, self._grid = _sizes(known)
            self._side = PATCH[1] * self._grid
            self._bias = _bias_of_places(self._weights, self._grid)
            blank = torch.zeros(PATCH[0], self._side, self._side)
            length = self._vector(blank).norm()  # all layers fit one another
            if not torch.isclose(length, torch.tensor(1.0)):
                raise ValueError
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError):
            raise PackageError(
                "expected the weights of CT-CLIP (visual_transformer and "
                "to_visual_latent), got those of another network; choose the file for "
                "it"
            ) from None

    def extract(
        self, images: Float[Tensor, "images slices rows cols"]
    ) -> Float[Tensor, "images features"]:
        """Return a vector for each volume."""
        size = (2 * SLICES, self._side, self._side)
        cut = (fitted(each, size).unflatten(0, (-1, 2)).mean(1) for each in images)
        return torch.stack([self.latent(each) for each in cut])

    def latent(self, image: Slices) -> Float[Tensor, " features"]:
        """Return the vector of a volume as `as_published` has it, or cut from one."""
        return self._vector(fitted(image, (SLICES, self._side, self._side)))

    def _vector(self, image: Slices) -> Float[Tensor, " features"]:
        weights = self._weights
        patches = _patches((image * 2 - 1).mT.to(default_device()), weights)
        shape = (1, len(patches), self._grid, self._grid)
        planes = _transformed(
            patches, shape, weights, "enc_spatial_transformer.", self._bias
        )
        columns = _transformed(
            planes.transpose(0, 1), shape, weights, "enc_temporal_transformer."
        )
        mean = _nearest(columns, weights[CODEBOOK]).mean(1)
        return normalize(weights[PROJECTION] @ mean.flatten(), dim=0).cpu()


def as_published(volume: CTVolume) -> Slices:
    """Return a volume as CT-CLIP was trained on it: -1000 to 1000 HU as 0 to 1.

    Voxels are of 1.5 x 0.75 x 0.75 mm, by linear interpolation that does not average.
    """
    size = [
        max(1, int(side * mm / target))
        for side, mm, target in zip(
            volume.hu.shape, volume.spacing, SPACING_MM, strict=True
        )
    ]
    refuse_large(size)
    hu = torch.from_numpy(volume.hu).clamp(-MOST_HU, MOST_HU).float()
    image = interpolate(hu[None, None], size, mode="trilinear", align_corners=False)
    return (image[0, 0] / MOST_HU + 1) / 2


def _sizes(weights: Weights) -> tuple[int, int]:
    """Return how long a vector is, and how many patches lie along a slice.

    Weights that are not finite, or claim too many of anything, raise ``ValueError``.
    """
    width, flat = weights[PROJECTION].shape
    grid = math.isqrt(flat // max(1, len(weights["to_patch_emb.2.weight"])))
    heads = len(weights["spatial_rel_pos_bias.net.2.weight"])
    finite = all(bool(each.isfinite().all()) for each in weights.values())
    if not (1 <= grid <= MOST_GRID and 1 <= heads <= MOST_HEADS and finite):
        raise ValueError
    return width, grid


def _patches(image: Float[Tensor, "height across down"], weights: Weights) -> Rows:
    """Cut a volume to patches, a row for each height."""
    high, across, down = PATCH
    cut = image.unfold(0, high, high).unfold(1, across, across).unfold(2, down, down)
    voxels = cut.flatten(3).flatten(1, 2)
    voxels = _normalised(voxels, weights, "to_patch_emb.1.")
    features = _projected(voxels, weights, "to_patch_emb.2.")
    return _normalised(features, weights, "to_patch_emb.3.")


def _transformed(
    rows: Rows,
    shape: tuple[int, int, int, int],
    weights: Weights,
    part: str,
    bias: Float[Tensor, "heads patches patches"] | None = None,
) -> Rows:
    """Apply a transformer to each row by itself, but for its convolutions.

    These see all rows as an array of ``shape``; of columns too, as the network was
    trained.
    """
    layers = f"{part}layers."
    numbers = {int(n.split(".")[2]) for n in weights if n.startswith(layers)}
    for number in range(max(numbers) + 1):
        layer = f"{part}layers.{number}."
        rows = rows + _convolved(rows, shape, weights, f"{layer}0.dsconv.")
        rows = rows + _attended(rows, weights, f"{layer}1.", bias)
        rows = rows + _fed_forward(rows, weights, f"{layer}3.")
    return _normalised(rows, weights, f"{part}norm_out.", ("gamma", "beta"))


def _convolved(
    rows: Rows, shape: tuple[int, int, int, int], weights: Weights, name: str
) -> Rows:
    """Tell patches of their neighbours in a slice and of the two below."""
    array = rows.reshape(*shape, -1).movedim(-1, 1)
    around = pad(array, (1, 1, 1, 1, 2, 0))
    kernel, shift = weights[f"{name}weight"], weights[f"{name}bias"]
    found = conv3d(around, kernel, shift, groups=len(kernel))
    return found.movedim(1, -1).reshape(rows.shape)


def _attended(
    rows: Rows,
    weights: Weights,
    name: str,
    bias: Float[Tensor, "heads patches patches"] | None,
) -> Rows:
    """Attend by cosines; keys and values are of rows that were not normalised."""
    asked = linear(
        _normalised(rows, weights, f"{name}norm.", ("gamma", "beta")),
        weights[f"{name}to_q.weight"],
    )
    told = linear(rows, weights[f"{name}to_kv.weight"])
    width = len(weights[f"{name}q_scale"])
    queries, keys, values = (
        each.unflatten(-1, (-1, width)).transpose(1, 2)
        for each in (asked, *told.chunk(2, -1))
    )
    found = scaled_dot_product_attention(
        normalize(queries, dim=-1) * weights[f"{name}q_scale"],
        normalize(keys, dim=-1) * weights[f"{name}k_scale"],
        values,
        attn_mask=bias,
        scale=SHARPNESS,
    )
    return linear(found.transpose(1, 2).flatten(2), weights[f"{name}to_out.weight"])


def _fed_forward(rows: Rows, weights: Weights, name: str) -> Rows:
    wide = linear(_normalised(rows, weights, f"{name}0."), weights[f"{name}1.weight"])
    value, gate = wide.chunk(2, -1)
    return linear(gelu(gate) * value, weights[f"{name}4.weight"])


def _normalised(
    values: Tensor,
    weights: Weights,
    name: str,
    parts: tuple[str, str] = ("weight", "bias"),
) -> Tensor:
    scale, shift = (weights[f"{name}{part}"] for part in parts)
    return layer_norm(values, values.shape[-1:], scale, shift)


def _projected(values: Tensor, weights: Weights, name: str) -> Tensor:
    return linear(values, weights[f"{name}weight"], weights[f"{name}bias"])


def _nearest(rows: Rows, codebook: Float[Tensor, "... codes features"]) -> Rows:
    """Put the code of the largest cosine in the place of each patch."""
    codes = codebook.flatten(0, -2)
    return codes[(rows @ normalize(codes, dim=-1).T).argmax(-1)]


def _bias_of_places(
    weights: Weights, grid: int
) -> Float[Tensor, "heads patches patches"]:
    """Return what attention adds for where two patches of a slice lie.

    A small network gives it for the logarithms of their distances along both axes.
    """
    part = "spatial_rel_pos_bias.net."
    away = torch.arange(1 - grid, grid, device=default_device())
    known = away.sign() * (away.abs() + 1.0).log()
    told = torch.cartesian_prod(known, known)
    for layer in ("0.0.", "1.0."):
        told = leaky_relu(_projected(told, weights, part + layer), 0.1)
    told = _projected(told, weights, f"{part}2.")
    place = torch.arange(grid, device=default_device())
    apart = (place[:, None] - place) + grid - 1
    pair = apart[:, None, :, None] * len(away) + apart[None, :, None, :]
    return told[pair.reshape(grid**2, grid**2)].movedim(-1, 0)
