"""A whole job in one TOML file: what to draw, with which model, to where, on what."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ctflow_fed.augment.datalist import read_datalist
from ctflow_fed.augment.generation import generate
from ctflow_fed.augment.planning import Plan, plan
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.ct.table_files import TABLE_ENDINGS
from ctflow_fed.errors import ReportTableError, SettingsError

__all__ = ["Job", "PlanSettings"]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """The arguments of `plan`, with files in place of items and reports.

    ``datalist`` and ``exclude`` are JSON files: a list of items, or an object with such
    lists, as MONAI's decathlon datalists are, of which ``training`` is planned from and
    ``validation`` and ``test`` are excluded. ``reports`` is a table as the intake takes
    it, or a text file with one a line.
    """

    target: dict[str, int] = field(default_factory=dict)
    datalist: Path | None = None
    ratio: float | None = None
    reports: Path | None = None
    exclude: Path | None = None
    sentences: str = "phantom"
    age_band: str | None = None
    sex: str | None = None
    seed: int = 0
    slices: int = 64
    slice_mm: float | None = None

    def make(self) -> Plan:
        """Read the files and make the plan."""
        return plan(
            None if self.datalist is None else read_datalist(self.datalist),
            target=self.target,
            ratio=self.ratio,
            reports=[] if self.reports is None else _read_texts(self.reports),
            exclude=[]
            if self.exclude is None
            else read_datalist(self.exclude, ("validation", "test")),
            sentences=self.sentences,
            age_band=self.age_band,
            sex=self.sex,
            seed=self.seed,
            slices=self.slices,
            slice_mm=self.slice_mm,
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a TOML file of a job says; see `from_toml`."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    model: Path | str | None = None
    out: Path | None = None
    workers: int = 1
    address: str | None = None
    settings: GenerateSettings = field(default_factory=GenerateSettings)

    @classmethod
    def from_toml(cls, path: Path) -> "Job":
        """Read a job; every path in it is relative to its file.

        The table ``[plan]`` has the fields of `PlanSettings`; ``[generate]`` those of
        this class and of `GenerateSettings`. Any other name, and any value of another
        kind, raises ``SettingsError``.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise SettingsError(
                "expected a job as TOML, got a file that cannot be read as one; "
                "see augment/README.md for one that can"
            ) from None
        known = {"plan": _PLAN, "generate": {**_RUN, **_SETTINGS}}
        _refuse_others(tables, known, "a job", "tables")
        for name, table in tables.items():
            _check(table, known[name], name)
        planned = _resolved(tables.get("plan", {}), _PLAN, path.parent)
        run = _resolved(tables.get("generate", {}), {**_RUN, **_SETTINGS}, path.parent)
        chosen = {name: run.pop(name) for name in _SETTINGS if name in run}
        settings = GenerateSettings(**chosen)
        return cls(plan=PlanSettings(**planned), settings=settings, **run)

    def choosing(self, **chosen: Any) -> "Job":  # noqa: ANN401  # of any field
        """Return the job with some fields of its ``[generate]`` chosen anew."""
        settings = {name: chosen[name] for name in chosen if name in _SETTINGS}
        run = {name: chosen[name] for name in chosen if name in _RUN}
        return replace(self, settings=replace(self.settings, **settings), **run)

    def draw(self, made: Plan, shard: str | None = None) -> SynthStore:
        """Draw a plan, or a shard of it, as this job says."""
        if self.model is None or self.out is None:
            raise SettingsError(
                "expected a model and a folder to draw into; name them with --model "
                "and --out, or under [generate] of the job"
            )
        return generate(
            made,
            model=self.model,
            out=self.out,
            workers=self.workers,
            address=self.address,
            shard=shard,
            settings=self.settings,
        )


_Kinds = Mapping[str, Any]

_PLAN: _Kinds = {each.name: each.type for each in fields(PlanSettings)}
_PLAN = {**_PLAN, "target": dict}
_RUN: _Kinds = {
    each.name: each.type
    for each in fields(Job)
    if each.name not in ("plan", "settings")
}
_SETTINGS: _Kinds = {each.name: each.type for each in fields(GenerateSettings)}


def _check(table: object, kinds: _Kinds, where: str) -> None:
    """Refuse a table with other names, or with values of another kind."""
    if not isinstance(table, dict):
        raise SettingsError(f"expected [{where}] to be a table; write it in brackets")
    _refuse_others(table, kinds, f"[{where}]", "names")
    for name, value in table.items():
        kind = kinds[name]
        if not _fits(value, kind):
            raise SettingsError(
                f"{name} of [{where}] has a value of another kind; "
                "see augment/README.md for what it may be"
            )
    if not all(type(count) is int for count in table.get("target", {}).values()):
        raise SettingsError("a target must be FINDING = COUNT, with a whole number")


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401  # a type, or a union
    """Whether a value of TOML is of a field's kind; a path is text there."""
    kinds = getattr(kind, "__args__", (kind,))
    if Path in kinds:
        kinds = (*kinds, str)
    if float in kinds:
        kinds = (*kinds, int)
    return type(value) in kinds


def _refuse_others(
    found: Mapping[str, object], known: _Kinds, where: str, what: str
) -> None:
    if not set(found) <= set(known):
        raise SettingsError(
            f"{where} may have the {what} {', '.join(known)}, got another; "
            "remove it, or mend its spelling"
        )


def _resolved(table: Mapping[str, Any], kinds: _Kinds, folder: Path) -> dict[str, Any]:
    """Return a table with its paths relative to the folder of the job."""

    def resolved(name: str, value: Any) -> Any:  # noqa: ANN401  # of TOML
        if Path in getattr(kinds[name], "__args__", ()) and value != "base":
            return folder / value
        if name in ("codec", "encoder") and value not in ("haar", "hashing"):
            kind, colon, place = value.rpartition(":")  # as in class:FOLDER
            return f"{kind}{colon}{folder / place}"
        return value

    return {name: resolved(name, value) for name, value in table.items()}


def _read_texts(path: Path) -> list[str]:
    """Read a table of reports, or a text file with a report a line."""
    if path.suffix.lower() in TABLE_ENDINGS:
        from ctflow_fed.ct.report_table import read_reports  # it loads torch

        reports = read_reports(path).values()
        for report in reports:
            if report.problem:
                raise ReportTableError(
                    f"every row of the table must be fit to be drawn, but of one "
                    f"{report.problem}; remove or complete it"
                )
        return [report.text for report in reports]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ReportTableError(
            "the reports must be a readable table or text file in UTF-8"
        ) from None
    return [line.strip() for line in lines if line.strip()]
