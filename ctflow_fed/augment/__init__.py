"""Labelled synthetic CT for a training set: plan it, generate it, extend a datalist.

    from ctflow_fed import augment

    plan = augment.plan(train_items, target={"Bronchiectasis": 500}, seed=0)
    store = augment.generate(plan, model="runs/demo/model", out="synthetic/")
    items = augment.extend(train_items, store)  # for any MONAI dataset

Importing this loads neither torch nor Ray nor MONAI; `SyntheticCTDataset` loads torch
and `RandSyntheticCTd` MONAI when they are first named.
"""

from typing import TYPE_CHECKING, Any

from ctflow_fed.augment.cost import Cost, probe
from ctflow_fed.augment.datalist import extend, mix_weights, write_datalist
from ctflow_fed.augment.export import write_dicom, write_latents
from ctflow_fed.augment.generation import generate
from ctflow_fed.augment.job import Job, PlanSettings
from ctflow_fed.augment.planning import Plan, plan
from ctflow_fed.augment.reading import train_reader
from ctflow_fed.augment.record import Origin, SynthRecord
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.status import StoreStatus
from ctflow_fed.augment.store import SynthStore

if TYPE_CHECKING:
    from ctflow_fed.augment.dataset import SyntheticCTDataset
    from ctflow_fed.augment.transform import RandSyntheticCTd

__all__ = [
    "Cost",
    "GenerateSettings",
    "Job",
    "Origin",
    "Plan",
    "PlanSettings",
    "RandSyntheticCTd",
    "StoreStatus",
    "SynthRecord",
    "SynthRequest",
    "SynthStore",
    "SyntheticCTDataset",
    "extend",
    "generate",
    "mix_weights",
    "plan",
    "probe",
    "train_reader",
    "write_datalist",
    "write_dicom",
    "write_latents",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a class
    if name == "SyntheticCTDataset":
        from ctflow_fed.augment.dataset import SyntheticCTDataset

        return SyntheticCTDataset
    if name == "RandSyntheticCTd":
        from ctflow_fed.augment.transform import RandSyntheticCTd

        return RandSyntheticCTd
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
