"""FMvT, its sizes, the released weights and our model packages."""

from ctflow_fed.model.conditions import Conditions, FrameConditions
from ctflow_fed.model.device import default_device
from ctflow_fed.model.fmvt import FMvT, fresh_network
from ctflow_fed.model.package import (
    ModelPackage,
    Provenance,
    load_package,
    save_package,
)
from ctflow_fed.model.presets import PRESETS, FMvTConfig
from ctflow_fed.model.published import import_published, load_published
from ctflow_fed.model.start import base_model, package_folder, start_network

__all__ = [
    "PRESETS",
    "Conditions",
    "FMvT",
    "FMvTConfig",
    "FrameConditions",
    "ModelPackage",
    "Provenance",
    "base_model",
    "default_device",
    "fresh_network",
    "import_published",
    "load_package",
    "load_published",
    "package_folder",
    "save_package",
    "start_network",
]
