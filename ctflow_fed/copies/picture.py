"""The picture of a volume in which a copy of it is found, and how alike two are.

A picture has 40 cells along every axis of the field of view, whatever the spacing: a
generator repeats what it saw, but may be told other millimetres. What all chests share
is coarse, so every cell is told less the mean around it: what is left are vessels,
ribs, bronchi and findings as they lie in one patient.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.shapes import Slices

__all__ = ["SIDE", "Likeness", "Picture", "Pictures", "likeness", "picture_of"]

SIDE = 40
"""Cells along every axis."""

REACH = 4
"""Cells that a copy may be moved along each axis: a tenth of the volume."""

AROUND = 3
"""Cells along each side of the cube whose mean is taken off its middle."""

MARGIN = 3
"""Cells at each face that are not looked for: their surroundings are cut off there."""

FINER = (-0.5, -0.25, 0.0, 0.25, 0.5)
"""Parts of a cell by which the best move may be better still.

Edges of organs are sharp: in phantoms half a cell of misplacement makes a copy hardly
more alike than another patient.
"""

HU_KEPT = (-1000, 400)
"""Beyond are padding, metal and dense bone, which say little and weigh much."""

AT_ONCE = 16
"""Pictures that one is compared with at a time: 100 MB."""

Picture = Float[Tensor, "40 40 40"]
"""Cells along slices, rows, columns."""

Pictures = Float[Tensor, "pictures 40 40 40"]
"""One of each volume."""

Likeness = Float[Tensor, " pictures"]
"""How alike one picture is to each of others: 1 for a copy, near 0 for a stranger."""

MIRRORS = tuple(
    [axis for axis in range(3) if number >> axis & 1] for number in range(8)
)
"""The axes that are turned round in each of the eight mirror images."""

PADDED = SIDE + REACH
"""Cells that keep what is moved out at one end from coming in at the other."""


def picture_of(volume: CTVolume) -> Picture:
    """Return the picture of a volume; its HU are in thousands."""
    # Few slices are floats at a time.
    parts = torch.from_numpy(volume.hu).split(64)
    flat = torch.cat([_resized(part.float().clamp(*HU_KEPT) / 1000) for part in parts])
    cells = _resized(flat.transpose(0, 1)).transpose(0, 1)
    around = avg_pool3d(cells[None], AROUND, 1, AROUND // 2, count_include_pad=False)
    return cells - around[0]


def likeness(picture: Picture, others: Pictures) -> Likeness:
    """Return the largest normalised cross-correlation with each of ``others``.

    It is looked for over the eight mirror images of the picture and over all moves up
    to ``REACH`` cells along each axis, and normalised over the cells that overlap.
    """
    inner = torch.zeros(SIDE, SIDE, SIDE)
    inner[(slice(MARGIN, -MARGIN),) * 3] = 1
    mirrored = torch.stack([(picture * inner).flip(axes) for axes in MIRRORS])
    parts = others.split(AT_ONCE)
    return torch.cat([_largest(mirrored[:, None], inner, part) for part in parts])


def _resized(images: Slices) -> Float[Tensor, "slices 40 40"]:
    size = (SIDE, SIDE)
    return interpolate(images[:, None], size, mode="bilinear", antialias=True)[:, 0]


def _largest(mirrored: Tensor, inner: Tensor, others: Pictures) -> Likeness:
    """Return the largest correlation of any of the mirror images with each other."""
    product = _spectrum(mirrored).conj() * _spectrum(others)
    whole = _spectrum(torch.ones_like(inner))
    own = _at_moves(_spectrum(mirrored.square()).conj() * whole)
    theirs = _at_moves(_spectrum(inner).conj() * _spectrum(others.square()))
    norm = (own * theirs).clamp_min(1e-12).sqrt()
    alike = (_at_moves(product) / norm).transpose(0, 1)
    best = torch.unravel_index(alike.flatten(1).argmax(1), alike.shape[1:])
    mirror, *moves = best
    which = torch.arange(len(others))
    finer = _near(product[mirror, which], torch.stack(moves, 1) - REACH)
    return (finer / norm[mirror, which, *moves]).clamp_max(1)


def _spectrum(cells: Tensor) -> Tensor:
    found: Tensor = torch.fft.rfftn(cells, s=(PADDED,) * 3, dim=(-3, -2, -1))
    return found


def _at_moves(product: Tensor) -> Tensor:
    """Return ``sum_x first(x) second(x + move)`` for all moves of whole cells."""
    found: Tensor = torch.fft.irfftn(product, s=(PADDED,) * 3, dim=(-3, -2, -1))
    moves = torch.arange(-REACH, REACH + 1) % PADDED
    for axis in (-3, -2, -1):
        found = found.index_select(axis, moves)
    return found


def _near(product: Tensor, moves: Tensor) -> Likeness:
    """Return the largest such sum within half a cell of one move for each pair.

    A picture is as good as band-limited, so its spectrum tells it between cells too.
    """
    twice = torch.full((PADDED // 2 + 1,), 2.0)
    twice[[0, -1]] = 1.0  # of the others, one half of the spectrum is not stored
    found = product * twice
    every, half = torch.fft.fftfreq(PADDED), torch.fft.rfftfreq(PADDED)
    for axis, waves in ((2, half), (1, every), (0, every)):
        at = moves[:, axis, None] + torch.tensor(FINER)
        turned = torch.exp(2j * torch.pi * at[:, :, None] * waves)
        found = torch.einsum("nmw,nabw->nmab", turned, found)
    return found.real.flatten(1).amax(1) / PADDED**3
