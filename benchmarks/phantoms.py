"""Public phantoms as stores of latents: what the benchmarks train and test on."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from ctflow_fed.ct.codec import HaarCodec, edges_of
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.phantom import (
    PUBLIC,
    PhantomStudy,
    Population,
    compose,
    draw,
    draw_findings,
)
from ctflow_fed.ct.report import HashingReportEncoder, ReportEncoder, ReportTokens
from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.files import digest_of
from ctflow_fed.machine import cores
from ctflow_fed.seeds import derive_seed

IMAGE_SIZE = 64
CODEC = HaarCodec()

TAUGHT = replace(PUBLIC, prevalence=dict.fromkeys(FINDINGS, 0.35))
"""Whom a model is trained on: what is seen more often is learnt sooner."""


@dataclass(frozen=True)
class Patient:
    """One patient of a population and the number of slices of the scan."""

    seed: int
    slices: int
    population: Population = PUBLIC

    @property
    def name(self) -> str:
        """The id of the study in a store."""
        return f"public-{self.slices}-{self.seed:x}"

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings of the patient."""
        return draw_findings(self.seed, self.population)

    @property
    def labels(self) -> list[int]:
        """0 or 1 for each of the 18 findings."""
        return [int(name in self.findings) for name in FINDINGS]

    @property
    def report(self) -> str:
        """Findings and impression."""
        return " ".join(compose(dict.fromkeys(self.findings, 1), self.seed))

    def scan(self) -> PhantomStudy:
        """Draw the scan; it covers the whole chest."""
        scanner = self.population.scanner.resized(self.slices, IMAGE_SIZE)
        return draw(self.seed, self.findings, scanner=scanner)


def patients(
    counts: Mapping[int, int], seed: int, population: Population = PUBLIC
) -> Iterator[Patient]:
    """Yield patients, as many of each number of slices as ``counts`` says."""
    for slices, count in counts.items():
        for number in range(count):
            yield Patient(derive_seed("base", seed, slices, number), slices, population)


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


def public_store(
    folder: Path,
    counts: Mapping[int, int],
    seed: int,
    population: Population = PUBLIC,
) -> LatentStore:
    """Take drawn phantoms into a store; those that are in it stay."""
    store = _empty(folder, HashingReportEncoder())
    wanted = list(patients(counts, seed, population))
    lacking = [patient for patient in wanted if patient.name not in store]
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        scans = pool.map(Patient.scan, lacking, chunksize=4)
        bar = tqdm(scans, total=len(lacking), desc=folder.name, disable=None)
        for patient, study in zip(lacking, bar, strict=True):
            store.put(
                patient.name,
                CODEC.encode(torch.from_numpy(study.volume.hu).float()),
                HashingReportEncoder().encode([patient.report]).tokens[0],
                spacing=study.volume.spacing,
                labels=study.labels,
            )
    return store


def one_token_store(
    folder: Path, source: LatentStore, wanted: Sequence[Patient]
) -> LatentStore:
    """Copy a store of phantoms with CTFlow's reports: one token, the length in it."""
    encoder = OneTokenEncoder()
    store = _empty(folder, encoder)
    records = {record.study_id: record for record in source.records}
    for patient in wanted:
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
