"""The whole trial of usefulness: five arms of equal budget, and what they come to.

Beside the gain over real studies alone stand those over copies of them and over strong
classic augmentation: what a researcher could do without any generator. Every finding
is compared by DeLong's test with Holm's correction, and every group of patients that a
table names is asked whether it loses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.arms import EVERY_ARM, arms_of
from ctflow_fed.evaluation.classifier import RESNET, Classifier
from ctflow_fed.evaluation.features import FeatureCache
from ctflow_fed.evaluation.figure import Evaluation, Figure, Verdict, not_measured
from ctflow_fed.evaluation.results import UtilitySettings
from ctflow_fed.evaluation.scores import (
    Draws,
    Interval,
    Scores,
    Truth,
    areas,
    draw_patients,
    interval,
    resampled_auroc,
)
from ctflow_fed.evaluation.significance import delong, holm
from ctflow_fed.evaluation.trial import (
    Fits,
    Fitter,
    fit_elsewhere,
    jobs_of,
    refuse_leaks,
    score_arms,
)
from ctflow_fed.evaluation.volumes import Item, labels_of_items
from ctflow_fed.files import digest_of, sha256_of
from ctflow_fed.processes import Pool

__all__ = ["Trial", "calibration_error", "measure_usefulness", "trial_figures"]

ADDED = "synthetic_added"
USEFUL_ALONE = 0.9
LOSS, LOWEST_LOSS = -0.02, -0.05
"""What a finding or a group may lose, and how low the interval of a finding may reach.
"""

BINS = 15
LEAST_OF_GROUP = 5
Z = 1.959964

Resampled = Mapping[str, Float64[np.ndarray, " draws"]]


@dataclass(frozen=True, eq=False)
class Trial:
    """What the classifiers of each arm said of the test, and the truth.

    ``groups`` holds for each group of patients which test studies are theirs.
    """

    scores: Mapping[str, Scores]
    truth: Truth
    findings: Sequence[str]
    patients: Sequence[str]
    groups: Mapping[str, Bool[np.ndarray, " studies"]]
    settings: UtilitySettings

    def draws(self, studies: Bool[np.ndarray, " studies"] | None = None) -> Draws:
        """Return the resampled worlds of the test, or of some of its studies."""
        chosen = np.ones(len(self.truth), bool) if studies is None else studies
        return draw_patients(
            [name for name, own in zip(self.patients, chosen, strict=True) if own],
            repeats=self.settings.repeats,
            draws=self.settings.draws,
            seed=self.settings.seed,
        )


def measure_usefulness(
    real: Sequence[Item],
    synthetic: Sequence[Item],
    test: Sequence[Item],
    *,
    groups: Mapping[str, Bool[np.ndarray, " studies"]],
    cache: Path,
    settings: UtilitySettings,
    classifier: Classifier = RESNET,
    elsewhere: Pool | None = None,
) -> Evaluation:
    """Train five arms, equally long, and test them on ``test``.

    ``classifier`` may be one's own. Fits stay in ``cache``, so the same call goes on.
    They may be made ``elsewhere``, by workers that see the same folders. Raises as
    `measure_utility`.
    """
    if not (real and synthetic and test):
        raise SettingsError(
            "the utility test needs real, synthetic and test studies, got "
            f"{len(real)}, {len(synthetic)} and {len(test)}"
        )
    items = [*real, *synthetic]
    refuse_leaks(items, test)
    labels = labels_of_items(items)
    identity = [sha256_of(Path(item["image"])) for item in (*items, *test)]
    fits = Fits(
        FeatureCache(cache.absolute()),
        digest_of([identity, labels.tolist(), settings.shape]),
        classifier,
    )
    arms = arms_of(labels, len(real), seed=settings.seed)
    make_fitter = partial(Fitter.of, arms, items, len(real), test, settings, fits)
    if elsewhere is not None:
        fit_elsewhere(elsewhere, make_fitter, jobs_of(arms, settings))
    fitter = make_fitter()
    trial = Trial(
        scores=score_arms(fitter),
        truth=fitter.test.truth,
        findings=[FINDINGS[place] for place in fitter.test.scored],
        patients=[str(item.get("patient", item["sample_id"])) for item in test],
        groups=groups,
        settings=settings,
    )
    made = {
        "real": len(real),
        "synthetic": len(synthetic),
        "test": len(test),
        "classifier": classifier.name,
        "settings": asdict(settings),
    }
    return Evaluation("utility", trial_figures(trial), made)


def trial_figures(trial: Trial) -> list[Figure]:
    """Return what a trial comes to: arms, gains, findings, calibration, groups."""
    draws = trial.draws()
    resampled = {
        name: resampled_auroc(scores, trial.truth, draws)
        for name, scores in trial.scores.items()
    }
    return [
        *_gains(trial, resampled),
        _alone(trial, resampled),
        *_arms(trial, resampled),
        *_findings(trial),
        *_calibration(trial, draws),
        *_groups(trial),
    ]


def calibration_error(
    scores: Float64[np.ndarray, " answers"],
    truth: Bool[np.ndarray, " answers"],
    weights: Float64[np.ndarray, " answers"],
) -> float:
    """Return the expected calibration error over 15 bins of equal width."""
    bins = np.clip(np.ceil(scores * BINS) - 1, 0, BINS - 1).astype(int)
    off = np.bincount(bins, weights * (scores - truth), BINS)
    return float(np.abs(off).sum() / weights.sum())


def _macro(trial: Trial, arm: str) -> float:
    return float(areas(trial.scores[arm], trial.truth)[0].mean())


def _gains(trial: Trial, resampled: Resampled) -> Iterator[Figure]:
    for reference in ("duplicated", "augmented", "real"):
        gain = interval(
            _macro(trial, ADDED) - _macro(trial, reference),
            resampled[ADDED] - resampled[reference],
        )
        yield _figure(
            trial,
            "gain",
            f"over {reference}",
            gain,
            "the lower bound is above 0",
            gain.low > 0,
            f"macro AUROC of {ADDED} less that of {reference}, paired bootstrap over "
            f"test patients and {trial.settings.repeats} trainings",
        )


def _alone(trial: Trial, resampled: Resampled) -> Figure:
    convention = f"{USEFUL_ALONE} or more"
    alone, real = _macro(trial, "synthetic"), _macro(trial, "real")
    if real <= 0.5:
        reason = "a classifier that was trained on the real studies tells nothing"
        return not_measured("tstr_ratio", "", convention, reason)
    # Of a few studies a draw may be told all wrong.
    drawn = resampled["synthetic"] / np.maximum(resampled["real"], 1e-6)
    ratio = interval(alone / real, drawn)
    return _figure(
        trial,
        "tstr_ratio",
        "",
        ratio,
        convention,
        ratio.value >= USEFUL_ALONE,
        "macro AUROC of a classifier trained on synthetic volumes alone over that of "
        "one trained on the real ones",
    )


def _arms(trial: Trial, resampled: Resampled) -> Iterator[Figure]:
    for arm in EVERY_ARM:
        value = interval(_macro(trial, arm), resampled[arm])
        precision = areas(trial.scores[arm], trial.truth)[1].mean()
        yield _figure(
            trial,
            "macro_auroc",
            arm,
            value,
            "the whole interval is above 0.5, a coin",
            value.low > 0.5,
            f"mean over {len(trial.findings)} findings; macro AUPRC {precision:.3f}",
        )


def _findings(trial: Trial) -> Iterator[Figure]:
    """Compare the means over the trainings, finding by finding, with the copies."""
    added, copies = (trial.scores[arm].mean(axis=0) for arm in (ADDED, "duplicated"))
    found = [
        delong(added[:, place], copies[:, place], trial.truth[:, place])
        for place in range(len(trial.findings))
    ]
    adjusted = holm([each.p for each in found])
    for name, each, p in zip(trial.findings, found, adjusted, strict=True):
        half = Z * each.error
        value = Interval(each.value, each.value - half, each.value + half)
        yield _figure(
            trial,
            "finding_gain",
            name,
            value,
            f"not below {LOSS}, and its interval not below {LOWEST_LOSS}",
            value.value >= LOSS and value.low >= LOWEST_LOSS,
            f"AUROC of {ADDED} less that of duplicated, means over trainings, DeLong; "
            f"p {p:.3g} after Holm over {len(found)} findings",
        )


def _calibration(trial: Trial, draws: Draws) -> Iterator[Figure]:
    truth = trial.truth.ravel()
    once = np.ones(trial.truth.shape)

    def error(arm: str, weights: Float64[np.ndarray, "studies findings"]) -> float:
        return float(
            np.mean(
                [
                    calibration_error(table.ravel(), truth, weights.ravel())
                    for table in trial.scores[arm]
                ]
            )
        )

    some = [row[:, None] * once for row in draws.weights[:200]]
    floor = interval(error("real", once), np.array([error("real", w) for w in some]))
    value = interval(error(ADDED, once), np.array([error(ADDED, w) for w in some]))
    yield _figure(
        trial,
        "calibration_error",
        ADDED,
        value,
        f"not above that of real by more than {-LOSS}",
        value.value <= floor.value - LOSS,
        f"expected calibration error, {BINS} bins, all findings; floor: the arm real",
        floor=floor,
    )


def _groups(trial: Trial) -> Iterator[Figure]:
    convention = f"no group loses more than {-LOSS} against real"
    if not trial.groups:
        yield not_measured(
            "group_gain", "", convention, "no table says who belongs to which group"
        )
    for name, own in trial.groups.items():
        truth = trial.truth[own]
        present = truth.sum(axis=0)
        enough = np.minimum(present, len(truth) - present) >= LEAST_OF_GROUP
        if not enough.any():
            reason = f"no finding has {LEAST_OF_GROUP} cases and as many others"
            yield not_measured("group_gain", name, convention, reason)
            continue
        scores = {
            arm: trial.scores[arm][:, own][:, :, enough] for arm in (ADDED, "real")
        }
        draws = trial.draws(own)
        drawn = [resampled_auroc(scores[a], truth[:, enough], draws) for a in scores]
        macro = [areas(scores[a], truth[:, enough])[0].mean() for a in scores]
        gain = interval(float(macro[0] - macro[1]), drawn[0] - drawn[1])
        yield _figure(
            trial,
            "group_gain",
            name,
            gain,
            convention,
            gain.value >= LOSS,
            f"macro AUROC over {int(enough.sum())} findings in {len(truth)} studies of "
            "the group",
        )


def _figure(
    trial: Trial,
    name: str,
    part: str,
    value: Interval,
    convention: str,
    passes: bool,
    method: str,
    floor: Interval | None = None,
) -> Figure:
    verdict: Verdict = "pass" if passes else "fail"
    return Figure(
        name=name,
        part=part,
        n=len(trial.truth),
        value=value,
        convention=convention,
        verdict=verdict,
        method=method,
        floor=floor,
    )
