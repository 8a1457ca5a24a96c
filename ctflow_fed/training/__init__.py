"""Training of FMvT on a store of latents."""

from ctflow_fed.training.adapters import load_adapter
from ctflow_fed.training.audit import audited_epsilon
from ctflow_fed.training.fit import (
    FitResult,
    check_channels,
    check_origin,
    evaluate_loss,
    fit,
)
from ctflow_fed.training.loop import train
from ctflow_fed.training.merge import AdapterSettings
from ctflow_fed.training.privacy_ledger import (
    NoisySteps,
    PrivacyLedger,
    epsilon_of,
    spent_in,
)
from ctflow_fed.training.private import PrivateFit, fit_privately
from ctflow_fed.training.provenance import describe
from ctflow_fed.training.settings import PrivacySettings, TrainSettings

__all__ = [
    "AdapterSettings",
    "FitResult",
    "NoisySteps",
    "PrivacyLedger",
    "PrivacySettings",
    "PrivateFit",
    "TrainSettings",
    "audited_epsilon",
    "check_channels",
    "check_origin",
    "describe",
    "epsilon_of",
    "evaluate_loss",
    "fit",
    "fit_privately",
    "load_adapter",
    "spent_in",
    "train",
]
