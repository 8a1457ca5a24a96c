"""What the server carries from round to round beside the model, in one file.

The model package of a round holds the weights that are evaluated and kept. All else of
the server's state lies beside it in a safetensors file, as KIND/NAME: the moments of a
strategy, what rounding has left, and the weights themselves where the model is their
moving average or is merged from them. With none of these there is no file.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ctflow_fed.errors import PackageError
from ctflow_fed.federation.payload import Arrays, arrays_digest
from ctflow_fed.federation.strategies import ServerState

__all__ = ["beside", "beside_digest", "read_beside", "save_beside"]

WEIGHTS, AVERAGE, RESIDUAL = "weights", "average", "residual"


def beside(state: ServerState, *, merged: bool) -> Arrays:
    """Return what a model package does not hold; ``merged`` if it holds no array."""
    kinds: dict[str, Arrays] = {**state.moments, RESIDUAL: state.residual}
    if merged:
        kinds |= {WEIGHTS: state.weights, AVERAGE: state.average}
    elif state.average:
        kinds[WEIGHTS] = state.weights
    return {
        f"{kind}/{name}": value
        for kind, arrays in kinds.items()
        for name, value in arrays.items()
    }


def save_beside(path: Path, arrays: Arrays) -> None:
    """Write what `beside` gave, if there is anything."""
    if arrays:
        save_file(dict(arrays), path)


def beside_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of what `beside` gave, empty if nothing."""
    return arrays_digest(arrays) if arrays else ""


def read_beside(path: Path, model: Arrays, digest: str) -> ServerState:
    """Return the state whose model is ``model``; exact to the last bit.

    ``model`` is empty where the package holds no array of it. Raises ``PackageError``
    when the file is not the one of this ``digest``.
    """
    if not digest:
        return ServerState(model)
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError):
        arrays = {}
    if not arrays or arrays_digest(arrays) != digest:
        raise PackageError(
            f"{path.name} of the last round is not the one that rounds.jsonl names; "
            "restore the job's folder or begin in a new one"
        )
    kinds = _by_kind(arrays)
    weights, residual = kinds.pop(WEIGHTS, {}), kinds.pop(RESIDUAL, {})
    average = kinds.pop(AVERAGE, {})
    if model and weights:
        average = dict(model)
    return ServerState(weights or model, kinds, average, residual)


def _by_kind(arrays: Arrays) -> dict[str, dict[str, NDArray[np.float32]]]:
    kinds: dict[str, dict[str, NDArray[np.float32]]] = {}
    for key, value in arrays.items():
        kind, _, name = key.partition("/")
        kinds.setdefault(kind, {})[name] = value
    return kinds
