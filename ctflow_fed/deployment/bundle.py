"""Where the two programs of a federation lie, `server` and `client`."""

from pathlib import Path

__all__ = ["programs_folder"]


def programs_folder() -> Path:
    """Return the folder of an installed wheel that has them, or the checkout."""
    here = Path(__file__).resolve()
    bundled = here.parent / "programs"
    return bundled if bundled.is_dir() else here.parents[2]
