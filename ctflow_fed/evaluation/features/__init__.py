"""Volumes as vectors: extractors of features, and what they gave, kept."""

from ctflow_fed.evaluation.features.cache import FeatureCache, Measured
from ctflow_fed.evaluation.features.ctclip import CTCLIPVolumes, as_published
from ctflow_fed.evaluation.features.ctnet import CTNetVolumes
from ctflow_fed.evaluation.features.embedded import HaarSlices, HaarVolumes
from ctflow_fed.evaluation.features.extractor import (
    PLANES,
    WINDOWS,
    FeatureExtractor,
    isotropic,
    planes,
    windowed,
)
from ctflow_fed.evaluation.features.inception import InceptionSlices
from ctflow_fed.evaluation.features.named import extractor_named
from ctflow_fed.evaluation.features.resnet import ResNetSlices, ResNetVolumes

__all__ = [
    "PLANES",
    "WINDOWS",
    "CTCLIPVolumes",
    "CTNetVolumes",
    "FeatureCache",
    "FeatureExtractor",
    "HaarSlices",
    "HaarVolumes",
    "InceptionSlices",
    "Measured",
    "ResNetSlices",
    "ResNetVolumes",
    "as_published",
    "extractor_named",
    "isotropic",
    "planes",
    "windowed",
]
