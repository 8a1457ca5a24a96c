"""The data card of a set of synthetic volumes: what is handed on with it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ctflow_fed.augment.record import Origin, SynthRecord
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.files import write_text
from ctflow_fed.locks import awaited

__all__ = ["write_card"]


def write_card(store: SynthStore) -> None:
    """Write ``card.md`` of a set as it is now."""
    kept, refused = _Counts(), Counter[str]()
    with awaited(store.folder / "manifest.lock"):  # several shards may end at once
        kept.add(store.sound())
        refused.update(each.refusal.partition(",")[0] for each in store.refused.sound())
        write_text(store.folder / "card.md", _card(store, kept, refused))


@dataclass
class _Counts:
    """What is counted of a set, in one pass over its sidecars."""

    volumes: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[bool] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)

    def add(self, records: Iterable[SynthRecord]) -> None:
        """Count records."""
        for record in records:
            self.volumes += 1
            self.findings.update(record.labels)
            self.sources[record.report_source] += 1
            self.verdicts[bool(record.candidates)] += 1
            shape = " x ".join(map(str, record.shape))
            spacing = " x ".join(f"{length:.2f}" for length in record.spacing)
            self.shapes[f"of {shape} voxels of {spacing} mm"] += 1


def _card(store: SynthStore, kept: _Counts, refused: Counter[str]) -> str:
    origin = store.header.origin
    found = [(name, kept.findings[name]) for name in FINDINGS if kept.findings[name]]
    return f"""# Data card

{kept.volumes} synthetic chest CTs of {store.header.planned} planned, each with its
report, 18 labels and provenance. **Not for diagnostic use.** No patient was scanned.

| | |
|---|---|
| plan | `{store.header.plan_id}` |
| model, weights (SHA-256) | `{origin.model}` |
| trained in | {origin.rounds} federated rounds at {origin.sites} sites |
| privacy of its patients | {_promise(origin)} |
| codec, report encoder | `{origin.codec_id[:16]}`, `{origin.encoder_id[:16]}` |
| sampler and gate | {_settings(origin)} |
| reports | {_listed(kept.sources)} |
| size | {_listed(kept.shapes)} |
| quality gate | {_gate(kept, refused)} |

{_table(("finding", "volumes that were asked to show it"), found)}
**For**: adding to real training data, teaching, testing software. Train beside real
data, and test on real data alone: compare with as many copies of real volumes
(`ctflow evaluate`) before you claim that a set helps.

**Limits**: labels say what was asked for, not what a radiologist saw. A set that was
made for a finding shows it more often than patients do: do not read prevalence from it.
Every volume is of one generator; a network may learn to tell it from a scanner.
Whether volumes repeat scans of the training data has to be audited before they are
given away. A report that was given, not composed, is in `plan.json` alone: remove that
file first, if the report is a patient's. Of licences, that of the model's training data
and those of codec and report encoder come before any of yours.
"""


def _promise(origin: Origin) -> str:
    if origin.epsilon is None:
        return "none was promised"
    return f"epsilon {origin.epsilon:.2f} at delta {origin.delta:g}, each patient"


def _settings(origin: Origin) -> str:
    return ", ".join(f"{name} {value}" for name, value in origin.sampling.items())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common(5)) or "-"


def _gate(kept: _Counts, refused: Counter[str]) -> str:
    told = f"{kept.verdicts[True]} passed, {kept.verdicts[False]} not checked"
    if not refused:
        return f"{told}, none refused"
    return f"{told}, {refused.total()} refused and kept apart ({_listed(refused)})"


def _table(head: tuple[str, str], rows: list[tuple[str, int]]) -> str:
    lines = [" | ".join(head), "---|---", *(f"{name} | {n}" for name, n in rows)]
    return "".join(f"| {line} |\n" for line in lines)
