"""What a folder holds of a run, found by the files that every part of one has."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from ctflow_fed.augment import SynthStore
from ctflow_fed.ct.account import read_account
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import CTFlowError, StoreError
from ctflow_fed.federation import read_ledger
from ctflow_fed.model.package import read_provenance
from ctflow_fed.report.charts import curve

__all__ = ["Part", "folders_of", "parts_of"]

DEPTH = 4
"""Folders below that of the run that are looked into."""

SKIPPED = {"arrived", "events", "next", "rounds", "shards", "studies", "volumes"}
"""Folders of what a part works with."""

POINTS = 12
"""The points of a curve of training."""


@dataclass(frozen=True)
class Part:
    """One part of a run: its kind, its place below the run, its facts and a curve.

    ``problem`` says in one sentence why it could not be read; it has no facts then.
    """

    kind: str
    place: str
    facts: Sequence[tuple[str, str]] = ()
    chart: str = field(default="", repr=False)
    problem: str = ""


def folders_of(run: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield the folders of a run with the names of their files; links are not followed.

    Raises ``StoreError`` where there is no such folder.
    """
    if not run.is_dir():
        raise StoreError("expected the folder of a run, found none; name one that is")
    for place, names, files in os.walk(run):
        folder = Path(place)
        deep = len(folder.relative_to(run).parts) >= DEPTH
        names[:] = [] if deep else sorted(set(names) - SKIPPED)
        yield folder, set(files)


def parts_of(run: Path) -> list[Part]:
    """Return every part of a run that is not an evaluation, in order of work."""
    found = [
        _read(kind, run, folder)
        for folder, files in folders_of(run)
        for kind, (mark, _) in READERS.items()
        if mark in files
    ]
    order = list(READERS)
    return sorted(found, key=lambda part: order.index(part.kind))


def _read(kind: str, run: Path, folder: Path) -> Part:
    place = str(folder.relative_to(run))
    try:
        facts, chart = READERS[kind][1](folder)
    except CTFlowError as error:
        return Part(kind, place, problem=str(error))
    return Part(kind, place, facts, chart)


Facts = tuple[list[tuple[str, str]], str]


def _intake(folder: Path) -> Facts:
    store = LatentStore.open(folder)
    counts = Counter(each.verdict for each in read_account(folder).values())
    records = store.records
    positives = Counter(
        name for each in records for name, value in each.labels.items() if value
    )
    facts = [("studies", f"{len(records)}")]
    facts += [(f"of them {verdict}", f"{n}") for verdict, n in counts.most_common()]
    if records:
        facts += [
            ("slices, median", f"{median(each.slices for each in records):.0f}"),
            ("mm between slices", f"{median(r.spacing[0] for r in records):.2f}"),
            ("most frequent finding", _most_frequent(positives, len(records))),
        ]
    return facts, ""


def _training(folder: Path) -> Facts:
    losses = _losses(folder / "train.jsonl")
    if not losses:
        return [("steps", "0")], ""
    size = -(-len(losses) // POINTS)
    means = [fmean(losses[at : at + size]) for at in range(0, len(losses), size)]
    facts = [
        ("steps", f"{len(losses)}"),
        ("mean loss at first", f"{means[0]:.4f}"),
        ("at last", f"{means[-1]:.4f}"),
    ]
    return facts, curve(means, x_title=f"steps, in {size}s", y_title="loss in training")


def _losses(path: Path) -> list[float]:
    """Return the losses of train.jsonl; a last line that a kill tore is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        return [float(json.loads(line)["loss"]) for line in lines]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise StoreError(
            "expected lines with a loss in train.jsonl, got others; train again"
        ) from None


def _federation(folder: Path) -> Facts:
    ledger = read_ledger(folder)
    records = ledger.records
    if not records:
        return [("rounds", "0")], ""
    sites = sorted({site for each in records for site in each.slices})
    refused = sum(len(each.refused) for each in records)
    facts = [
        ("rounds", f"{ledger.rounds}"),
        ("sites", ", ".join(sites)),
        ("sent and received", f"{sum(each.bytes for each in records) / 1e6:.1f} MB"),
        ("time", f"{sum(each.seconds for each in records):.0f} s"),
        ("answers refused or missing", f"{refused}"),
    ]
    facts += [
        (f"epsilon spent by {site}", f"{epsilon:.2f}")
        for site, epsilon in sorted(ledger.epsilon.items())
    ]
    losses = [records[0].loss_before, *(each.loss_after for each in records)]
    if any(map(math.isnan, losses)):  # a private job tells none
        return facts, ""
    return facts, curve(losses, x_title="round", y_title="loss of the global model")


def _model(folder: Path) -> Facts:
    known, digest = read_provenance(folder / "provenance.json")
    private = "no promise" if known.epsilon is None else f"epsilon {known.epsilon:.2f}"
    return [
        ("weights", digest[:12]),
        ("began from", known.parent[:12] or "random weights"),
        ("steps", f"{known.steps}"),
        ("rounds and sites", f"{known.rounds}, {known.sites}"),
        ("differential privacy", private),
    ], ""


def _synthetic(folder: Path) -> Facts:
    store = SynthStore(folder)
    status = store.status()
    return [
        ("volumes", f"{status.done} of {status.planned}"),
        ("damaged, failed", f"{status.damaged}, {status.failed}"),
        ("size", f"{status.bytes / 1e6:.1f} MB"),
        ("drawn by", store.header.origin.model[:12]),
        ("most frequent finding", _most_frequent(status.positives, status.done)),
    ], ""


def _most_frequent(positives: dict[str, int], n: int) -> str:
    name, count = max(positives.items(), key=lambda each: each[1], default=("", 0))
    return f"{name}, {count} of {n}" if count else "none"


READERS: dict[str, tuple[str, Callable[[Path], Facts]]] = {
    "intake": ("store.json", _intake),
    "training": ("train.jsonl", _training),
    "federation": ("rounds.jsonl", _federation),
    "model": ("provenance.json", _model),
    "synthetic volumes": ("synth.json", _synthetic),
}
"""Each kind of part, the file that tells it, and what reads its facts and curve."""
