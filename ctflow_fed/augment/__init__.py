"""Labelled synthetic CT for a training set: plan it, generate it, extend a datalist.

    from ctflow_fed import augment

    plan = augment.plan(train_items, target={"Bronchiectasis": 500}, seed=0)
    store = augment.generate(plan, model="runs/demo/model", out="synthetic/")
    items = augment.extend(train_items, store)  # for any MONAI dataset

Importing this loads neither torch nor Ray nor MONAI.
"""

from ctflow_fed.augment.cost import Cost, probe
from ctflow_fed.augment.datalist import extend
from ctflow_fed.augment.generation import generate
from ctflow_fed.augment.job import Job, PlanSettings
from ctflow_fed.augment.planning import Plan, plan
from ctflow_fed.augment.record import Origin, SynthRecord
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.store import StoreStatus, SynthStore

__all__ = [
    "Cost",
    "GenerateSettings",
    "Job",
    "Origin",
    "Plan",
    "PlanSettings",
    "StoreStatus",
    "SynthRecord",
    "SynthRequest",
    "SynthStore",
    "extend",
    "generate",
    "plan",
    "probe",
]
