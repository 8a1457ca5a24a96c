"""Volumes to measure drift on: drawn whole, from a real head, or from real neighbours.

What drawing whole loses against drawing each clip from the real one below it is what
errors gain from one another; what the latter lacks is the model's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import compose
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import SettingsError
from ctflow_fed.evaluation.drift.measure import Drawn
from ctflow_fed.evaluation.scans import Scan, scans_of
from ctflow_fed.files import digest_of
from ctflow_fed.sampling import VolumeRequest, VolumeSampler
from ctflow_fed.seeds import derive_seed
from ctflow_fed.weights import weights_digest

__all__ = ["MODES", "ModeSettings", "draw_modes", "prompts_of"]

MODES = ("full-body", "given-head", "teacher-forced")
"""Whole; above the lowest 16 real slices; each 16 above the 16 real ones below."""

PROMPTED = (
    (),
    ("Pleural effusion",),
    ("Cardiomegaly",),
    ("Emphysema",),
    ("Lung nodule", "Atelectasis"),
)
"""The findings of the five prompts that are asked for by default."""

DESCRIPTION = "SYNTHETIC CT - NOT FOR DIAGNOSTIC USE"

Job = tuple[str, Callable[[], CTVolume]]
"""The name of a file, and what draws it."""


@dataclass(frozen=True)
class ModeSettings:
    """What is drawn: lengths in slices, modes, and seeds for each prompt."""

    lengths: tuple[int, ...] = (64, 128, 192, 256)
    modes: tuple[str, ...] = MODES
    seeds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or not all(
            2 * CLIP_SLICES <= each <= 1024 and each % CLIP_SLICES == 0
            for each in self.lengths
        ):
            raise SettingsError(
                f"lengths must be multiples of {CLIP_SLICES} from {2 * CLIP_SLICES} to "
                "1024 slices"
            )
        if not self.modes or not set(self.modes) <= set(MODES):
            raise SettingsError(f"modes must be among {', '.join(MODES)}")
        if not 1 <= self.seeds <= 100:
            raise SettingsError(f"expected 1 to 100 seeds, got {self.seeds}")


def prompts_of() -> list[str]:
    """Return the five reports that are drawn by default, one without a finding."""
    return [
        " ".join(compose(dict.fromkeys(names, 1), derive_seed("drift", number)))
        for number, names in enumerate(PROMPTED)
    ]


def draw_modes(
    sampler: VolumeSampler,
    real: Sequence[Scan],
    prompts: Sequence[str],
    out: Path,
    settings: ModeSettings,
) -> list[Drawn]:
    """Draw what a folder lacks of each length and mode.

    Real volumes give the heads: as many as there are prompts times seeds, their slices
    thinned to the length; where they have fewer, that length is not drawn in that mode.
    Files lie in a folder that is named by the model and the settings of its sampler.
    """
    weights = weights_digest(sampler.network.state_dict())
    parts = [weights, sampler.codec.codec_id, sampler.encoder.encoder_id]
    made = digest_of([*parts, asdict(sampler.settings)])
    folder = out / made[:16]
    return [
        _draw(sampler, real, prompts, folder, settings, length, mode)
        for length in settings.lengths
        for mode in settings.modes
    ]


def _draw(
    sampler: VolumeSampler,
    real: Sequence[Scan],
    prompts: Sequence[str],
    folder: Path,
    settings: ModeSettings,
    length: int,
    mode: str,
) -> Drawn:
    part = f"{length} {mode}"
    if mode != "full-body" and sampler.plan == "ctflow":
        return Drawn(part, (), length, "a model of the paper's method takes no head")
    count = len(prompts) * settings.seeds
    if mode == "full-body":
        jobs = list(_whole(sampler, prompts, length, settings))
    else:
        jobs = list(_continued(sampler, real[:count], length, mode, settings.seed))
    if not jobs:
        return Drawn(part, (), length, "no real volume has as many slices")
    place = folder / f"{length}-{mode}"
    bar = tqdm(jobs, desc=part, unit="volume", disable=None)
    for name, draw in bar:
        path = place / f"{name}.nii.gz"
        if not path.exists():
            write_nifti(draw(), path, description=DESCRIPTION)
    names = {f"{name}.nii.gz" for name, _ in jobs}
    scans = [scan for scan in scans_of(place) if scan.path.name in names]
    return Drawn(part, scans, length)


def _whole(
    sampler: VolumeSampler, prompts: Sequence[str], length: int, settings: ModeSettings
) -> Iterator[Job]:
    """Draw each prompt with each seed, from nothing."""
    for number in range(settings.seeds):
        for prompt in prompts:
            seed = derive_seed("drift", settings.seed, number, prompt) % 2**32
            request = VolumeRequest(report=prompt, slices=length, seed=seed)
            name = digest_of([prompt, seed])[:16]
            yield name, partial(_sampled, sampler, request)


def _continued(
    sampler: VolumeSampler, real: Sequence[Scan], length: int, mode: str, seed: int
) -> Iterator[Job]:
    """Draw above slices of real volumes that have enough of them."""
    for scan in real:
        volume = scan.read()
        if len(volume.hu) < length:
            continue
        own = derive_seed("drift", seed, scan.digest)
        name = digest_of([scan.digest, own])[:16]
        yield name, partial(_above, sampler, _thinned(volume, length), mode, own)


def _sampled(sampler: VolumeSampler, request: VolumeRequest) -> CTVolume:
    (volume,) = sampler.sample([request])
    return volume


def _above(sampler: VolumeSampler, volume: CTVolume, mode: str, seed: int) -> CTVolume:
    """Draw all above the lowest 16 slices, or each 16 from the real ones below."""
    if mode == "teacher-forced":
        return sampler.redraw(volume, "", seed=seed)
    head = CTVolume(volume.hu[:CLIP_SLICES], volume.affine)
    above = len(volume.hu) - CLIP_SLICES
    return sampler.extend(head, "", below=0, above=above, seed=seed)


def _thinned(volume: CTVolume, length: int) -> CTVolume:
    """Take as many slices evenly from the lowest to the highest; none is a mixture."""
    at = np.linspace(0, len(volume.hu) - 1, length).round().astype(int)
    affine = volume.affine.copy()
    affine[:3, 0] *= (len(volume.hu) - 1) / (length - 1)
    return CTVolume(volume.hu[at], affine)
