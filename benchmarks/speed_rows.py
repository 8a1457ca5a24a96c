"""What `speed.py` measures, each in a process of its own."""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from plain import PlainNetwork
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ctflow_fed.clips import CLIP_SLICES, QUANTITIES
from ctflow_fed.ct.codec import FluxCodec, HaarCodec, SliceCodec
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.machine import autocast, has_native_bfloat16
from ctflow_fed.model import (
    PRESETS,
    Conditions,
    FMvT,
    FMvTConfig,
    FrameConditions,
    ModelPackage,
    Provenance,
    default_device,
)
from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler
from ctflow_fed.training import TrainSettings
from ctflow_fed.training.optimizer import optimizer_of
from ctflow_fed.training.step import trained_weights

FACTOR = 8
"""Pixels for one latent along a side, as FLUX's autoencoder has it."""

REPORT_TOKENS = 8
SLICES = 256
TRAIN_CLIPS = 8

EVALUATIONS = {
    "plain": 12.0,
    "forward": 2.0,
    "volume": 1.25 * SLICES / CLIP_SLICES * SampleSettings().steps,
    "train": 3.0 * 2 * TRAIN_CLIPS,
}
"""About how many forwards of a clip a row costs."""

VOLUME = VolumeRequest(report="Pleural effusion.", slices=SLICES, seed=0)

Inputs = tuple[Tensor, Tensor, Conditions]


def clip_of(
    config: FMvTConfig,
    pixels: int,
    device: torch.device | None = None,
    batch: int = 1,
) -> Inputs:
    """Return a clip as the network takes it; the released one knows one token only."""
    side, tokens = pixels // FACTOR, 1 if config.released else REPORT_TOKENS
    shape = (batch, config.latent_channels, CLIP_SLICES, side, side)
    frames = FrameConditions.of(
        torch.rand(batch, CLIP_SLICES, QUANTITIES, device=device),
        torch.zeros(batch, CLIP_SLICES, dtype=torch.bool, device=device),
        torch.zeros(batch, device=device),
    )
    conditions = Conditions(
        torch.randn(shape, device=device),
        torch.randn(batch, tokens, config.report_features, device=device),
        torch.ones(batch, tokens, dtype=torch.bool, device=device),
        None if config.released else frames,
    )
    t = torch.full((batch,), 0.5, device=device)
    return torch.randn(shape, device=device), t, conditions


