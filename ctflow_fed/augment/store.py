"""SynthStore: a folder of synthetic volumes that knows what it lacks.

    synth.json            the plan and the generator that this folder is for
    plan.json             the requests; with the reports that the user gave
    volumes/ID.nii.gz     a volume
    volumes/ID.json       its sidecar, written after it: without one it does not count
    manifest.jsonl        the sidecars in one file, for other tools; never read here
    failed.jsonl          what the last run could not make

The sidecars are the truth. The path of a file is made from a checked id and never read
from a file.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ctflow_fed.augment.planning import Plan
from ctflow_fed.augment.record import Origin, SynthHeader, SynthRecord
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.files import read_json, write_atomically, write_json

__all__ = ["StoreStatus", "SynthStore"]

SAMPLE_ID = re.compile(r"[0-9a-f]{32}")
LARGEST_SIDECAR = 2**20  # bytes


@dataclass(frozen=True)
class StoreStatus:
    """How far a set is: ``done`` of ``planned`` volumes, and what is wrong with it.

    ``damaged`` volumes have a sidecar that does not fit them; ``failed`` are those that
    the last run could not make and that are still missing; ``positives`` counts what
    is done by finding.
    """

    planned: int
    done: int
    damaged: int
    failed: int
    bytes: int
    positives: dict[str, int]


class SynthStore:
    """The synthetic volumes of one plan, drawn by one generator.

    ``SynthStore(folder)`` opens one; anything else in that place raises ``StoreError``.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            value = read_json(self.folder / "synth.json")
        except (OSError, ValueError, RecursionError):
            raise StoreError(
                "expected a set of synthetic volumes, found no readable synth.json; "
                "make one with: ctflow augment run"
            ) from None
        self.header = SynthHeader.from_json(value)

    @classmethod
    def create(cls, folder: Path, plan: Plan, origin: Origin) -> "SynthStore":
        """Make an empty set for a plan, or open the one that is there.

        Raises ``MismatchError`` when that one is of another plan or generator.
        """
        header = SynthHeader(plan.plan_id, len(plan), origin)
        if not (folder / "synth.json").exists():
            plan.save(folder / "plan.json")
            write_json(folder / "synth.json", header.to_json())
        store = cls(folder)
        if store.header != header:
            raise MismatchError(
                "the folder holds volumes of another plan, model or settings of the "
                "sampler; choose a new folder, or what made this one"
            )
        return store

    def image(self, sample_id: str) -> Path:
        """Return where the volume of an id is, or will be."""
        return self._file(sample_id, ".nii.gz")

    def sidecar(self, sample_id: str) -> Path:
        """Return where the sidecar of an id is, or will be."""
        return self._file(sample_id, ".json")

    def read(self, sample_id: str) -> SynthRecord:
        """Return the record of a volume.

        Raises ``StoreError`` when it is missing, when its sidecar is damaged, or when
        the volume is not of the size that the sidecar names.
        """
        image, sidecar = self.image(sample_id), self.sidecar(sample_id)
        try:
            if image.is_symlink() or sidecar.stat().st_size > LARGEST_SIDECAR:
                raise ValueError
            record = SynthRecord.from_json(read_json(sidecar), self.header.origin)
            if record.sample_id != sample_id or image.stat().st_size != record.bytes:
                raise ValueError
        except (OSError, ValueError, RecursionError):
            raise StoreError(
                "a synthetic volume is missing or does not fit its sidecar; "
                "the command that made the set makes it again"
            ) from None
        return record

    def __contains__(self, sample_id: str) -> bool:
        try:
            self.read(sample_id)
        except StoreError:
            return False
        return True

    def records(self) -> tuple[SynthRecord, ...]:
        """Return what is there, by id; one damaged sidecar raises ``StoreError``."""
        return tuple(map(self.read, self._ids()))

    def missing(self, plan: Plan) -> tuple[SynthRequest, ...]:
        """Return the requests of a plan that are still to be drawn."""
        sample_id = self.header.origin.sample_id
        return tuple(each for each in plan.requests if sample_id(each) not in self)

    def report(self, record: SynthRecord) -> str:
        """Return the report of a volume; a given one is empty without plan.json."""
        if record.report is not None:
            return record.report
        return self._given_reports.get(record.sample_id, "")

    def status(self) -> StoreStatus:
        """Count what is there, as it is now."""
        sound = list(self._sound())
        done = {record.sample_id for record in sound}
        return StoreStatus(
            planned=self.header.planned,
            done=len(sound),
            damaged=sum(1 for _ in self._ids()) - len(sound),
            failed=len(_ids_in(self.folder / "failed.jsonl") - done),
            bytes=sum(record.bytes for record in sound),
            positives={
                name: sum(record.labels[name] for record in sound) for name in FINDINGS
            },
        )

    def sweep(self) -> None:
        """Remove what a killed run left half written."""
        for partial in self.folder.rglob(".partial-*"):
            partial.unlink(missing_ok=True)

    def write_manifest(self) -> None:
        """Write the sound sidecars into one file, a line each, by id."""
        lines = (
            {
                **record.to_json(self.header.origin),
                "image": f"volumes/{record.sample_id}.nii.gz",
            }
            for record in self._sound()
        )
        _write_lines(self.folder / "manifest.jsonl", lines)

    def write_failures(self, reasons: Mapping[str, str]) -> None:
        """Write down which volumes could not be made and why; no report is in it."""
        lines = [
            {"sample_id": each, "error": reasons[each]} for each in sorted(reasons)
        ]
        _write_lines(self.folder / "failed.jsonl", lines)

    def _file(self, sample_id: str, suffix: str) -> Path:
        if SAMPLE_ID.fullmatch(sample_id) is None:
            raise StoreError("a sample id must be 32 lower-case hexadecimal digits")
        return self.folder / "volumes" / f"{sample_id}{suffix}"

    def _ids(self) -> Iterator[str]:
        """Yield the ids that have a sidecar, in order; other files are not ours."""
        found = (path.stem for path in sorted((self.folder / "volumes").glob("*.json")))
        return (stem for stem in found if SAMPLE_ID.fullmatch(stem))

    def _sound(self) -> Iterator[SynthRecord]:
        """Yield the records of what is sound, by id."""
        for sample_id in self._ids():
            with suppress(StoreError):
                yield self.read(sample_id)

    @cached_property
    def _given_reports(self) -> dict[str, str]:
        """The reports in plan.json, by sample id."""
        try:
            plan = Plan.load(self.folder / "plan.json")
        except SettingsError:
            return {}
        sample_id = self.header.origin.sample_id
        return {sample_id(each): each.report for each in plan.requests}


def _write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write a file of JSON lines without holding them all."""

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)

    write_atomically(path, write)


def _ids_in(path: Path) -> set[str]:
    """Return the sample ids that a file of JSON lines names."""
    if not path.is_file():
        return set()
    text = path.read_text(encoding="utf-8", errors="replace")
    return set(re.findall(r'"sample_id": "([0-9a-f]{32})"', text))
