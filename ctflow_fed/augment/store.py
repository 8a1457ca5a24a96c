"""SynthStore: a folder of synthetic volumes that knows what it lacks.

    synth.json            the plan and the generator that this folder is for
    plan.json             the requests; with the reports that the user gave
    volumes/ID.nii.gz     a volume
    volumes/ID.json       its sidecar, written after it: without one it does not count
    refused/ID...         the same, of volumes that the quality gate refused
    spent/ID.json         the sidecars of volumes that a stream has taken and removed
    card.md               the data card: what it is, from which model, for which use
    manifest.jsonl        the sidecars in one file, for other tools; never read here
    failed.jsonl          what the last run could not make

The sidecars are the truth. The path of a file is made from a checked id and never read
from a file.
"""

import copy
import json
import os
import re
import secrets
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from ctflow_fed.augment.planning import Plan
from ctflow_fed.augment.record import Origin, SynthHeader, SynthRecord
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.runs import Runs
from ctflow_fed.augment.stamps import Stamp, Stamps
from ctflow_fed.augment.status import StoreStatus
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import MismatchError, SettingsError, StoreError
from ctflow_fed.files import read_json, write_atomically, write_json
from ctflow_fed.locks import awaited

__all__ = ["SynthStore"]

SAMPLE_ID = re.compile(r"[0-9a-f]{32}")
LARGEST_SIDECAR = 2**20  # bytes


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
        self.runs = Runs(self.folder)
        self.stamps = Stamps(self.folder)
        self._part = "volumes"

    def _beside(self, part: str) -> "SynthStore":
        apart = copy.copy(self)
        apart._part = part
        return apart

    @classmethod
    def create(cls, folder: Path, plan: Plan, origin: Origin) -> "SynthStore":
        """Make an empty set for a plan, or open the one that is there.

        Raises ``MismatchError`` when that one is of another plan or generator.
        """
        header = SynthHeader(plan.plan_id, len(plan), origin)
        _write_first(folder / "synth.json", header.to_json())
        store = cls(folder)
        if store.header != header:
            raise MismatchError(
                "the folder holds volumes of another plan, model or settings of the "
                "sampler; choose a new folder, or what made this one"
            )
        if not (folder / "plan.json").exists():
            _write_first(folder / "plan.json", plan.to_json())
        return store

    @cached_property
    def refused(self) -> "SynthStore":
        """The volumes that the quality gate refused, which count for nothing."""
        return self._beside("refused")

    @cached_property
    def spent(self) -> "SynthStore":
        """What is left of the volumes that a stream has removed: their sidecars."""
        return self._beside("spent")

    def stream(
        self, *, keep: int | None = None, patience: float = 600.0
    ) -> Iterator[dict[str, Any]]:
        """Yield items while they are still being drawn; see `stream.stream`."""
        from ctflow_fed.augment.stream import stream  # it reads stores

        return stream(self, keep=keep, patience=patience)

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
            record = SynthRecord.from_json(_read_small(sidecar), self.header.origin)
            if record.sample_id != sample_id or _size_of(image) != record.bytes:
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

    def is_settled(self, sample_id: str) -> bool:
        """Tell whether a volume is there, was refused, or was taken by a stream."""
        spent = self.spent.sidecar(sample_id).exists()
        return spent or sample_id in self or sample_id in self.refused

    def records(self) -> tuple[SynthRecord, ...]:
        """Return what is there, by id; one damaged sidecar raises ``StoreError``."""
        return tuple(map(self.read, self.ids()))

    def missing(self, plan: Plan) -> tuple[SynthRequest, ...]:
        """Return the requests of a plan that are still to be drawn."""
        return self.lacking(plan.requests)

    def lacking(self, requests: Iterable[SynthRequest]) -> tuple[SynthRequest, ...]:
        """Return those of some requests whose volumes are not there, or damaged.

        A sidecar that was found sound is not read again, unless it or its volume has
        changed (`stamps`); `records`, `status` and the manifest read every one. What
        the gate has refused is not lacking, for it would be refused again, nor what a
        stream took.
        """
        sample_id = self.header.origin.sample_id
        there, seen = self.stamps.there(), self.stamps.seen()
        refused, spent = set(self.refused.ids()), set(self.spent.ids())

        def is_lacking(name: str) -> bool:
            stamp = there.get(name)
            if name in spent or (stamp is not None and seen.get(name) == stamp):
                return False
            if name in refused and name in self.refused:
                return False
            return stamp is None or name not in self

        return tuple(each for each in requests if is_lacking(sample_id(each)))

    def report(self, record: SynthRecord) -> str:
        """Return the report of a volume; a given one is empty without plan.json."""
        if record.report is not None:
            return record.report
        return self._given_reports.get(record.sample_id, "")

    def status(self) -> StoreStatus:
        """Count what is there, as it is now."""
        began, runs = self.runs.began(), len(self.runs.live())
        done, size, recent, ids = 0, 0, 0, set()
        positives: Counter[str] = Counter()
        for record in self.sound():
            done, size = done + 1, size + record.bytes
            ids.add(record.sample_id)
            positives.update(record.labels)
            recent += (
                began is not None and _written(self.sidecar(record.sample_id)) >= began
            )
        return StoreStatus(
            planned=self.header.planned,
            done=done,
            damaged=len(self.ids()) - done,
            failed=len(self.runs.failed() - ids),
            refused=sum(1 for _ in self.refused.sound()),
            spent=len(self.spent.ids()),
            bytes=size,
            positives={name: positives[name] for name in FINDINGS},
            runs=runs,
            hourly=recent / max(time.time() - began, 1.0) * 3600 if began else None,
        )

    def sweep(self, requests: Iterable[SynthRequest]) -> None:
        """Remove what a killed run left half written of the volumes of requests."""
        folder = self.folder / "volumes"
        found = {path.name: path for path in folder.glob(".partial-*")}
        ids = {self.header.origin.sample_id(each) for each in requests} if found else ()
        for name, path in found.items():
            if name.removeprefix(".partial-").partition(".")[0] in ids:
                path.unlink(missing_ok=True)

    def write_manifest(self) -> None:
        """Write the sound sidecars into one file, a line each, by id.

        Several runs may do so, one after another; the last lists what all have made.
        """
        there = self.stamps.there()  # before they are read: what changes is read again
        listed: dict[str, Stamp] = {}

        def lines() -> Iterator[Mapping[str, object]]:
            for record in self.sound():
                name = record.sample_id
                if name in there:
                    listed[name] = there[name]
                image = f"volumes/{name}.nii.gz"
                yield {**record.to_json(self.header.origin), "image": image}

        with awaited(self.folder / "manifest.lock"):
            _write_lines(self.stamps.manifest, lines())
            self.stamps.note(listed)

    def _file(self, sample_id: str, suffix: str) -> Path:
        if SAMPLE_ID.fullmatch(sample_id) is None:
            raise StoreError("a sample id must be 32 lower-case hexadecimal digits")
        return self.folder / self._part / f"{sample_id}{suffix}"

    def ids(self) -> list[str]:
        """Return the ids that have a sidecar, in order; other files are not ours."""
        try:
            with os.scandir(self.folder / self._part) as found:
                names = [entry.name for entry in found]
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(".json") for name in names if name[-5:] == ".json")
        return sorted(stem for stem in stems if SAMPLE_ID.fullmatch(stem))

    def sound(self) -> Iterator[SynthRecord]:
        """Yield the records of what is sound, by id."""
        for sample_id in self.ids():
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


def _write_first(path: Path, value: object) -> None:
    """Write JSON unless it is there; of several who try, one does, and wholly."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".partial-{secrets.token_hex(8)}-{path.name}")
    write_json(own, value)
    try:
        path.hardlink_to(own)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def _read_small(path: Path) -> object:
    """Read a sidecar as JSON; what is too large for one raises ``ValueError``."""
    with path.open("rb") as file:
        content = file.read(LARGEST_SIDECAR + 1)
    if len(content) > LARGEST_SIDECAR:
        raise ValueError
    return json.loads(content)


def _size_of(path: Path) -> int:
    """Return the size of a file; a link, to wherever, raises ``ValueError``."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError
    return found.st_size


def _written(path: Path) -> float:
    """Return when a file was written, 0 where it has gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
