"""What every test may ask for."""

from pathlib import Path

import pytest
import torch

from ctflow_fed.ct.codec import HaarCodec, edges_of
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore, StoreHeader

torch.set_num_threads(1)  # networks this small lose more by sharing than they gain

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real CT and reference networks that lies beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("real CT is not here: no folder `shared` beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def haar_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three small studies: a bright ball on a dark ground, 20 to 40 slices.

    Made by the real codec and the real report encoder at 32 x 32 pixels.
    """
    folder = tmp_path_factory.mktemp("site")
    codec, encoder = HaarCodec(), HashingReportEncoder()
    header = StoreHeader(codec.codec_id, encoder.encoder_id, 16, 8, 8)
    edges = edges_of(codec, 32)
    store = LatentStore.create(folder, header, edges, codec.channel_weights)
    for index, slices in enumerate((20, 32, 40)):
        report = encoder.encode([f"A ball of {index + 1} cm. No other finding."])
        store.put(
            f"study-{index}",
            codec.encode(_ball(slices, radius=6 + 2 * index)),
            report.tokens[0],
            spacing=(5.0, 8.0, 8.0),
            labels={"Lung nodule": index % 2},
        )
    return folder


def _ball(slices: int, radius: float) -> torch.Tensor:
    """Return HU: 0 within ``radius`` voxels of the middle, -900 outside."""
    axes = [torch.arange(n) - (n - 1) / 2 for n in (slices, 32, 32)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.where(z**2 + y**2 + x**2 < radius**2, 0.0, -900.0)
