"""What the server carries from round to round beside the model, in one file.

The model package of a round holds the weights that are evaluated and kept. The moments
of a strategy, and the weights themselves where the model is their moving average, lie
beside it in a safetensors file; with neither there is no file.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ctflow_fed.errors import PackageError
from ctflow_fed.federation.payload import Arrays, arrays_digest
from ctflow_fed.federation.strategies import ServerState

__all__ = ["beside_digest", "read_beside", "save_beside"]

WEIGHTS = "weights"


def save_beside(path: Path, state: ServerState) -> None:
    """Write what the model package does not hold, if there is anything."""
    arrays = _flat(state)
    if arrays:
        save_file(dict(arrays), path)


def beside_digest(state: ServerState) -> str:
    """Return the SHA-256 of what the model package does not hold, or nothing."""
    arrays = _flat(state)
    return arrays_digest(arrays) if arrays else ""


def read_beside(path: Path, model: Arrays, digest: str) -> ServerState:
    """Return the state whose model is ``model``; exact to the last bit.

    Raises ``PackageError`` when the file is not the one of this ``digest``.
    """
    if not digest:
        return ServerState(model, {}, {})
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError):
        arrays = {}
    if not arrays or arrays_digest(arrays) != digest:
        raise PackageError(
            f"{path.name} of the last round is not the one that rounds.jsonl names; "
            "restore the job's folder or begin in a new one"
        )
    kinds: dict[str, dict[str, NDArray[np.float32]]] = {}
    for key, value in arrays.items():
        kind, _, name = key.partition("/")
        kinds.setdefault(kind, {})[name] = value
    weights = kinds.pop(WEIGHTS, None)
    if weights is None:
        return ServerState(model, kinds, {})
    return ServerState(weights, kinds, model)


def _flat(state: ServerState) -> Arrays:
    """Return the arrays that the model package does not hold, as KIND/NAME."""
    kinds: Mapping[str, Arrays] = {
        **state.moments,
        **({WEIGHTS: state.weights} if state.average else {}),
    }
    return {
        f"{kind}/{name}": value
        for kind, arrays in kinds.items()
        for name, value in arrays.items()
    }
