"""Which volumes are to be drawn, decided before anything is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctflow_fed.augment.balance import Findings, Patients, checked_target
from ctflow_fed.augment.cost import Cost
from ctflow_fed.augment.request import PromptSource, SynthRequest
from ctflow_fed.augment.wording import Wording, refuse_excluded, stated_in
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.files import digest_of, read_json, write_json
from ctflow_fed.seeds import derive_seed

__all__ = ["Plan", "plan"]

FORMAT = "ctflow-fed plan 1"
SOURCES: dict[PromptSource, str] = {
    "template": "composed from labels",
    "sentences": "composed from sentences of real reports",
    "given": "given",
}
LARGEST_RATIO = 1000


@dataclass(frozen=True)
class Plan:
    """The volumes to be drawn, each once."""

    requests: tuple[SynthRequest, ...]

    def __post_init__(self) -> None:
        if not self.requests:
            raise SettingsError("a plan must hold at least one request, got none")
        if len({each.request_id for each in self.requests}) < len(self.requests):
            raise SettingsError("the requests of a plan must differ, got one twice")

    def __len__(self) -> int:
        return len(self.requests)

    @cached_property
    def plan_id(self) -> str:
        """32 hexadecimal digits that name this plan and no other."""
        return digest_of([each.request_id for each in self.requests])[:32]

    def positives(self) -> dict[str, int]:
        """Return how many volumes are asked to show each finding."""
        counts = Counter(name for each in self.requests for name in each.findings)
        return {name: counts[name] for name in FINDINGS}

    def describe(self, cost: Cost | None = None) -> str:
        """Return what will be drawn, in a few lines for people.

        With the `Cost` of a volume (`probe`) also the time and the disk that it takes.
        """
        slices = sorted({each.slices for each in self.requests})
        span = f"{slices[0]}" if len(slices) == 1 else f"{slices[0]} to {slices[-1]}"
        by_source = Counter(each.source for each in self.requests)
        sources = [
            f"{by_source[source]} {told}"
            for source, told in SOURCES.items()
            if by_source[source]
        ]
        found = {name: count for name, count in self.positives().items() if count}
        normal = sum(not each.findings for each in self.requests)
        return "\n".join(
            [
                f"plan {self.plan_id}",
                f"{len(self)} synthetic volumes of {span} slices",
                f"reports: {', '.join(sources)}",
                *(f"  {name:<36}{count:>7}" for name, count in found.items()),
                *([f"  {'no finding':<36}{normal:>7}"] if normal else []),
                *([cost.told(self.slices)] if cost else []),
            ]
        )

    @property
    def slices(self) -> int:
        """The slices of all volumes together."""
        return sum(each.slices for each in self.requests)

    def save(self, path: Path) -> None:
        """Write the plan as JSON. Given reports are in it: treat it like them."""
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return what the file of a plan holds."""
        requests = [each.to_json() for each in self.requests]
        return {"format": FORMAT, "requests": requests}

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan; a file that is none raises ``SettingsError``."""
        try:
            value = read_json(path)
        except (OSError, ValueError, RecursionError):
            raise SettingsError(
                "expected a plan, found no readable JSON file; "
                "make one with: ctflow augment plan"
            ) from None
        if (
            not isinstance(value, dict)
            or value.get("format") != FORMAT
            or not isinstance(value.get("requests"), list)
        ):
            raise SettingsError(
                f"expected a file of the format '{FORMAT}'; "
                "make one with: ctflow augment plan"
            )
        return cls(tuple(map(SynthRequest.from_json, value["requests"])))


def plan(  # noqa: PLR0913  # what a plan can say, each by its name
    train_items: Sequence[Mapping[str, Any]] | None = None,
    *,
    target: Mapping[str, int] | None = None,
    ratio: float | None = None,
    reports: Sequence[str] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
    sentences: str = "phantom",
    age_band: str | None = None,
    sex: str | None = None,
    seed: int = 0,
    slices: int = 64,
    slice_mm: float | None = None,
) -> Plan:
    """Decide which volumes to draw; the same arguments make the same plan.

    ``target`` says how many synthetic volumes shall show each finding: exactly so many
    do. Which other findings they show is drawn from how often these occur together in
    the labels of ``train_items`` (none where there are no items). ``reports`` are drawn
    as they are, one volume each, and labelled by what they state.

    ``ratio`` fills the plan up to so many times the number of ``train_items``, if the
    rest does not ask for more: each of these volumes begins with what real and
    synthetic volumes together show least often, a finding or none at all, so that the
    imbalance of the datalist falls. Findings that no item shows are left out of them,
    and those of the target.

    Reports are composed from the labels: by the grammar of the phantoms, or from single
    ``sentences`` of the ``"items"``' own reports, never a whole one. With ``age_band``
    (60-69, say, or 90+) and ``sex`` they begin with words on the patient, which a model
    follows if it was trained on reports with such words. Nothing but labels, and the
    reports if so chosen, is read from the items. A report that one of the ``exclude``
    items has too, those of a test set say, is refused with ``ReportTableError``.
    """
    patients = Patients(train_items)
    own = _own_reports(sentences, train_items or ())
    refuse_excluded([*reports, *own], exclude)
    wording = Wording(own, age_band, sex)
    given = [stated_in(text) for text in reports]
    wanted = checked_target(target)
    sets = list(patients.wanted(wanted, seed))
    left = _filled(ratio, patients) - len(sets) - len(given)
    sets += list(patients.evening(left, [*sets, *given], wanted, seed))
    prompts: list[tuple[str, PromptSource, Findings]] = [
        (*wording.compose(found, derive_seed(seed, "report", number)), found)
        for number, found in enumerate(sets)
    ]
    prompts += [(t, "given", found) for t, found in zip(reports, given, strict=True)]
    requests = (
        SynthRequest(
            report=text,
            findings=findings,
            seed=derive_seed(seed, "volume", number),
            slices=slices,
            slice_mm=slice_mm,
            source=source,
        )
        for number, (text, source, findings) in enumerate(prompts)
    )
    return Plan(tuple(requests))


def _own_reports(sentences: str, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the reports whose sentences are used; of the items one must have one."""
    if sentences not in ("phantom", "items"):
        raise SettingsError("sentences must be phantom or items; choose one of them")
    if sentences == "phantom":
        return []
    own = [str(each["report"]) for each in items if each.get("report")]
    if not own:
        raise ReportTableError(
            "sentences of the items were asked for, but no item has a 'report'; "
            "add them, or take those of the phantoms"
        )
    return own


def _filled(ratio: float | None, patients: Patients) -> int:
    """Return how many volumes a plan has at least."""
    if ratio is None:
        return 0
    if not len(patients):
        raise ReportTableError(
            "a ratio is of the real items, and none are given; add the datalist"
        )
    if not 0 < ratio <= LARGEST_RATIO:
        raise SettingsError(
            f"a ratio must lie above 0 and be {LARGEST_RATIO} at most; "
            "leave it out to draw the target alone"
        )
    return max(1, round(ratio * len(patients)))
