"""A run that never was, with numbers that are easy to follow."""

from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.evaluation import (
    ArmResult,
    Comparison,
    FindingScore,
    Interval,
    UtilityResult,
    UtilitySettings,
)
from ctflow_fed.report import (
    Pair,
    Picture,
    RoundAccount,
    RunAccount,
    SiteAccount,
    StageAccount,
    SynthAccount,
)

SCORED = FINDINGS[:3]
TRAINED = {"real": 611, "duplicated": 622, "synthetic_added": 633}


def volume(shade):
    affine = np.diag([2.0, -2.0, 8.0, 1.0])[:, [2, 1, 0, 3]]
    affine[0, 2] = -2.0
    return CTVolume(np.full((8, 16, 16), shade, dtype=np.int16), affine)


def utility_with(over_real, over_copies, *, real=0.7):
    """The result of a test with these two differences (value, low, high)."""
    gain = over_real[0]
    values = {
        "real": real,
        "duplicated": real + gain - over_copies[0],
        "synthetic_added": real + gain,
    }
    arms = tuple(
        ArmResult(
            name=name,
            items=24 if name == "real" else 72,
            synthetic=48 if name == "synthetic_added" else 0,
            auroc=Interval(value, value - 0.1, value + 0.1),
            auprc=0.4,
            auroc_of_repeats=(value,),
            findings=tuple(
                FindingScore(each, TRAINED[name], value, 0.4) for each in SCORED
            ),
        )
        for name, value in values.items()
    )
    return UtilityResult(
        arms=arms,
        comparisons=(
            Comparison("synthetic_added", "real", Interval(*over_real)),
            Comparison("synthetic_added", "duplicated", Interval(*over_copies)),
        ),
        tested=60,
        cases=dict.fromkeys(SCORED, 12),
        unscored=FINDINGS[3:],
        settings=UtilitySettings(),
    )


@pytest.fixture
def utility_of():
    """What makes the result of a test from its two differences."""
    return utility_with


@pytest.fixture
def account():
    """The account of a run with two rounds and one pair of pictures."""
    shares = dict.fromkeys(FINDINGS, 0.25)
    site = SiteAccount(
        name="north",
        role="federation",
        scanner="North 64",
        studies=24,
        refused=1,
        prevalence=shares,
    )
    return RunAccount(
        command="ctflow demo --out runs/demo --seed 3",
        version="0.1.0",
        seed=3,
        cores=2,
        sites=(
            site,
            replace(site, name="coast"),
            replace(site, name="own", role="researcher"),
            replace(site, name="plain", role="test"),
        ),
        rounds=tuple(
            RoundAccount(
                number=number,
                loss_before=before,
                loss_after=after,
                seconds=30.0,
                megabytes=20.0,
            )
            for number, before, after in ((1, 0.9, 0.5), (2, 0.5, 0.4))
        ),
        steps=20,
        synthetic=SynthAccount(
            volumes=48,
            prevalence=shares,
            slices=32,
            image_size=64,
            parameters=2_700_000,
            digest="ab" * 32,
            parent="",
        ),
        pairs=(
            Pair(
                finding=FINDINGS[12],
                real=Picture(
                    volume=volume(-600),
                    findings=(FINDINGS[12],),
                    report="Effusion on the left.\nPleural effusion.",
                ),
                synthetic=Picture(
                    volume=volume(-500),
                    findings=(FINDINGS[12],),
                    report="No <b>nodule</b> & more.\nLarge effusion.",
                ),
            ),
        ),
        utility=utility_with((0.02, -0.03, 0.07), (0.01, -0.04, 0.06)),
        stages=(
            StageAccount(title="Hospitals write", seconds=20.0),
            StageAccount(title="Training", seconds=100.0),
        ),
        seconds=120.0,
        peak_rss_mb=3210.0,
        resumed=False,
    )
