"""Slices of a volume as PNG pictures that stand inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MissingExtraError

__all__ = [
    "LUNG",
    "MEDIASTINUM",
    "WINDOWS",
    "View",
    "Window",
    "picture",
    "views",
]

PICTURE_WIDTH = 200  # pixels: sharp enough for a phone, small enough for forty of them

Plane = Shaped[np.ndarray, "rows cols"]
"""A plane through a volume, in HU."""


@dataclass(frozen=True)
class Window:
    """The HU that are shown, from black to white."""

    name: str
    low: float
    high: float


LUNG = Window("lung window", -1350, 150)
MEDIASTINUM = Window("mediastinal window", -160, 240)
BONE = Window("bone window", -450, 1050)
WINDOWS = (LUNG, MEDIASTINUM, BONE)

AXIAL = (("lower", 0.3), ("middle", 0.5), ("upper", 0.72))
"""Where the axial slices are taken, as a part of the way up."""


@dataclass(frozen=True)
class View:
    """A picture as a data URI, with its caption."""

    caption: str
    source: str


def views(volume: CTVolume) -> tuple[View, ...]:
    """Return axial slices at three levels, one of them twice, and a coronal one.

    Pictures are as radiologists see them: the patient's right is on the left, the front
    is up in axial slices, the head is up in the coronal one.
    """
    slice_mm, row_mm, col_mm = volume.spacing
    slices, rows, _ = volume.hu.shape
    axial = {
        name: volume.hu[min(int(part * slices), slices - 1)] for name, part in AXIAL
    }
    coronal = volume.hu[::-1, rows // 2]
    shown = [(f"{name} axial", plane, LUNG, row_mm) for name, plane in axial.items()]
    shown.insert(2, ("middle axial", axial["middle"], MEDIASTINUM, row_mm))
    shown.append(("coronal", coronal, LUNG, slice_mm))
    return tuple(
        View(f"{name}, {window.name}", picture(plane, window, pixel_mm / col_mm))
        for name, plane, window, pixel_mm in shown
    )


def picture(plane: Plane, window: Window, aspect: float) -> str:
    """Draw a plane as a data URI; rows are ``aspect`` times as far apart as columns."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "report") from error
    rows, cols = plane.shape
    height = max(1, round(PICTURE_WIDTH * rows * aspect / cols))
    picture = Image.fromarray(_grey(plane, window)).resize(
        (PICTURE_WIDTH, height), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _grey(plane: Plane, window: Window) -> UInt8[np.ndarray, "rows cols"]:
    part = (plane.astype(float) - window.low) / (window.high - window.low)
    return np.asarray((part.clip(0, 1) * 255).round(), dtype=np.uint8)
