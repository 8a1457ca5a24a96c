"""Is this a chest CT? A few numbers that a physicist can check by eye, and a reason.

Slices are thinned to about 128 x 128 pixels. Body is what is above -300 HU; what has
some of it on all four sides within its slice is inside; air inside (-990 to -400 HU) is
lung, unless a slice shows too little of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from ctflow_fed.ct.volume import CTVolume

__all__ = ["ChestCheck", "check_chest"]

PIXELS = 128
"""About how many pixels a side are looked at."""

BODY_ABOVE = -300
LUNG_HU = (-990, -400)
WALL_MM = 15.0
"""Of a chest at its thinnest; a table is thinner."""

FAT_HU = (-150, -30)
SOFT_HU = (0, 100)
BONE_ABOVE = 250

LUNG_CM2 = 25.0
"""Lung that a slice shows at least; gas in the bowel or the pharynx is less."""

LEAST_LUNG_MM = 60.0
"""Lungs shorter than this are the bases, on a scan of the abdomen, or no lungs."""

LEAST_BODY = 0.02
LEAST_SOFT = 0.03
"""Shares of the voxels, and of the body; of real scans the least is 0.2 and 0.15."""

CONTRAST_HU = 110.0
"""Between the lungs, blood without contrast has 30 to 60 HU."""

Mask = Bool[np.ndarray, "slices rows cols"]


@dataclass(frozen=True)
class ChestCheck:
    """The ``numbers`` that were measured, and why it is no chest, "" where it is one.

    ``remarks`` are on what is a chest: partly covered, contrast.
    """

    numbers: dict[str, float]
    refusal: str
    remarks: tuple[str, ...]


def check_chest(volume: CTVolume) -> ChestCheck:
    """Measure tissues and lungs of a volume in HU and judge by them."""
    every = max(1, min(volume.hu.shape[1:]) // PIXELS)
    hu = volume.hu[:, ::every, ::every]
    between, row, column = volume.spacing
    body = hu > BODY_ABOVE
    wall = tuple(max(1, round(WALL_MM / (every * pixel))) for pixel in (row, column))
    lung = _inside(body, (wall[0], wall[1])) & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1])
    area = lung.sum((1, 2)) * (every * every * row * column / 100)
    start, stop = _longest_run(area >= LUNG_CM2)
    numbers = _tissues(hu, body, lung)
    numbers["lung_mm"] = (stop - start) * between
    numbers["lung_litres"] = float(area.sum()) * between / 10_000
    if stop > start:
        numbers["mediastinum_hu"] = _mediastinum(hu[start:stop], lung[start:stop])
    rounded = {name: round(number, 3) for name, number in numbers.items()}
    return ChestCheck(
        rounded, _refusal(rounded), tuple(_remarks(rounded, start, stop, len(hu)))
    )


def _inside(body: Mask, wall: tuple[int, int]) -> Mask:
    """Return what has ``wall`` pixels of body on all four sides, within its slice.

    So the air between a patient and a table, or an arm, is not inside.
    """
    inside = ~body
    for axis, least in zip((1, 2), wall, strict=True):
        before = np.cumsum(body, axis, dtype=np.int16)
        inside &= before >= least
        inside &= (
            before[:, -1:] - before >= least
            if axis == 1
            else (before[:, :, -1:] - before >= least)
        )
    return inside


def _longest_run(wanted: Bool[np.ndarray, " slices"]) -> tuple[int, int]:
    """Return where the longest run of wanted slices starts and stops."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return 0, 0
    start, stop = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return int(start), int(stop)


def _tissues(hu: np.ndarray, body: Mask, lung: Mask) -> dict[str, float]:
    """Return the shares of tissues: air of all voxels, the others of the body."""
    within = int(body.sum() + lung.sum())
    dense = hu[body]

    def share(low: int, high: int) -> float:
        return float(
            np.count_nonzero((dense >= low) & (dense <= high)) / max(within, 1)
        )

    return {
        "body_share": within / hu.size,
        "lung_share": float(lung.sum() / max(within, 1)),
        "fat_share": share(*FAT_HU),
        "soft_share": share(*SOFT_HU),
        "bone_share": share(BONE_ABOVE, 32767),
    }


def _mediastinum(hu: np.ndarray, lung: Mask) -> float:
    """Return the upper quartile of soft HU between the lungs, before the spine."""
    rows, columns = (np.flatnonzero(lung.any((0, axis))) for axis in (2, 1))
    top, bottom = rows[0], rows[-1] + 1
    left, right = columns[0], columns[-1] + 1
    third, width = (bottom - top) // 3, (right - left) // 3
    middle = hu[:, top + third // 2 : bottom - third, left + width : right - width]
    soft = middle[(middle > 0) & (middle < 500)]
    return float(np.percentile(soft, 75)) if soft.size else 0.0


def _refusal(numbers: dict[str, float]) -> str:
    if numbers["body_share"] < LEAST_BODY or numbers["soft_share"] < LEAST_SOFT:
        return (
            "expected a patient in Hounsfield units, got "
            f"{numbers['body_share']:.1%} body, of which {numbers['soft_share']:.1%} "
            "has the HU of soft tissue; export the scan again in HU"
        )
    if numbers["lung_mm"] < LEAST_LUNG_MM:
        return (
            f"expected a chest, got lungs over {numbers['lung_mm']:.0f} mm of height "
            f"({LEAST_LUNG_MM:.0f} or more are needed); leave the study out, or let "
            "the policy take any region"
        )
    return ""


def _remarks(
    numbers: dict[str, float], start: int, stop: int, slices: int
) -> list[str]:
    remarks = []
    cut = [end for end, at in (("below", start == 0), ("above", stop == slices)) if at]
    if cut:
        remarks.append(f"lungs cut off {' and '.join(cut)}")
    if numbers.get("mediastinum_hu", 0.0) >= CONTRAST_HU:
        remarks.append("contrast medium")
    return remarks
