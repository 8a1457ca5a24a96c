"""The network that training begins with."""

from pathlib import Path

from ctflow_fed.errors import SettingsError
from ctflow_fed.model.fmvt import FMvT, fresh_network
from ctflow_fed.model.package import load_package
from ctflow_fed.model.presets import PRESETS

__all__ = ["base_model", "start_network"]


def base_model() -> Path:
    """Return the folder of the model package that is shipped.

    Preset tiny, trained on phantoms of a public population: no patient is in it.
    ``make base-model`` is its recipe.
    """
    return Path(__file__).parent / "base"


def start_network(preset: str, init: Path | None, seed: int) -> tuple[FMvT, str]:
    """Return a network and the digest of its parent: a package, or fresh weights.

    Fresh weights have the size of ``preset``, are a function of ``seed`` and have the
    parent ``""``.
    """
    if init is not None:
        package = load_package(init)
        return package.network, package.digest
    if preset not in PRESETS:
        raise SettingsError(f"preset must be one of {', '.join(PRESETS)}")
    return fresh_network(PRESETS[preset], seed), ""
