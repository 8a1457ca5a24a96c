"""The quality account of an intake: what came in, on one page and as JSON."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np

from ctflow_fed import __version__
from ctflow_fed.ct.account import StudyAccount, read_account
from ctflow_fed.ct.codec import SliceCodec, codec_named
from ctflow_fed.ct.codec_error import TISSUES
from ctflow_fed.ct.demographics import AGE_BANDS, SEXES
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.errors import MismatchError
from ctflow_fed.files import write_json, write_text
from ctflow_fed.report.charts import histogram
from ctflow_fed.report.figures import LUNG, MEDIASTINUM, View, picture
from ctflow_fed.report.rendering import render

__all__ = ["Histogram", "QualityAccount", "quality_of", "write_quality"]

PICTURES = 24
"""The studies that are shown."""

MEASURED = 200
"""The studies whose HU are counted, one slice in eight."""

HU_EDGES = tuple(range(-1000, 1001, 50))
BINS = 24


@dataclass(frozen=True)
class Histogram:
    """How much lies between neighbouring edges."""

    edges: tuple[float, ...]
    heights: tuple[float, ...]


@dataclass(frozen=True)
class QualityAccount:
    """What came in: verdicts and reasons, spacing, slices, HU, labels, codec error.

    ``age_bands`` and ``sexes`` count studies, under "" those of unknown patients;
    ``codec`` has the mean over studies of each measure, and the worst; ``scrubbed``
    counts what was taken out of reports by kind. ``views`` are for the site's own eyes
    and are not in the JSON.
    """

    studies: tuple[StudyAccount, ...]
    labels: Mapping[str, int]
    age_bands: Mapping[str, int]
    sexes: Mapping[str, int]
    slices: Histogram
    slice_mm: Histogram
    pixel_mm: Histogram
    hu: Histogram
    codec: Mapping[str, Mapping[str, float]]
    scrubbed: Mapping[str, int]
    views: tuple[View, ...] = field(default=(), repr=False)

    @property
    def verdicts(self) -> Counter[str]:
        """How many studies were taken, corrected and refused."""
        return Counter(study.verdict for study in self.studies)

    @property
    def reasons(self) -> list[tuple[str, str, int]]:
        """Each verdict with a reason, and its count, most frequent first."""
        given = Counter((s.verdict, s.reason) for s in self.studies if s.reason)
        return [(*key, count) for key, count in given.most_common()]

    def as_json(self) -> dict[str, object]:
        """Return all but the pictures."""
        values = {**asdict(self), "verdicts": dict(self.verdicts)}
        del values["views"]
        return values


def quality_of(store_folder: Path, codec: str = "haar") -> QualityAccount:
    """Gather the account of a store; HU and pictures are decoded from its latents.

    Raises ``StoreError`` for a folder that is no store, and ``MismatchError`` when its
    latents are of another codec.
    """
    store, coder = LatentStore.open(store_folder), codec_named(codec)
    if store.header.codec_id != coder.codec_id:
        raise MismatchError(
            "the store was made with another codec; name the one that made it"
        )
    studies = tuple(read_account(store_folder).values())
    records = store.records
    return QualityAccount(
        studies=studies,
        labels=_labels(records),
        age_bands=_counts([each.age_band for each in records], AGE_BANDS),
        sexes=_counts([each.sex for each in records], SEXES),
        slices=_histogram([record.slices for record in records]),
        slice_mm=_histogram([record.spacing[0] for record in records]),
        pixel_mm=_histogram(_pixels(studies)),
        hu=_hu_histogram(store, coder, records[:MEASURED]),
        codec=dict(_codec(studies)),
        scrubbed=_scrubbed(studies),
        views=tuple(_views(store, coder, records[:PICTURES])),
    )


def write_quality(path: Path, account: QualityAccount) -> None:
    """Write the page of an account, and the same as JSON beside it."""
    write_json(path.with_suffix(".json"), account.as_json())
    page = render(
        "quality.html.j2",
        filters={"percent": lambda share: f"{100 * share:.0f} %", "fixed": _fixed},
        charts={
            "slices": _chart(account.slices, "slices of a study"),
            "slice_mm": _chart(account.slice_mm, "distance of slices, mm"),
            "pixel_mm": _chart(account.pixel_mm, "distance of columns, mm"),
            "hu": _chart(account.hu, "HU, share of the voxels in per cent"),
        },
        account=account,
        taken=sum(not study.refused for study in account.studies),
        version=__version__,
    )
    write_text(path, page)


def _fixed(value: float, digits: int) -> str:
    """Write a number with so many decimals, without the sign of a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _chart(values: Histogram, title: str) -> str:
    if len(values.edges) < 2:
        return ""
    return histogram(values.edges, values.heights, x_title=title)


