"""FMvT, its sizes, the released weights and our model packages."""

from ctflow_fed.model.device import default_device
from ctflow_fed.model.fmvt import FMvT, fresh_network
from ctflow_fed.model.package import (
    ModelPackage,
    Provenance,
    load_package,
    save_package,
)
from ctflow_fed.model.presets import PRESETS, FMvTConfig
from ctflow_fed.model.published import load_published
from ctflow_fed.model.start import base_model, package_folder, start_network

__all__ = [
    "PRESETS",
    "FMvT",
    "FMvTConfig",
    "ModelPackage",
    "Provenance",
    "base_model",
    "default_device",
    "fresh_network",
    "load_package",
    "load_published",
    "package_folder",
    "save_package",
    "start_network",
]
