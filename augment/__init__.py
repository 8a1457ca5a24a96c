"""The program that fills a folder with synthetic volumes.

It is the same door as `ctflow_fed.augment`: what that exports is here too.
"""

from ctflow_fed.augment import (
    Cost,
    GenerateSettings,
    Job,
    Origin,
    Plan,
    PlanSettings,
    StoreStatus,
    SynthRecord,
    SynthRequest,
    SynthStore,
    extend,
    generate,
    plan,
    probe,
)

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
