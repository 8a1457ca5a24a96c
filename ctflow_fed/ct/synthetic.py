"""What a file says of itself, where it shows no patient."""

import json
from pathlib import Path

from ctflow_fed.ct.nifti import SUFFIXES, description_of

__all__ = ["is_marked_synthetic"]

LARGEST_SIDECAR = 2**20  # bytes


def is_marked_synthetic(path: Path) -> bool:
    """Tell whether a volume says that it is synthetic, wholly or in part.

    A NIfTI file does so by a ``descrip`` that begins with that word, any volume by a
    JSON file of its name beside it with ``"synthetic": true``. What cannot be read says
    nothing.
    """
    name = path.name.lower()
    if name.endswith(SUFFIXES) and description_of(path).lower().startswith("synthetic"):
        return True
    return _is_marked_beside(path)


def _is_marked_beside(path: Path) -> bool:
    sidecar = path.with_name(Path(path.name.removesuffix(".gz")).stem + ".json")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
            return False
        value = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("synthetic") is True
