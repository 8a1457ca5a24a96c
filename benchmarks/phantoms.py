"""Public phantoms as stores of latents: what the benchmarks train and test on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ctflow_fed.ct.codec import HaarCodec, edges_of
from ctflow_fed.ct.phantom import PUBLIC, PhantomStudy, compose, draw, draw_findings
from ctflow_fed.ct.report import HashingReportEncoder, ReportEncoder, ReportTokens
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.files import digest_of
from ctflow_fed.seeds import derive_seed

IMAGE_SIZE = 64
CODEC = HaarCodec()


@dataclass(frozen=True)
class Patient:
    """One patient of the public population and the number of slices of the scan."""

    seed: int
    slices: int

    @property
    def name(self) -> str:
        """The id of the study in a store."""
        return f"public-{self.slices}-{self.seed:x}"

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings of the patient."""
        return draw_findings(self.seed, PUBLIC)

    @property
    def report(self) -> str:
        """Findings and impression."""
        return " ".join(compose(dict.fromkeys(self.findings, 1), self.seed))

    def scan(self) -> PhantomStudy:
        """Draw the scan; it covers the whole chest."""
        scanner = PUBLIC.scanner.resized(self.slices, IMAGE_SIZE)
        population = replace(PUBLIC, scanner=scanner)
        return draw(self.seed, draw_findings(self.seed, population), scanner=scanner)


def patients(counts: Mapping[int, int], seed: int) -> Iterator[Patient]:
    """Yield patients, as many of each number of slices as ``counts`` says."""
    for slices, count in counts.items():
        for number in range(count):
            yield Patient(derive_seed("base", seed, slices, number), slices)


class OneTokenEncoder:
    """A report as one token of length one, as CTFlow has it: the sum of its sentences.

    CTFlow takes the class token of CT-CLIP's text encoder; this is what comes nearest
    to it without pretrained weights.
    """

    def __init__(self) -> None:
        self._sentences = HashingReportEncoder()
        self.encoder_id = digest_of(["one token", self._sentences.encoder_id])

    def encode(self, texts: Sequence[str]) -> ReportTokens:
        """Encode reports; see `ctflow_fed.ct.report.ReportEncoder`."""
        sentences = self._sentences.encode(texts)
        summed = sentences.tokens.sum(1, keepdim=True)
        mask = torch.ones(len(texts), 1, dtype=torch.bool)
        return ReportTokens(torch.nn.functional.normalize(summed, dim=-1), mask)


def public_store(folder: Path, counts: Mapping[int, int], seed: int) -> LatentStore:
    """Take drawn phantoms into a store; those that are in it stay."""
    store = _empty(folder, HashingReportEncoder())
    wanted = list(patients(counts, seed))
    for patient in tqdm(wanted, desc=folder.name, disable=None):
        if patient.name in store:
            continue
        study = patient.scan()
        store.put(
            patient.name,
            CODEC.encode(torch.from_numpy(study.volume.hu).float()),
            HashingReportEncoder().encode([patient.report]).tokens[0],
            spacing=study.volume.spacing,
            labels=study.labels,
        )
    return store


def one_token_store(
    folder: Path, source: LatentStore, counts: Mapping[int, int], seed: int
) -> LatentStore:
    """Copy a store of phantoms with CTFlow's reports: one token, the length in it."""
    encoder = OneTokenEncoder()
    store = _empty(folder, encoder)
    records = {record.study_id: record for record in source.records}
    for patient in patients(counts, seed):
        record = records[patient.name]
        if record.study_id in store:
            continue
        text = f"{patient.report} Length: {patient.slices}."
        store.put(
            record.study_id,
            source.slices(record.study_id, 0, record.slices),
            encoder.encode([text]).tokens[0],
            spacing=record.spacing,
            labels=record.labels,
        )
    return store


def _empty(folder: Path, encoder: ReportEncoder) -> LatentStore:
    side = IMAGE_SIZE // CODEC.factor
    header = StoreHeader(CODEC.codec_id, encoder.encoder_id, CODEC.channels, side, side)
    edges = edges_of(CODEC, IMAGE_SIZE)
    return LatentStore.create(folder, header, edges, CODEC.channel_weights)
