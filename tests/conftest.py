"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real CT and reference networks that lies beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("real CT is not here: no folder `shared` beside the checkout")
    return SHARED