def _labels(records: Sequence[StudyRecord]) -> dict[str, int]:
    return {
        name: sum(each.labels.get(name, 0) for each in records) for name in FINDINGS
    }


def _pixels(studies: Sequence[StudyAccount]) -> list[float]:
    """Return the distance of columns of each study taken, as it was scanned."""
    taken = (study.numbers for study in studies if not study.refused)
    return [numbers["column_mm"] for numbers in taken if "column_mm" in numbers]


def _counts(values: Sequence[str], order: Sequence[str]) -> dict[str, int]:
    counts = Counter(values)
    return {value: counts[value] for value in (*order, "") if counts[value]}


def _histogram(values: Sequence[float]) -> Histogram:
    if not values:
        return Histogram((), ())
    heights, edges = np.histogram(values, bins=min(BINS, 4 + len(set(values))))
    return Histogram(tuple(map(float, edges)), tuple(map(float, heights)))


def _hu_histogram(
    store: LatentStore, codec: SliceCodec, records: Sequence[StudyRecord]
) -> Histogram:
    """Return the share of voxels in steps of 50 HU, in per cent."""
    counts = np.zeros(len(HU_EDGES) - 1)
    for record in records:
        for place in range(0, record.slices, 8):
            latents = store.slices(record.study_id, place, place + 1)
            hu = codec.decode(latents).numpy().clip(HU_EDGES[0], HU_EDGES[-1])
            counts += np.histogram(hu, bins=HU_EDGES)[0]
    shares = 100 * counts / max(1, counts.sum())
    return Histogram(tuple(map(float, HU_EDGES)), tuple(shares.round(3).tolist()))


def _codec(studies: Sequence[StudyAccount]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each measure of the codec with its mean and its worst value."""
    for name in ("psnr", "ssim", *(f"bias_{tissue}" for tissue in TISSUES)):
        measured = [each.numbers.get(f"codec_{name}") for each in studies]
        values = [value for value in measured if value is not None]
        if values:
            worst = max(values, key=abs) if name.startswith("bias") else min(values)
            yield (
                name,
                {
                    "mean": round(fmean(values), 4),
                    "median": round(median(values), 4),
                    "worst": worst,
                },
            )


def _scrubbed(studies: Sequence[StudyAccount]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for study in studies:
        for name, count in study.numbers.items():
            if name.startswith("scrubbed_"):
                counts[name.removeprefix("scrubbed_")] += int(count)
    return dict(counts.most_common())


def _views(
    store: LatentStore, codec: SliceCodec, records: Sequence[StudyRecord]
) -> Iterator[View]:
    """Yield the middle slice of each study in both windows."""
    for record in records:
        middle = record.slices // 2
        plane = codec.decode(store.slices(record.study_id, middle, middle + 1))[0]
        aspect = record.spacing[1] / record.spacing[2]
        for window in (LUNG, MEDIASTINUM):
            caption = f"{record.study_id[:8]}, slice {middle + 1} of {record.slices}"
            yield View(caption, picture(plane.numpy(), window, aspect))
