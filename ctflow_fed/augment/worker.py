"""From a request to a volume and its sidecar on disk."""

import hashlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from ctflow_fed import __version__
from ctflow_fed.augment.gate import Drawn, Gate, candidate_seed
from ctflow_fed.augment.record import USE, Origin, Setting, SynthRecord
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.room import FULL, is_full
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.ct.codec import codec_named
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import CTFlowError, MismatchError
from ctflow_fed.files import sha256_of, write_json
from ctflow_fed.model import load_package
from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler

__all__ = ["SynthWorker", "load_sampler"]

PAUSE = 0.5  # seconds between two looks at what lies there unspent


class SynthWorker:
    """Draws requests with a model that is loaded once, and puts them into a store."""

    def __init__(self, model: Path, out: Path, settings: GenerateSettings) -> None:
        self.store = SynthStore(out)
        self.sampler, origin = load_sampler(model, settings)
        if origin != self.store.header.origin:
            raise MismatchError("the model changed since the run began; start it again")
        self.gate = _gate_of(settings)
        self.candidates = settings.candidates
        self.ahead = settings.ahead

    def __call__(self, batch: Sequence[SynthRequest]) -> list[str]:
        """Draw a batch and write what is missing of it; see `pool.Worker`."""
        return self.write(batch, self.draw(batch))

    def draw(self, batch: Sequence[SynthRequest]) -> list[Drawn | str]:
        """Draw a batch, and of the candidates of a request keep the best."""
        kept = self._drawn(batch, 0)
        for number in range(1, self.candidates):
            others = self._drawn(batch, number)
            kept = [_better(*pair) for pair in zip(kept, others, strict=True)]
        return kept

    def _drawn(self, batch: Sequence[SynthRequest], number: int) -> list[Drawn | str]:
        """Draw the ``number``-th candidate of each request, and judge it."""
        seeds = [candidate_seed(each.seed, number) for each in batch]
        asked = [_asked(*pair) for pair in zip(batch, seeds, strict=True)]
        return [
            made if isinstance(made, str) else self._judged(made, seed, request)
            for made, seed, request in zip(
                self._sampled(asked), seeds, batch, strict=True
            )
        ]

    def _judged(
        self, volume: CTVolume, seed: int, request: SynthRequest
    ) -> Drawn | str:
        if self.gate is None:
            return Drawn(volume, seed)
        try:
            return self.gate.judge(volume, seed, request.findings)
        except Exception as error:  # noqa: BLE001  # it is this volume's
            return _reason(error)

    def _sampled(self, asked: Sequence[VolumeRequest]) -> list[CTVolume | str]:
        """Draw volumes, in halves where memory is short; what fails says why."""
        try:
            return list(self.sampler.sample(asked))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is one batch's
            if len(asked) == 1 or not _is_out_of_memory(error):
                return [_reason(error)] * len(asked)
        torch.cuda.empty_cache()
        half = len(asked) // 2
        return self._sampled(asked[:half]) + self._sampled(asked[half:])

    def write(
        self, batch: Sequence[SynthRequest], drawn: Sequence[Drawn | str]
    ) -> list[str]:
        """Write what was drawn of a batch; say of each request why that failed."""
        return [
            kept if isinstance(kept, str) else self._put(request, kept)
            for request, kept in zip(batch, drawn, strict=True)
        ]

    def _put(self, request: SynthRequest, drawn: Drawn) -> str:
        """Write one volume, then its sidecar, unless that is done.

        One that the gate refused goes where it does not count.
        """
        while self.ahead is not None and len(self.store.ids()) >= self.ahead:
            time.sleep(PAUSE)
        sample_id = self.store.header.origin.sample_id(request)
        if self.store.is_settled(sample_id):
            return ""
        store = self.store.refused if drawn.refusal else self.store
        image = store.image(sample_id)
        try:
            image.parent.mkdir(exist_ok=True)
            write_nifti(drawn.volume, image, description=f"{USE} {sample_id}")
            record = _record(sample_id, request, drawn, image)
            value = record.to_json(store.header.origin)
            write_json(store.sidecar(sample_id), value)
        except Exception as error:  # noqa: BLE001  # a full disk, say: counted, not fatal
            return _reason(error)
        return ""


def load_sampler(
    model: Path, settings: GenerateSettings
) -> tuple[VolumeSampler, Origin]:
    """Load a model package and what belongs to it.

    Raises ``MismatchError`` where the codec or the report encoder is not the model's.
    """
    package = load_package(model)
    sampler = VolumeSampler(
        package,
        codec_named(settings.codec),
        encoder_named(settings.encoder),
        _sample_settings(settings),
    )
    known, gate = package.provenance, _gate_of(settings)
    origin = Origin(
        model=package.digest,
        codec_id=sampler.codec.codec_id,
        encoder_id=sampler.encoder.encoder_id,
        rounds=known.rounds,
        sites=known.sites,
        sampling={**_decisive(sampler), **({} if gate is None else gate.decisive)},
        epsilon=known.epsilon,
        delta=known.delta,
    )
    return sampler, origin


def _sample_settings(settings: GenerateSettings) -> SampleSettings:
    """Return how to sample, by the sampler's own settings where none was chosen."""
    known = {field.name for field in fields(SampleSettings)}
    chosen = {name: value for name, value in asdict(settings).items() if name in known}
    return SampleSettings(**{k: v for k, v in chosen.items() if v is not None})


def _decisive(sampler: VolumeSampler) -> dict[str, Setting]:
    """Return the settings that change what is drawn, in canonical form."""
    values: dict[str, Setting] = {}
    for field in fields(SampleSettings):
        value = getattr(sampler.settings, field.name)
        if isinstance(value, tuple):
            value = list(map(float, value))
        values[field.name] = float(value) if field.type is float else value
    del values["batch_clips"]  # how many are drawn at once
    return {**values, "plan": sampler.plan}


def _gate_of(settings: GenerateSettings) -> Gate | None:
    return None if settings.gate == "none" else Gate(settings)


def _better(one: Drawn | str, other: Drawn | str) -> Drawn | str:
    """Return the better of two that were drawn; what failed is none."""
    if isinstance(one, str) or isinstance(other, str):
        return other if isinstance(one, str) else one
    return one.or_better(other)


def _asked(request: SynthRequest, seed: int) -> VolumeRequest:
    return VolumeRequest(
        report=request.report,
        slices=request.slices,
        seed=seed,
        slice_mm=request.slice_mm,
    )


def _record(
    sample_id: str, request: SynthRequest, drawn: Drawn, image: Path
) -> SynthRecord:
    slices, rows, cols = drawn.volume.hu.shape
    return SynthRecord(
        sample_id=sample_id,
        labels=request.labels,
        report=request.report if request.source == "template" else None,
        report_sha256=hashlib.sha256(request.report.encode()).hexdigest(),
        report_source=request.source,
        seed=drawn.seed,
        shape=(slices, rows, cols),
        spacing=drawn.volume.spacing,
        bytes=image.stat().st_size,
        sha256=sha256_of(image),
        code_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        candidates=drawn.candidates,
    )


def _reason(error: Exception) -> str:
    """Say what went wrong and where in the code; a text might quote a report."""
    if isinstance(error, CTFlowError):
        return str(error)
    if is_full(error):
        return FULL
    if _is_out_of_memory(error):
        return "memory is too small for one volume; draw fewer clips at once"
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether a device or this machine had too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
