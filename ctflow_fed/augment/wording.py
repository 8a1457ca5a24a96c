"""The reports of planned volumes: composed from findings, never somebody's own."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ctflow_fed.augment.request import PromptSource
from ctflow_fed.ct.labels import FINDINGS, labels_of, mentioned_in
from ctflow_fed.errors import ReportTableError, SettingsError
from ctflow_fed.files import digest_of
from ctflow_fed.seeds import derive_seed

__all__ = ["Wording", "refuse_excluded", "stated_in"]

AGE_BAND = re.compile(r"[1-8]0-[1-8]9|90\+")
PATIENTS = {"F": "Female patient", "M": "Male patient"}

SENTENCE = re.compile(r"(?<=[.!?])\s+|[\n\"]+")
LONGEST_SENTENCE = 400  # characters; what is longer lacks its full stops
SHARED = 2
"""So many reports must say a sentence that states no finding: what one alone says is
about that patient."""

TRIES = 8
PICKS = 20


@dataclass(frozen=True)
class _Sentence:
    """A sentence of a report: which one, where in it, what it states and mentions."""

    text: str
    report: int
    place: float
    states: frozenset[str]
    mentions: frozenset[str]


class Wording:
    """Composes reports that state given findings and no other.

    Without ``reports`` by the grammar of the phantoms. With them from their sentences:
    those that state a finding, each from another report; those that deny the other
    findings, as often as reports do; and those about neither, of which only what at
    least two reports say is used. They stand in the order in which reports say them.
    Where that cannot state what is wanted, the grammar does.

    ``age_band`` and ``sex`` become the first words of every composed report.
    """

    def __init__(
        self,
        reports: Collection[str] = (),
        age_band: str | None = None,
        sex: str | None = None,
    ) -> None:
        self.opening = _opening(age_band, sex)
        self.bank = _Bank.of(reports) if reports else None

    def compose(self, findings: Sequence[str], seed: int) -> tuple[str, PromptSource]:
        """Return a report that states these findings and no other, and its source."""
        drawn = self.bank.compose(frozenset(findings), seed) if self.bank else None
        if drawn is not None:
            return self.opening + drawn, "sentences"
        return self.opening + _by_grammar(findings, seed), "template"


def stated_in(report: str) -> tuple[str, ...]:
    """Return the findings that a report states."""
    labels = labels_of(report)
    return tuple(name for name in FINDINGS if labels[name])


def refuse_excluded(
    reports: Sequence[str], excluded: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse reports that excluded items have too, whatever their case and spaces."""
    kept_out = {_digest(each["report"]) for each in excluded if each.get("report")}
    if reports and excluded and not kept_out:
        raise ReportTableError(
            "expected excluded items with a 'report' to compare with, got none that "
            "has one; add them, or exclude nothing"
        )
    found = sum(_digest(report) in kept_out for report in reports)
    if found:
        raise ReportTableError(
            f"expected no report of an excluded item, got {found}; "
            "take them out, or divide the datalist by report first"
        )


def _digest(report: str) -> str:
    return digest_of(" ".join(str(report).lower().split()))


def _opening(age_band: str | None, sex: str | None) -> str:
    """Return the words on the patient, with a space after them, or nothing."""
    if age_band is not None and AGE_BAND.fullmatch(age_band) is None:
        raise SettingsError(
            "an age band must be a decade such as 60-69, or 90+; choose one of them"
        )
    if sex not in (None, *PATIENTS):
        raise SettingsError("the sex of patients must be F or M; choose one of them")
    if (age_band, sex) == (None, None):
        return ""
    years = f", {age_band} years" if age_band else ""
    return f"{PATIENTS.get(sex or '', 'Patient')}{years}. "


def _by_grammar(findings: Sequence[str], seed: int) -> str:
    from ctflow_fed.ct.phantom import compose  # heavier than the rest of a plan

    return " ".join(compose(dict.fromkeys(findings, 1), seed))  # as the intake joins


