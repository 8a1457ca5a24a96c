"""From a request to a volume and its sidecar on disk."""

import hashlib
import traceback
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from ctflow_fed import __version__
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


class SynthWorker:
    """Draws requests with a model that is loaded once, and puts them into a store."""

    def __init__(self, model: Path, out: Path, settings: GenerateSettings) -> None:
        self.store = SynthStore(out)
        self.sampler, origin = load_sampler(model, settings)
        if origin != self.store.header.origin:
            raise MismatchError("the model changed since the run began; start it again")

    def __call__(self, batch: Sequence[SynthRequest]) -> list[str]:
        """Draw a batch and write what is missing of it; see `pool.Worker`."""
        return self.write(batch, self.draw(batch))

    def draw(self, batch: Sequence[SynthRequest]) -> list[CTVolume | str]:
        """Draw a batch, in halves where memory is short; what fails says why."""
        try:
            return list(self.sampler.sample([_asked(each) for each in batch]))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is one batch's
            if len(batch) == 1 or not _is_out_of_memory(error):
                return [_reason(error)] * len(batch)
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self.draw(batch[:half]) + self.draw(batch[half:])

    def write(
        self, batch: Sequence[SynthRequest], drawn: Sequence[CTVolume | str]
    ) -> list[str]:
        """Write what was drawn of a batch; say of each request why that failed."""
        return [
            volume if isinstance(volume, str) else self._put(request, volume)
            for request, volume in zip(batch, drawn, strict=True)
        ]

    def _put(self, request: SynthRequest, volume: CTVolume) -> str:
        """Write one volume, then its sidecar, unless they are there."""
        sample_id = self.store.header.origin.sample_id(request)
        if sample_id in self.store:
            return ""
        image = self.store.image(sample_id)
        try:
            image.parent.mkdir(exist_ok=True)
            write_nifti(volume, image, description=f"{USE} {sample_id}")
            record = _record(sample_id, request, volume, image)
            value = record.to_json(self.store.header.origin)
            write_json(self.store.sidecar(sample_id), value)
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
    known = package.provenance
    origin = Origin(
        model=package.digest,
        codec_id=sampler.codec.codec_id,
        encoder_id=sampler.encoder.encoder_id,
        rounds=known.rounds,
        sites=known.sites,
        sampling=_decisive(sampler),
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


def _asked(request: SynthRequest) -> VolumeRequest:
    return VolumeRequest(
        report=request.report,
        slices=request.slices,
        seed=request.seed,
        slice_mm=request.slice_mm,
    )


def _record(
    sample_id: str, request: SynthRequest, volume: CTVolume, image: Path
) -> SynthRecord:
    slices, rows, cols = volume.hu.shape
    return SynthRecord(
        sample_id=sample_id,
        labels=request.labels,
        report=request.report if request.source == "template" else None,
        report_sha256=hashlib.sha256(request.report.encode()).hexdigest(),
        report_source=request.source,
        seed=request.seed,
        shape=(slices, rows, cols),
        spacing=volume.spacing,
        bytes=image.stat().st_size,
        sha256=sha256_of(image),
        code_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
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
