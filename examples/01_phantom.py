"""Draw one chest without and with findings, and save a picture of both.

    python examples/01_phantom.py [phantom.png]

Axial and coronal views; the lung window above, the mediastinal window below.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ctflow_fed.ct.phantom import Scanner, draw

SEED = 12
FINDINGS = ("Lung nodule", "Consolidation", "Pleural effusion", "Medical material")
LUNG, MEDIASTINUM = (-1350, 200), (-160, 240)
HEIGHT = 240


def picture(slice_hu: np.ndarray, window: tuple[int, int], width: int) -> np.ndarray:
    """One slice in a window, as grey values."""
    low, high = window
    grey = np.clip((slice_hu - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey).resize((width, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(image)


def views(
    hu: np.ndarray, scanner: Scanner, axial: tuple[int, int], row: int
) -> np.ndarray:
    """Two axial slices and a coronal one, in both windows."""
    rows = []
    wide = round(HEIGHT * scanner.field_mm / (scanner.slices * scanner.slice_mm))
    crop = slice(round(0.15 * scanner.rows), round(0.85 * scanner.rows))
    for window in (LUNG, MEDIASTINUM):
        flat = [picture(hu[z, crop], window, round(HEIGHT / 0.7)) for z in axial]
        upright = picture(hu[::-1, row], window, wide)
        rows.append(np.concatenate([*flat, upright], axis=1))
    return np.concatenate(rows)


def main(path: Path) -> None:
    """Draw, print the report, save the picture."""
    scanner = Scanner(noise_hu=9).resized(100, 256)
    plain = draw(SEED, scanner=scanner)
    study = draw(SEED, FINDINGS, scanner=scanner)
    nodule, pneumonia = study.masks["Lung nodule"], study.masks["Consolidation"]
    axial = (int(pneumonia.sum((1, 2)).argmax()), int(nodule.sum((1, 2)).argmax()))
    row = int(pneumonia.sum((0, 2)).argmax())
    both = [views(s.volume.hu, scanner, axial, row) for s in (plain, study)]
    whole = np.concatenate(both) & 0xFC  # 64 greys make a small file
    Image.fromarray(whole).save(path, optimize=True)
    print(study.findings, study.impression, sep="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "phantom.png"))
