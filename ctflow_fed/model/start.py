"""The network that training begins with."""

from pathlib import Path

from ctflow_fed.errors import SettingsError
from ctflow_fed.model.fmvt import FMvT, fresh_network
from ctflow_fed.model.package import ModelPackage, load_package
from ctflow_fed.model.presets import PRESETS

__all__ = ["base_model", "package_folder", "start_network"]


def base_model() -> Path:
    """Return the folder of the model package that is shipped.

    Preset tiny, trained on phantoms of a public population: no patient is in it.
    ``make base-model`` is its recipe.
    """
    return Path(__file__).parent / "base"


def package_folder(name: Path | str) -> Path:
    """Return the folder of a model package; ``base`` is the one that is shipped."""
    return base_model() if str(name) == "base" else Path(name)


def start_network(
    preset: str, init: Path | None, seed: int
) -> tuple[FMvT, ModelPackage | None]:
    """Return the network of the package ``init`` and that package.

    Without one, return fresh weights of the size of ``preset``, a function of ``seed``,
    and no package.
    """
    if init is not None:
        package = load_package(init)
        return package.network, package
    if preset not in PRESETS:
        raise SettingsError(f"preset must be one of {', '.join(PRESETS)}")
    return fresh_network(PRESETS[preset], seed), None