@dataclass(frozen=True)
class _Bank:
    """The sentences of reports by what they are good for."""

    digests: frozenset[str] = field(repr=False)
    stating: Mapping[str, list[_Sentence]] = field(repr=False)
    denying: Mapping[str, list[_Sentence]] = field(repr=False)
    denial_rate: Mapping[str, float]
    neutral: list[_Sentence] = field(repr=False)
    neutral_count: float

    @classmethod
    def of(cls, reports: Collection[str]) -> "_Bank":
        """Read sentences from reports, but not those that may tell of a person."""
        reports = list({_digest(each): each for each in reports}.values())
        told = [each for n, text in enumerate(reports) for each in _sentences(text, n)]
        speakers: dict[str, set[int]] = {}
        for each in told:
            speakers.setdefault(each.text.lower(), set()).add(each.report)
        shared = [each for each in told if len(speakers[each.text.lower()]) >= SHARED]
        silent = [each for each in shared if not each.states]
        denying = {n: [e for e in silent if n in e.mentions] for n in FINDINGS}
        neutral = [each for each in silent if not each.mentions]
        stating = {n: [e for e in told if n in e.states] for n in FINDINGS}
        return cls(
            frozenset(map(_digest, reports)),
            stating,
            denying,
            {
                name: len({each.report for each in denying[name]})
                / max(1, len(reports) - len({each.report for each in stating[name]}))
                for name in FINDINGS
            },
            neutral,
            len(neutral) / len(reports),
        )

    def compose(self, findings: frozenset[str], seed: int) -> str | None:
        """Return a report that states these findings, None where that fails."""
        for attempt in range(TRIES):
            rng = np.random.default_rng(derive_seed(seed, "sentences", attempt))
            chosen = self._stating(findings, rng)
            if chosen is None:
                return None
            chosen += self._denying(findings, rng) + self._neutral(rng)
            chosen.sort(key=lambda each: each.place)
            text = " ".join(dict.fromkeys(each.text for each in chosen))
            if set(stated_in(text)) == findings and _digest(text) not in self.digests:
                return text or None
        return None

    def _stating(
        self, findings: frozenset[str], rng: np.random.Generator
    ) -> list[_Sentence] | None:
        """Draw sentences that state all of these findings, each of another report."""
        chosen: list[_Sentence] = []
        lacking = set(findings)
        for name in FINDINGS:
            if name not in lacking:
                continue
            used = {each.report for each in chosen}
            fit = [
                each
                for each in self.stating[name]
                if each.states <= findings and each.report not in used
            ]
            if not fit:
                return None
            chosen.append(fit[rng.integers(len(fit))])
            lacking -= chosen[-1].states
        return chosen

    def _denying(
        self, findings: frozenset[str], rng: np.random.Generator
    ) -> list[_Sentence]:
        """Draw sentences that deny others, as often as reports do."""
        chosen: list[_Sentence] = []
        denied: set[str] = set(findings)
        for name in FINDINGS:
            if name in denied or rng.random() >= self.denial_rate[name]:
                continue
            for _ in range(PICKS):
                each = self.denying[name][rng.integers(len(self.denying[name]))]
                if not each.mentions & denied:
                    chosen.append(each)
                    denied |= each.mentions
                    break
        return chosen

    def _neutral(self, rng: np.random.Generator) -> list[_Sentence]:
        """Draw sentences about neither, as many as reports have in the mean."""
        if not self.neutral:
            return []
        count = rng.poisson(self.neutral_count)
        return [self.neutral[rng.integers(len(self.neutral))] for _ in range(count)]


def _sentences(report: str, number: int) -> list[_Sentence]:
    """Split a report; sentences with a name, a date or a number are left out."""
    parts = [part.strip() for part in SENTENCE.split(report)]
    parts = [part for part in parts if any(map(str.isalpha, part))]
    return [
        _Sentence(_closed(part), number, at / len(parts), *_said(part))
        for at, part in enumerate(parts)
        if len(part) <= LONGEST_SENTENCE and not _tells(part)
    ]


def _closed(sentence: str) -> str:
    """End a sentence, so that nothing it says reaches into the next."""
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


@cache
def _said(sentence: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a sentence states and what it mentions."""
    return frozenset(stated_in(sentence)), frozenset(mentioned_in(sentence))


@cache
def _tells(sentence: str) -> bool:
    """Whether a sentence holds what may tell who the patient is."""
    from ctflow_fed.ct.privacy.scrub import scrub

    return bool(scrub(sentence).removed)
