"""Slices in Hounsfield units <-> latents."""

import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from ctflow_fed.clips import BLACK_HU, WHITE_HU
from ctflow_fed.errors import (
    MissingExtraError,
    PackageError,
    SettingsError,
    VolumeError,
)
from ctflow_fed.files import digest_of
from ctflow_fed.machine import autocast
from ctflow_fed.shapes import HU, Latents, Slices
from ctflow_fed.weights import weights_digest

__all__ = [
    "FluxCodec",
    "HaarCodec",
    "SliceCodec",
    "codec_named",
    "edges_of",
    "latents_of",
]

WINDOW = (-1000.0, 1000.0)
"""The HU that become -1 and 1."""

HAAR_SHIFT = -2.77
HAAR_SCALES = (
    (1.66, 0.248, 0.105, 0.114),
    (0.322, 0.134, 0.079, 0.060),
    (0.174, 0.095, 0.062, 0.041),
    (0.158, 0.067, 0.041, 0.032),
)
"""The mean of channel 0 and the standard deviation of each channel.

Measured on three chest CTs at 128 x 128 pixels, LUNG1-001 (Siemens B19f), CMB-CRC
MSB-01068 (GE LUNG) and LIDC-IDRI-0314 (Philips D), variances averaged. At 256 pixels
the details are 0.8 to 0.9 of that, at 64 pixels 1.1 to 1.3; every other mean is < 0.02.
"""

RELEASED = "released:"
"""A name that begins so asks for FLUX's autoencoder as the released network uses it."""

RELEASED_GAIN = 306 / 255
"""By how much the released CTFlow brightens what it decodes."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FLUX_BATCH = 4  # slices at once, so that memory does not grow with the volume

ENCODED_TOGETHER = 64
"""Slices of a volume that are encoded at once, so that few of them are floats."""


@runtime_checkable
class SliceCodec(Protocol):
    """What makes latents of slices and slices of latents.

    Two codecs of one ``codec_id`` give the same latents; what one has encoded is to be
    decoded only by one of the same id.
    """

    @property
    def codec_id(self) -> str:
        """What the latents depend on, as a digest."""
        ...

    @property
    def channels(self) -> int:
        """The number of channels of a latent."""
        ...

    @property
    def factor(self) -> int:
        """The pixels of a slice, along each side, for one pixel of its latent."""
        ...

    @property
    def channel_weights(self) -> tuple[float, ...]:
        """How much an error in each channel matters; their mean is 1."""
        ...

    def encode(self, hu: Slices) -> Latents:
        """Encode slices in HU, each by itself.

        Raises ``VolumeError`` when rows or columns are no multiple of ``factor``.
        """
        ...

    def decode(self, latents: Latents) -> Slices:
        """Decode to HU as floats; who stores them rounds them."""
        ...


class HaarCodec:
    """The embedded default: two levels of an orthonormal Haar wavelet packet.

    Each block of 4 x 4 pixels becomes 16 channels (a Walsh-Hadamard transform), from
    the mean to the finest checkerboard: channel ``4 * r + c`` changes sign ``r`` times
    down the rows and ``c`` times along the columns. There is nothing to train and
    nothing is lost: HU are scaled linearly and never clipped, so that every int16 HU
    comes back within 0.1 HU.
    """

    channels = 16
    factor = 4

    def __init__(self) -> None:
        signs = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]]
        waves = torch.tensor(signs) / 2
        self._kernel = torch.einsum("ri,cj->rcij", waves, waves).reshape(16, 1, 4, 4)
        self._shift = torch.tensor([HAAR_SHIFT] + 15 * [0.0])[:, None, None]
        self._scale = torch.tensor(HAAR_SCALES).reshape(16, 1, 1)
        total = sum(map(sum, HAAR_SCALES))
        # An error of a channel is that of its HU: the finest channels are mostly noise.
        self.channel_weights = tuple(
            16 * scale / total for row in HAAR_SCALES for scale in row
        )
        self.codec_id = digest_of(["haar", WINDOW, HAAR_SHIFT, HAAR_SCALES])

    def encode(self, hu: Slices) -> Latents:
        """Encode slices in HU; see `SliceCodec`."""
        _check_multiple(hu, self.factor)
        pixels = (hu.float() / WINDOW[1])[:, None]
        waves = conv2d(pixels, self._kernel.to(hu.device), stride=self.factor)
        return (waves - self._shift.to(hu.device)) / self._scale.to(hu.device)

    def decode(self, latents: Latents) -> Slices:
        """Decode to HU; see `SliceCodec`."""
        device = latents.device
        waves = latents.float() * self._scale.to(device) + self._shift.to(device)
        pixels = conv_transpose2d(waves, self._kernel.to(device), stride=self.factor)
        return pixels[:, 0] * WINDOW[1]


class FluxCodec:
    """FLUX's autoencoder: 16 channels at 1/8 of the resolution.

    HU are clipped to [-1000, 1000] and scaled to [-1, 1]; three equal channels go in,
    the mean of three comes out. ``released`` is how CTFlow uses it, and how its network
    was trained: scaled to [0, 1], and what comes out times 1.2. A latent is
    ``(z - shift) * scale``, where ``z`` is the mode of the posterior, not a draw. It
    computes on the device of its input and decodes in bfloat16 where that device does;
    latents are the same everywhere.

    Args:
        source: a folder with ``config.json`` and safetensors weights (or with a folder
            ``vae`` that has them), or the id of such a repository on the hub.
        released: whether to scale as the released CTFlow does.

    Raises ``PackageError`` when there is no such autoencoder, and
    ``MissingExtraError`` when diffusers is not installed.
    """

    channels = 16
    factor = 8
    channel_weights = (1.0,) * 16

    def __init__(self, source: str, *, released: bool = False) -> None:
        self._network = _autoencoder(source)
        self._released = released
        self._shift = float(self._network.config.shift_factor)
        self._scale = float(self._network.config.scaling_factor)
        weights = weights_digest(self._network.state_dict())
        kind = "flux released" if released else "flux"
        self.codec_id = digest_of([kind, weights, WINDOW, self._shift, self._scale])
        self._network.decoder.conv_out = _InFloat32(self._network.decoder.conv_out)
        self._network.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def encode(self, hu: Slices) -> Latents:
        """Encode slices in HU; see `SliceCodec`."""
        _check_multiple(hu, self.factor)
        network = self._network.to(hu.device)
        grey = hu.float().clamp(*WINDOW) / WINDOW[1]
        if self._released:
            grey = (grey + 1) / 2
        pixels = grey[:, None].expand(-1, 3, -1, -1)
        modes = [
            network.encode(_channels_last(part)).latent_dist.mode()
            for part in torch.split(pixels, FLUX_BATCH)
        ]
        return (torch.cat(modes) - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents: Latents) -> Slices:
        """Decode to HU within the window; see `SliceCodec`."""
        device = latents.device
        network = self._network.to(device)
        modes = latents.float() / self._scale + self._shift
        with autocast(device):
            pixels = [
                network.decode(_channels_last(part)).sample.mean(1)
                for part in torch.split(modes, FLUX_BATCH)
            ]
        grey = torch.cat(pixels)
        if self._released:
            grey = 2 * RELEASED_GAIN * grey - 1
        return grey.clamp(-1, 1) * WINDOW[1]


class _InFloat32(nn.Module):
    """A last layer that bfloat16 does not round: steps of 4 HU would show."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Leave autocast, if there is one."""
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.layer(x.float())
        return result


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def codec_named(name: str) -> SliceCodec:
    """Return the codec of a name: ``haar``, or a folder or hub id of FLUX's.

    ``released:NAME`` is FLUX's as the released CTFlow uses it. Raises
    ``SettingsError`` when the name is none of these.
    """
    if name == "haar":
        return HaarCodec()
    source = name.removeprefix(RELEASED)
    if not source or not (Path(source).is_dir() or HUB_ID.fullmatch(source)):
        raise SettingsError(
            "expected the codec haar, or a folder or hub id (owner/name) of FLUX's "
            "autoencoder, or released: and one of those, got none of them"
        )
    return FluxCodec(source, released=source != name)


