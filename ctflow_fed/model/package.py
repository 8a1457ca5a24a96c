"""A model package: a folder with config, weights, card and provenance."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ctflow_fed.errors import MismatchError, PackageError, SettingsError
from ctflow_fed.files import read_json, write_atomically, write_json, write_text
from ctflow_fed.model.fmvt import FMvT
from ctflow_fed.model.presets import FMvTConfig
from ctflow_fed.weights import weights_digest

__all__ = [
    "ModelPackage",
    "Provenance",
    "check_kind",
    "load_package",
    "read_provenance",
    "save_package",
    "write_package",
]

FORMAT = "ctflow-fed model 5"

METHODS = ("known", "ctflow")
"""The methods of training that there are, ours and the paper's."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from and what it belongs to.

    ``codec_id`` and ``encoder_id`` name the latents and tokens it was trained on;
    ``latent_size`` (height, width), ``slices`` and ``spacing`` (slice, row, column,
    mm) are those of a typical training volume; ``parent`` is the digest of the
    weights that training began with, empty for a fresh network; ``method`` is that of
    training (`ctflow_fed.training.TrainSettings`), which decides how to sample. Private
    training spent ``epsilon`` at ``delta`` of the patients of each site; none is none.
    """

    codec_id: str
    encoder_id: str
    latent_size: tuple[int, int]
    slices: int
    spacing: tuple[float, float, float]
    steps: int
    seed: int
    rounds: int = 0
    sites: int = 1
    parent: str = ""
    method: str = "known"
    epsilon: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"the method of a model is {' or '.join(METHODS)}")
        spent = (self.epsilon, self.delta)
        if spent != (None, None) and not all(map(_is_spent, spent)):
            raise SettingsError("epsilon and delta of a model are positive numbers")


def _is_spent(value: object) -> bool:
    """Tell whether a value can be an epsilon or a delta."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= 1e9  # type: ignore[operator]  # it is a number


class ModelPackage(NamedTuple):
    """A network, its provenance and the digest of its weights."""

    network: FMvT
    provenance: Provenance
    digest: str


def save_package(folder: Path, network: FMvT, provenance: Provenance) -> str:
    """Write a model package and return the digest of its weights."""
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    digest = weights_digest(weights)
    write_package(
        folder, network, provenance, digest, lambda path: save_file(weights, path)
    )
    return digest


def write_package(
    folder: Path,
    network: FMvT,
    provenance: Provenance,
    digest: str,
    write: Callable[[Path], object],
) -> None:
    """Write a model package whose weights, of this digest, ``write`` puts into a file.

    Of the network only the shapes are looked at, so that the weights need not be in
    memory. ``provenance.json`` is written last: a folder without it is no package.
    """
    (folder / "provenance.json").unlink(missing_ok=True)
    write_atomically(folder / "model.safetensors", write)
    write_json(folder / "config.json", {"format": FORMAT, **asdict(network.config)})
    card = _card(network, provenance, digest)
    write_text(folder / "card.md", card)
    write_json(folder / "provenance.json", {**asdict(provenance), "digest": digest})


def load_package(folder: Path) -> ModelPackage:
    """Load a model package; everything in it is checked before it is used.

    Raises `PackageError` where a file is missing, malformed, does not fit the others,
    or where the weights are not those that the provenance names.
    """
    folder = Path(folder)
    config = _read_fields(folder / "config.json", FMvTConfig, {"format": FORMAT})
    provenance, digest = read_provenance(folder / "provenance.json")
    try:
        with torch.device("meta"):  # no weights that are thrown away at once
            network = FMvT(FMvTConfig(**config))
        weights = load_file(folder / "model.safetensors")
        network.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, RuntimeError, TypeError, SettingsError) as error:
        raise PackageError(
            "the files of a model package must fit one another; one of them is "
            "missing, damaged or of another model: make or fetch the package again"
        ) from error
    if weights_digest(weights) != digest:
        raise PackageError(
            "the weights of a model package must have the digest that its "
            "provenance.json names; they were changed: fetch the package again"
        )
    return ModelPackage(network.float().eval(), provenance, digest)


