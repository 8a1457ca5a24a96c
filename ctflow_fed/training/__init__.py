"""Training of FMvT on a store of latents."""

from ctflow_fed.training.adapters import load_adapter
from ctflow_fed.training.fit import (
    FitResult,
    check_channels,
    check_origin,
    evaluate_loss,
    fit,
)
from ctflow_fed.training.loop import train
from ctflow_fed.training.merge import AdapterSettings
from ctflow_fed.training.provenance import describe
from ctflow_fed.training.settings import TrainSettings

__all__ = [
    "AdapterSettings",
    "FitResult",
    "TrainSettings",
    "check_channels",
    "check_origin",
    "describe",
    "evaluate_loss",
    "fit",
    "load_adapter",
    "train",
]