@cache
def forward_flops(preset: str, pixels: int, *, released: bool = False) -> float:
    """Count the floating-point operations of one forward; nothing is computed."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        config = replace(PRESETS[preset], released=released)
        FMvT(config)(*clip_of(config, pixels))
    return float(counter.get_total_flops())


def _rates(preset: str, pixels: int) -> dict[str, float]:
    """Return the rate of products of square matrices, in operations a second."""
    device = default_device()
    side = 8192 if device.type == "cuda" else 2048
    kinds = [torch.float32]
    if has_native_bfloat16(device):
        kinds.append(torch.bfloat16)
    rates = {}
    for kind in kinds:
        a, b = torch.randn(2, side, side, device=device).to(kind)
        times = _times(lambda a=a, b=b: a @ b, device, repeats=7)
        rates[str(kind).removeprefix("torch.")] = 2 * side**3 / min(times)
    return rates


@torch.no_grad()
def _forward(preset: str, pixels: int) -> dict[str, Any]:
    device, config = default_device(), PRESETS[preset]
    network = FMvT(config).to(device).eval()
    clip = clip_of(config, pixels, device)
    if device.type == "cuda":
        network.compile(mode="reduce-overhead")
    with autocast(device):
        times = _times(lambda: network(*clip), device)
    return _result(device, times) | {"flops": forward_flops(preset, pixels)}


@torch.no_grad()
def _plain(preset: str, pixels: int) -> dict[str, Any]:
    """Compare with a plain float32 network of the same weights, turn by turn."""
    device, config = default_device(), replace(PRESETS[preset], released=True)
    network = FMvT(config).to(device).eval()
    for weight in network.parameters():  # some are zero in a fresh one: all would agree
        torch.nn.init.normal_(weight, std=0.02)
    noisy, t, told = clip_of(config, pixels, device)
    plain = PlainNetwork(network, (CLIP_SLICES, *noisy.shape[-2:]))

    def half() -> None:
        with autocast(device):
            network(noisy, t, told)

    works = {
        "plain": lambda: plain(noisy, t, told.context, told.report),
        "float32": lambda: network(noisy, t, told),
    }
    if has_native_bfloat16(device):
        works["bfloat16"] = half
    turns: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(5):
        for name, work in works.items():
            turns[name] += _times(work, device, repeats=1, warm=not turns[name])
    seconds = {name: statistics.median(times) for name, times in turns.items()}
    baseline = seconds.pop("plain")
    ratios = {name: each / baseline for name, each in seconds.items()}
    differ = float((works["plain"]() - works["float32"]()).abs().max())
    return {"plain_seconds": baseline, "ratios": ratios, "largest_difference": differ}


def _volume(preset: str, pixels: int) -> dict[str, Any]:
    """Draw a volume from its report; a GPU does it twice, to compile in the first."""
    device = default_device()
    with tempfile.TemporaryDirectory() as folder:
        codec = _codec(Path(folder), device)
    sampler = _sampler(preset, pixels, codec)
    if device.type == "cuda":
        sampler.network.compile()
    warm = device.type == "cuda"
    times = _times(lambda: sampler.sample([VOLUME]), device, repeats=1, warm=warm)
    side = pixels // codec.factor
    latents = torch.randn(SLICES, codec.channels, side, side, device=device)
    decoding = _times(lambda: codec.decode(latents), device, repeats=1, warm=warm)
    named = {"decode_seconds": decoding[0], "codec": _codec_in_words(codec, device)}
    return _result(device, times) | named


def _sampler(preset: str, pixels: int, codec: SliceCodec) -> VolumeSampler:
    encoder, side = HashingReportEncoder(), pixels // codec.factor
    provenance = Provenance(
        codec_id=codec.codec_id,
        encoder_id=encoder.encoder_id,
        latent_size=(side, side),
        slices=SLICES,
        spacing=(1.5, 300 / pixels, 300 / pixels),
        steps=0,
        seed=0,
    )
    package = ModelPackage(FMvT(PRESETS[preset]), provenance, "")
    return VolumeSampler(package, codec, encoder)


@cache
def clips_evaluated() -> float:
    """Count the clips of 16 slices that the network sees for one volume."""
    sampler, frames = _sampler("nano", 16, HaarCodec()), 0

    def count(_: object, inputs: Inputs) -> None:
        nonlocal frames
        frames += inputs[0][:, 0, :, 0, 0].numel()

    sampler.network.register_forward_pre_hook(count)
    sampler.sample([VOLUME])
    return frames / CLIP_SLICES


def _train(preset: str, pixels: int) -> dict[str, Any]:
    """Take steps of training on clips that are there already."""
    device, config = default_device(), PRESETS[preset]
    network = FMvT(config).to(device).train()
    optimizer = optimizer_of(trained_weights(network), TrainSettings())
    clips = clip_of(config, pixels, device, batch=TRAIN_CLIPS)
    if device.type == "cuda":
        network.compile()

    def step() -> None:
        with autocast(device):
            velocity = network(*clips)
        optimizer.zero_grad()
        velocity.float().square().mean().backward()
        optimizer.step()

    # Backward costs twice what forward does.
    flops = 3 * TRAIN_CLIPS * forward_flops(preset, pixels)
    return _result(device, _times(step, device)) | {"flops": flops}


ROWS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "rates": _rates,
    "plain": _plain,
    "forward": _forward,
    "volume": _volume,
    "train": _train,
}
"""Every kind of row under its name."""


def _codec(folder: Path, device: torch.device) -> SliceCodec:
    """Return an autoencoder of FLUX's layout, of FLUX's width on a GPU; else Haar's."""
    if find_spec("diffusers") is None:
        return HaarCodec()
    from diffusers import AutoencoderKL

    whole = device.type == "cuda"
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512) if whole else (8, 16, 16, 16),
        layers_per_block=2 if whole else 1,
        norm_num_groups=32 if whole else 4,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    network.save_pretrained(folder, safe_serialization=True)
    return FluxCodec(str(folder))


def _codec_in_words(codec: SliceCodec, device: torch.device) -> str:
    if isinstance(codec, HaarCodec):
        return "Haar"
    return "FLUX" if device.type == "cuda" else "FLUX's layout, 1/16 to 1/32 as wide"


def _times(
    work: Callable[[], object],
    device: torch.device,
    *,
    repeats: int = 5,
    warm: bool = True,
) -> list[float]:
    """Return the seconds of each run; runs of more than 10 s are made once."""
    times = []
    for turn in range(repeats + warm):
        _wait_for(device)
        began = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - began)
        if turn and min(times) > 10:
            break
    return times[warm:]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _result(device: torch.device, times: list[float]) -> dict[str, Any]:
    half = has_native_bfloat16(device)
    return {
        "seconds": statistics.median(times),
        "precision": "bfloat16" if half else "float32",
        "peak_mb": _peak_bytes(device) / 2**20,
    }


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory of the GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