def check_kind(part: str, expected: str, got: str) -> None:
    """Refuse another codec or encoder; an imported model may not name its own."""
    if expected not in ("", got):
        raise MismatchError(
            f"the model was trained with another {part} than the one given; "
            f"name that one, or use a model made with this one"
        )


def read_provenance(path: Path) -> tuple[Provenance, str]:
    """Read where some weights come from, and the digest that they must have."""
    known = _read_fields(path, Provenance, {"digest": None})
    digest = str(known.pop("digest"))
    try:
        return Provenance(**_as_tuples(known)), digest
    except (TypeError, SettingsError) as error:
        raise PackageError(
            f"{path.name} must hold sizes, spacing and slices as positive numbers, "
            f"the method {' or '.join(METHODS)}, and epsilon with delta or neither"
        ) from error


def _read_fields(
    path: Path, owner: type[FMvTConfig] | type[Provenance], extra: dict[str, Any]
) -> dict[str, Any]:
    """Read a JSON object that holds exactly the fields of ``owner`` and ``extra``.

    A field whose default is none may be absent.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise PackageError(
            f"a model package needs {path.name}, which is missing or no JSON here"
        ) from error
    expected = {field.name: field.type for field in fields(owner)}
    if isinstance(found, dict):
        may_lack = (each.name for each in fields(owner) if each.default is None)
        found = dict.fromkeys(may_lack) | found
    if not isinstance(found, dict) or set(found) != set(expected) | set(extra):
        raise PackageError(f"{path.name} of a model package has other keys than ours")
    for name, kind in expected.items():
        value = found[name]
        if isinstance(kind, type) and not (
            type(value) is kind or (kind is float and type(value) is int)
        ):
            raise PackageError(f"{path.name} must hold a {kind.__name__} as {name}")
    if "format" in extra and found.pop("format") != extra["format"]:
        raise PackageError(f"{path.name} must be of the format '{FORMAT}'")
    return found


def _as_tuples(known: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists of a provenance into tuples; check that sizes are sizes."""
    for name, length in {"latent_size": 2, "spacing": 3}.items():
        numbers = known[name]
        if not isinstance(numbers, list) or len(numbers) != length:
            raise TypeError(name)
        if not all(type(n) in (int, float) and 0 < n < 1e5 for n in numbers):
            raise TypeError(name)
        known[name] = tuple(numbers)
    if not 0 < known["slices"] < 1e5:
        raise TypeError("slices")
    return known


def _card(network: FMvT, provenance: Provenance, digest: str) -> str:
    """Describe a model for those who are given it."""
    # Imported weights come without a word on their training.
    imported = network.config.released and not provenance.steps
    unstated = " (assumed: the publisher does not state it)" if imported else ""
    training = f"{provenance.steps} steps, {provenance.rounds} federated rounds"
    millions = sum(value.numel() for value in network.parameters()) / 1e6
    slice_mm, row_mm, col_mm = (f"{length:.2f}" for length in provenance.spacing)
    height, width = provenance.latent_size
    return f"""# Model card

A CTFlow-Fed generator of synthetic chest CT (FMvT, {millions:.1f} M parameters).

| | |
|---|---|
| weights (SHA-256) | `{digest}` |
| trained for | {"what its publisher says" if imported else training} |
| sites | {provenance.sites} |
| a typical volume | {provenance.slices} slices every {slice_mm} mm{unstated} |
| a slice | latents of {height} x {width}, pixels of {row_mm} x {col_mm} mm{unstated} |
| codec | {_named(provenance.codec_id)} |
| report encoder | {_named(provenance.encoder_id)} |
| privacy | {_promise(provenance)} |

**Use**: augmenting training sets, teaching, testing software. **Not for diagnosis.**
A synthetic volume shows no patient; whether it repeats one has to be audited before
volumes or weights are given away.
"""


def _promise(provenance: Provenance) -> str:
    epsilon, delta = provenance.epsilon, provenance.delta
    if epsilon is None:
        return "none was promised to the patients trained on"
    return (
        f"epsilon {epsilon:.2f} at delta {delta:g} for each patient, by this training"
    )


def _named(digest: str) -> str:
    return f"`{digest}`" if digest else "not named; any is accepted"
