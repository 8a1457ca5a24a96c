"""Pictures of volumes and a plot of results."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ctflow_fed.shapes import HU

LUNG = (-1350, 150)
MEDIASTINUM = (-160, 240)
SCALE = 2
MARGIN = 4
COLOURS = {"real": "#999", "ours": "#06c", "ours-200": "#8bd", "ctflow": "#c60"}


def save_samples(volumes: Sequence[HU], path: Path) -> None:
    """Show volumes side by side: axial, coronal, sagittal, in lung window and soft."""
    rows = [
        np.concatenate([_framed(view(volume), window) for volume in volumes], axis=1)
        for window in (LUNG, MEDIASTINUM)
        for view in (_axial, _coronal, _sagittal)
    ]
    _save(np.concatenate(rows), path)


def save_pairs(pairs: Sequence[tuple[str, HU, HU]], path: Path) -> None:
    """Show what one seed gives without a finding and with it, where they differ most.

    A row a finding: without, with, in the lung window, then in the soft one.
    """
    rows = []
    for _, without, shows in pairs:
        moved = np.abs(shows.astype(float) - without).mean((1, 2))
        at = int(moved.argmax())
        cells = [
            _framed(volume[at], window)
            for window in (LUNG, MEDIASTINUM)
            for volume in (without, shows)
        ]
        rows.append(np.concatenate(cells, axis=1))
    picture = np.concatenate(rows)
    canvas = Image.new("L", (picture.shape[1] + 190, picture.shape[0]), 255)
    canvas.paste(Image.fromarray(picture), (190, 0))
    pen, height = ImageDraw.Draw(canvas), len(picture) // max(1, len(pairs))
    for row, (name, _, _) in enumerate(pairs):
        pen.text((6, row * height + height // 2), name, fill=0)
    canvas.save(path)


def plot(results: Sequence[Mapping[str, object]], path: Path) -> None:
    """Draw the AUROC of every readable finding as bars: real, ours and CTFlow."""
    result, width, height = results[0], 760, 26
    real: Mapping[str, float] = result["real"]["auroc"]  # type: ignore[index]  # JSON
    names = sorted(real, key=real.__getitem__, reverse=True)
    arms = [arm for arm in ("ours", "ours-200", "ctflow") if arm in result]
    body = [_legend(["real", *arms])]
    for row, name in enumerate(names):
        top = 40 + row * (height + 6)
        body.append(
            f'<text x="250" y="{top + 16}" text-anchor="end">{escape(name)}</text>'
        )
        tables = {"real": real} | {a: result[a]["auroc"] for a in arms}  # type: ignore[index]  # JSON
        for place, (arm, table) in enumerate(tables.items()):
            share, thick = max(0.0, table.get(name, 0.0)), height / len(tables)
            body.append(
                f'<rect x="260" y="{top + place * thick:.1f}" '
                f'width="{share * (width - 300):.1f}" height="{thick:.1f}" '
                f'fill="{COLOURS[arm]}"/>'
            )
    middle = 260 + 0.5 * (width - 300)
    bottom = 40 + len(names) * (height + 6)
    body.append(
        f'<line x1="{middle}" y1="34" x2="{middle}" y2="{bottom}" stroke="#000" '
        'stroke-dasharray="4"/>'
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{bottom + 10}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" '
        'fill="#fff"/>' + "".join(body) + "</svg>\n"
    )


def _legend(arms: Sequence[str]) -> str:
    words = [
        f'<text x="{260 + 110 * place}" y="20" fill="{COLOURS[arm]}">{arm}</text>'
        for place, arm in enumerate(arms)
    ]
    return '<text x="10" y="20">AUROC of findings read back</text>' + "".join(words)


def _axial(volume: HU) -> np.ndarray:
    return volume[len(volume) // 2]


def _coronal(volume: HU) -> np.ndarray:
    return _stretched(volume[::-1, volume.shape[1] // 2])


def _sagittal(volume: HU) -> np.ndarray:
    return _stretched(volume[::-1, :, volume.shape[2] // 3])


def _stretched(plane: np.ndarray) -> np.ndarray:
    """Repeat slices, so that planes through different volumes are of one height."""
    rows = np.arange(plane.shape[1]) * len(plane) // plane.shape[1]
    return plane[rows]


def _framed(plane: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    low, high = window
    grey = np.clip((plane.astype(float) - low) / (high - low), 0, 1) * 255
    large = grey.astype(np.uint8).repeat(SCALE, 0).repeat(SCALE, 1)
    return np.pad(large, MARGIN // 2, constant_values=255)


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path)
