"""A browser that looks at a page, and a chest that it can be seen to show."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctflow_fed.ct.volume import CTVolume

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def chest(shift=0):
    """Two lungs in a body, 40 slices of 48 x 48 pixels, for a viewer to show."""
    z, y, x = np.ogrid[:40, :48, :48]
    hu = np.full((40, 48, 48), -1000, np.int16)
    hu[np.broadcast_to(((x - 24) / 21) ** 2 + ((y - 24) / 15) ** 2 < 1, hu.shape)] = 40
    lung = ((abs(x - 24) - 9) / 7) ** 2 + ((y - 24) / 10) ** 2 + ((z - 20) / 16) ** 2
    hu[lung < 1] = -850 + shift
    return CTVolume(hu, np.diag([6.0, -6.0, 6.0, 1.0])[:, [2, 1, 0, 3]])


def screenshot(page: Path) -> np.ndarray:
    """Open a page and return what is seen of it, as grey values."""
    picture = page.with_suffix(".png")
    subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--window-size=1200,1900"),
            *("--virtual-time-budget=30000", f"--screenshot={picture}"),
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return np.asarray(Image.open(picture).convert("L"), dtype=int)


def viewer_rows(grey: np.ndarray) -> slice:
    """Return the rows of a picture in which a viewer is, by its black ground."""
    rows = np.flatnonzero((grey < 8).mean(1) > 0.2)
    return slice(rows.min(), rows.max())


def shows_a_chest(grey: np.ndarray) -> bool:
    """Tell whether there is a white body with grey lungs, as in the lung window."""
    lungs = (grey > 80) & (grey < 95)
    return (grey > 220).sum() > 3000 and lungs.sum() > 2000