def latents_of(codec: SliceCodec, hu: HU, device: str = "cpu") -> Latents:
    """Return the latents of a volume, as float16 and on the CPU."""
    parts = torch.from_numpy(hu).split(ENCODED_TOGETHER)
    return torch.cat(
        [codec.encode(part.to(device).float()).half().cpu() for part in parts]
    )


def edges_of(codec: SliceCodec, image_size: int, device: str = "cpu") -> Latents:
    """Return the latents of a black and of a white slice, what lies around a volume.

    They are encoded on ``device`` and returned on the CPU.
    """
    hu = torch.tensor([BLACK_HU, WHITE_HU], device=device)[:, None, None]
    return codec.encode(hu.expand(2, image_size, image_size)).cpu()


def _check_multiple(hu: Slices, factor: int) -> None:
    """Refuse slices that the blocks of a codec do not tile."""
    rows, cols = hu.shape[1:]
    if rows % factor or cols % factor:
        raise VolumeError(
            f"expected rows and columns in multiples of {factor}, got {rows} x {cols}; "
            "choose another image size"
        )


def _autoencoder(source: str) -> Any:  # noqa: ANN401 - diffusers is not typed
    """Load the autoencoder, frozen and in float32, from safetensors alone."""
    try:
        import diffusers
    except ImportError:
        raise MissingExtraError("diffusers", "pretrained") from None
    load: Any = diffusers.AutoencoderKL.from_pretrained
    folder = Path(source)
    below = not folder.is_dir() or (folder / "vae").is_dir()
    try:
        network: Any = load(
            source,
            subfolder="vae" if below else None,
            local_files_only=folder.is_dir(),
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        raise PackageError(
            "expected FLUX's autoencoder as config.json and safetensors weights, found "
            "none that diffusers can load; download the folder vae of FLUX.1-schnell"
        ) from None
    config = network.config
    blocks = len(config.block_out_channels)
    if config.latent_channels != FluxCodec.channels or 2 ** (blocks - 1) != 8:
        raise PackageError(
            "expected an autoencoder of 16 latent channels and factor 8, got "
            f"{config.latent_channels} and {2 ** (blocks - 1)}; choose FLUX's"
        )
    if config.shift_factor is None or not config.scaling_factor:
        raise PackageError(
            "expected a scaling_factor and a shift_factor in the autoencoder's "
            "config.json, found none; take the file that FLUX comes with"
        )
    return network.requires_grad_(False).eval()
