"""The program that fills a folder with synthetic volumes.

It is the same door as `ctflow_fed.augment`: what that exports is here too.
"""

from ctflow_fed.augment import (
    GenerateSettings,
    Origin,
    Plan,
    StoreStatus,
    SynthRecord,
    SynthRequest,
    SynthStore,
    extend,
    generate,
    plan,
)

__all__ = [
    "GenerateSettings",
    "Origin",
    "Plan",
    "StoreStatus",
    "SynthRecord",
    "SynthRequest",
    "SynthStore",
    "extend",
    "generate",
    "plan",
]
