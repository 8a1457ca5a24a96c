import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.model import (
    FMvTConfig,
    Provenance,
    fresh_network,
    load_package,
    package_folder,
    save_package,
    start_network,
)
from ctflow_fed.training.settings import METHODS

SMALL = FMvTConfig(layers=1, features=16, heads=2)
KNOWN = Provenance(
    codec_id="codec",
    encoder_id="encoder",
    latent_size=(8, 8),
    slices=20,
    spacing=(5.0, 2.0, 2.0),
    steps=3,
    seed=0,
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    save_package(tmp_path / "model", fresh_network(SMALL, seed=0), KNOWN)
    return tmp_path / "model"


def test_a_package_gives_back_what_was_saved(package: Path):
    loaded = load_package(package)
    original = fresh_network(SMALL, seed=0).state_dict()

    assert loaded.provenance == KNOWN
    assert loaded.network.config == SMALL
    assert all(
        torch.equal(value, original[name])
        for name, value in loaded.network.state_dict().items()
    )


def test_a_package_is_four_files_and_its_card_names_its_use(package: Path):
    names = sorted(path.name for path in package.iterdir())

    assert names == ["card.md", "config.json", "model.safetensors", "provenance.json"]
    assert "Not for diagnosis" in (package / "card.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_package_knows_its_method(tmp_path: Path, method: str):
    known = replace(KNOWN, method=method)
    save_package(tmp_path, fresh_network(SMALL, seed=0), known)

    assert load_package(tmp_path).provenance == known


def test_changed_weights_are_refused(package: Path):
    weights = load_file(package / "model.safetensors")
    weights["x_embedder.proj.bias"] += 1
    save_file(weights, package / "model.safetensors")

    with pytest.raises(PackageError, match="digest"):
        load_package(package)


def test_weights_of_another_size_are_refused(package: Path):
    config = json.loads((package / "config.json").read_text())
    (package / "config.json").write_text(json.dumps(config | {"layers": 2}))

    with pytest.raises(PackageError, match="fit one another"):
        load_package(package)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "layers", "1"),
        ("config.json", "layers", 10**9),
        ("config.json", "released", 1),
        ("config.json", "scrambled_heads", True),
        ("config.json", "format", "ctflow-fed model 1"),
        ("config.json", "run", "os.system"),
        ("provenance.json", "spacing", [1.0, 2.0]),
        ("provenance.json", "latent_size", [0, 8]),
        ("provenance.json", "codec_id", None),
        ("provenance.json", "method", 1),
        ("provenance.json", "method", "another"),
        ("provenance.json", "epsilon", 1.0),  # without a delta
        ("provenance.json", "epsilon", "1"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(
    package: Path, file: str, key: str, value: object
):
    content = json.loads((package / file).read_text())
    (package / file).write_text(json.dumps(content | {key: value}))

    with pytest.raises(PackageError):
        load_package(package)


def test_a_package_from_before_privacy_was_noted_promises_none(package: Path):
    content = json.loads((package / "provenance.json").read_text())
    kept = {key: content[key] for key in content if key not in ("epsilon", "delta")}
    (package / "provenance.json").write_text(json.dumps(kept))

    assert load_package(package).provenance == KNOWN


def test_a_folder_without_provenance_is_no_package(package: Path):
    (package / "provenance.json").unlink()

    with pytest.raises(PackageError, match=r"provenance\.json"):
        load_package(package)


def test_training_begins_with_a_package_or_with_fresh_weights(package: Path):
    network, parent = start_network("nano", package, seed=0)
    fresh, no_parent = start_network("nano", None, seed=0)

    assert network.config == SMALL
    assert parent.digest == load_package(package).digest
    assert fresh.config.layers == 4
    assert no_parent is None


def test_an_unknown_preset_is_refused():
    with pytest.raises(SettingsError, match="preset"):
        start_network("huge", None, seed=0)


def test_weights_in_half_precision_have_the_digest_of_their_network(tmp_path):
    shipped = load_package(package_folder("base"))

    again = save_package(tmp_path, shipped.network, shipped.provenance)

    assert again == shipped.digest
