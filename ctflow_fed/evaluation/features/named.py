"""The extractors by their names on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.features.ctclip import CTCLIPVolumes
from ctflow_fed.evaluation.features.ctnet import CTNetVolumes
from ctflow_fed.evaluation.features.embedded import HaarSlices, HaarVolumes
from ctflow_fed.evaluation.features.extractor import FeatureExtractor
from ctflow_fed.evaluation.features.inception import InceptionSlices
from ctflow_fed.evaluation.features.resnet import ResNetSlices, ResNetVolumes

__all__ = ["extractor_named"]

KINDS: dict[int, dict[str, Callable[[Path], FeatureExtractor]]] = {
    2: {
        "radimagenet": lambda weights: ResNetSlices(weights, "radimagenet"),
        "imagenet": lambda weights: ResNetSlices(weights, "imagenet"),
        "inception": InceptionSlices,
    },
    3: {"medicalnet": ResNetVolumes, "ctnet": CTNetVolumes, "ctclip": CTCLIPVolumes},
}
"""Those with weights of the user, by the axes of their images."""


def extractor_named(name: str, axes: Literal[2, 3]) -> FeatureExtractor:
    """Return the extractor of slices or of volumes that has a name.

    It is ``haar``, the embedded one, or a kind and a file of weights:
    ``radimagenet:FILE``, ``imagenet:FILE`` and ``inception:FILE`` for slices,
    ``medicalnet:FILE``, ``ctnet:FILE`` and ``ctclip:FILE`` for volumes. Raises
    ``SettingsError`` for any other.
    """
    if name == "haar":
        return HaarSlices() if axes == 2 else HaarVolumes()
    kind, _, file = name.partition(":")
    if kind in KINDS[axes] and file:
        return KINDS[axes][kind](Path(file))
    kinds = " or ".join(f"{each}:FILE" for each in KINDS[axes])
    raise SettingsError(f"expected the extractor haar, or {kinds}, got another name")
