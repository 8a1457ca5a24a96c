"""What synthetic CT is worth, with its uncertainty and against a fair control."""

from ctflow_fed.evaluation.arms import ARMS, arms_of
from ctflow_fed.evaluation.codec import measure_codec
from ctflow_fed.evaluation.features import FeatureExtractor
from ctflow_fed.evaluation.fidelity import FidelitySettings, measure_fidelity
from ctflow_fed.evaluation.figure import Evaluation, Figure, Verdict
from ctflow_fed.evaluation.measuring import Lens
from ctflow_fed.evaluation.results import (
    ArmResult,
    Comparison,
    FindingScore,
    UtilityResult,
    UtilitySettings,
)
from ctflow_fed.evaluation.scans import Scan, scans_of
from ctflow_fed.evaluation.scores import Interval
from ctflow_fed.evaluation.utility import measure_utility
from ctflow_fed.evaluation.volumes import Item

__all__ = [
    "ARMS",
    "ArmResult",
    "Comparison",
    "Evaluation",
    "FeatureExtractor",
    "FidelitySettings",
    "Figure",
    "FindingScore",
    "Interval",
    "Item",
    "Lens",
    "Scan",
    "UtilityResult",
    "UtilitySettings",
    "Verdict",
    "arms_of",
    "measure_codec",
    "measure_fidelity",
    "measure_utility",
    "scans_of",
]
