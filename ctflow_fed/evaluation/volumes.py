"""Items of a MONAI dataset -> the tensors that a classifier is trained on."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MissingExtraError, SettingsError

__all__ = ["HU_WINDOW", "Item", "Labels", "Volumes", "labels_of_items", "load_volumes"]

Item = Mapping[str, Any]
"""``image`` (path of a NIfTI file), ``label`` (18 numbers, the order of `FINDINGS`),
``report``, ``synthetic``, ``sample_id`` and, if a patient has several, ``patient``."""

Volumes = Float[Tensor, "studies 1 x y z"]
"""Volumes in -1..1; axes left -> right, posterior -> anterior, inferior -> superior."""

Labels = Bool[np.ndarray, "studies findings"]
"""Which findings each study has."""

HU_WINDOW = (-1000.0, 1000.0)
"""What becomes -1..1; anything beyond is clipped."""


def load_volumes(items: Sequence[Item], shape: tuple[int, int, int]) -> Volumes:
    """Read the images with MONAI: RAS order, HU window to -1..1, ``shape`` voxels."""
    try:
        from monai.transforms.compose import Compose
        from monai.transforms.intensity.dictionary import ScaleIntensityRanged
        from monai.transforms.io.dictionary import LoadImaged
        from monai.transforms.spatial.dictionary import Orientationd, Resized
        from monai.transforms.utility.dictionary import EnsureChannelFirstd
    except ImportError as error:
        raise MissingExtraError("monai", "evaluation") from error
    low, high = HU_WINDOW
    with _without_advice_on_readers():
        load = LoadImaged("image")
    read = Compose(
        [
            load,
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            ScaleIntensityRanged("image", low, high, -1.0, 1.0, clip=True),
            Resized("image", spatial_size=shape, mode="trilinear"),
        ]
    )
    images = [read({"image": str(item["image"])})["image"] for item in items]
    return torch.stack([image.as_tensor().float() for image in images])


@contextmanager
def _without_advice_on_readers() -> Iterator[None]:
    """Keep MONAI from advising a DICOM decoder where only NIfTI is read."""
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            yield
    finally:
        logger.setLevel(level)


def labels_of_items(items: Sequence[Item]) -> Labels:
    """Return the labels of ``items``; an item without 18 of them is refused."""
    rows = [np.asarray(item["label"], dtype=float).reshape(-1) for item in items]
    if any(row.shape != (len(FINDINGS),) for row in rows):
        raise SettingsError(
            f"the label of an item must hold {len(FINDINGS)} numbers, one a finding; "
            "make items with ctflow_fed.augment.extend"
        )
    return np.stack(rows) > 0.5
