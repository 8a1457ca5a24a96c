"""Small studies whose only finding is easy to see, and a narrow CT-CLIP."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from ctflow_fed.ct.labels import FINDINGS

SEEN = FINDINGS.index("Consolidation")
SIDE = 24

CTCLIP = Path(__file__).parent / "ctclip_layout.txt"
"""Name and sides of each tensor of a CT-CLIP of 60 x 60 pixels and 32 features."""


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """Make ``count`` items; every second one has a dense block in its air."""
    folder = tmp_path_factory.mktemp("studies")

    def make(name, count, *, synthetic=False):
        rng = np.random.default_rng(sum(map(ord, name)))
        items = []
        for number in range(count):
            present = number % 2
            hu = rng.normal(-800, 60, (SIDE, SIDE, SIDE))
            low = rng.integers(4, 9, size=3)
            block = tuple(slice(start, start + 10) for start in low)
            hu[block] += 800 * present
            path = folder / f"{name}-{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), np.eye(4)), path)
            label = np.zeros(len(FINDINGS), dtype=np.float32)
            label[SEEN] = present
            items.append(
                {
                    "image": str(path),
                    "label": label,
                    "report": "",
                    "synthetic": synthetic,
                    "sample_id": f"{name}-{number}",
                }
            )
        return items

    return make


@pytest.fixture
def ctclip_weights():
    """Return random weights in the published layout, always the same."""
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for line in CTCLIP.read_text().splitlines():
        name, *sides = line.split()
        shape = [int(side) for side in sides]
        weights[name] = torch.randn(shape, generator=generator)
        if name.endswith(("gamma", "_scale")):
            weights[name] += 1
    return weights
