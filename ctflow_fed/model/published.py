"""The released CTFlow checkpoint -> FMvT, and a model package of ours."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.files import read_json
from ctflow_fed.model.embed import PATCH, frame_positions, place_positions
from ctflow_fed.model.fmvt import FMvT, fresh_network, is_extension
from ctflow_fed.model.package import Provenance, save_package
from ctflow_fed.model.presets import FMvTConfig

__all__ = ["import_published", "load_published"]

WEIGHTS = "diffusion_pytorch_model.safetensors"
FIXED = {
    "class_dropout_prob": 0.0,
    "drop_path": 0.0,
    "mlp_ratio": 4.0,
    "no_temporal_pos_emb": False,
    "patch_size": [PATCH, PATCH, PATCH],
    "space_scale": 1.0,
    "time_scale": 1.0,
}
"""Settings of the released format that FMvT has built in."""

NOT_USED = "y_embedder.y_embedding"
"""A buffer that inference never reads."""

ASSUMED_SLICES = 201
ASSUMED_SLICE_MM = 1.5
ASSUMED_FIELD_MM = 360.0
PIXELS = 8
"""The publication states no geometry: this is that of CT-RATE's other generators.

`ASSUMED_FIELD_MM` is the side of a slice; each latent is 8 x 8 pixels of FLUX's codec.
"""


def import_published(
    folder: Path, out: Path, *, codec_id: str = "", encoder_id: str = ""
) -> str:
    """Make a model package of a folder in the released layout; return its digest.

    Its method is the paper's. An empty id binds the model to no codec or encoder. A
    folder that is not empty is never written to. Raises `PackageError`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PackageError(
            "a model is imported into a new or empty folder, and this one is not; "
            "choose another, or remove what is there"
        )
    network = load_published(folder)
    _, height, width = _read_config(folder)["input_size"]
    pixel_mm = ASSUMED_FIELD_MM / (PIXELS * max(height, width))
    provenance = Provenance(
        codec_id=codec_id,
        encoder_id=encoder_id,
        latent_size=(height, width),
        slices=ASSUMED_SLICES,
        spacing=(ASSUMED_SLICE_MM, pixel_mm, pixel_mm),
        steps=0,
        seed=0,
        method="ctflow",
    )
    return save_package(out, network, provenance)


def load_published(folder: Path | str) -> FMvT:
    """Load a folder in the released layout; the network gives the same numbers.

    The folder holds ``config.json`` (``_class_name: DiffuserSTDiT``) and
    ``diffusion_pytorch_model.safetensors``. Extensions that the released network lacks
    are fresh, with their last layers zero: they change nothing until trained. Raises
    `PackageError`.
    """
    folder = Path(folder)
    config = _read_config(folder)
    network = fresh_network(_config_of(config), seed=0)
    weights = _read_weights(folder / WEIGHTS)
    _check_positions(weights, config)
    weights.pop(NOT_USED, None)

    extensions = {
        name: value
        for name, value in network.state_dict().items()
        if is_extension(name)
    }
    try:
        network.load_state_dict(weights | extensions)
    except RuntimeError as error:
        raise PackageError(
            "the published weights do not fit their config.json: names or shapes of "
            "tensors differ; fetch the folder again"
        ) from error
    return network.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise PackageError(
            "a published model is a folder with config.json and "
            f"{WEIGHTS}; config.json is missing or no JSON here"
        ) from error
    if not isinstance(config, dict) or config.get("_class_name") != "DiffuserSTDiT":
        raise PackageError(
            "config.json must say _class_name: DiffuserSTDiT; this is another model"
        )
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise PackageError(f"config.json must have {name} = {value} to be loaded")
    return config


def _config_of(config: dict[str, Any]) -> FMvTConfig:
    try:
        return FMvTConfig(
            layers=int(config["depth"]),
            features=int(config["hidden_size"]),
            heads=int(config["num_heads"]),
            latent_channels=int(config["out_channels"]),
            report_features=int(config["caption_channels"]),
            released=True,
        )
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise PackageError(
            "config.json must hold depth, hidden_size, num_heads, out_channels and "
            "caption_channels as whole numbers that fit one another"
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PackageError(f"{path.name} is missing or no safetensors file") from error
    return {name.removeprefix("model."): value for name, value in weights.items()}


def _check_positions(weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Take the position buffers out of ``weights``; they must be those we compute."""
    try:
        frames, height, width = (size // PATCH for size in config["input_size"])
        features = int(config["hidden_size"])
        differ = max(
            _distance(weights.pop(name), expected)
            for name, expected in {
                "pos_embed": place_positions(height, width, features),
                "pos_embed_temporal": frame_positions(frames, features),
            }.items()
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PackageError(
            "the published weights lack position buffers that fit input_size"
        ) from error
    if not differ < 1e-4:
        raise PackageError("the position buffers of the published weights are others")


def _distance(buffer: Tensor, expected: Tensor) -> float:
    return float((buffer[0] - expected).abs().max())
