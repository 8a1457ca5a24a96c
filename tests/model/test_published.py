import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctflow_fed.errors import PackageError
from ctflow_fed.flow import euler, time_grid
from ctflow_fed.model import load_published


@pytest.fixture
def published(shared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shared / "reference" / "ctflow_stdit_tiny", tmp_path / "net")


@torch.no_grad()
def test_published_weights_give_the_published_velocity(published: Path):
    expected = load_file(published / "expected.safetensors")
    network = load_published(published)

    velocity = network(
        expected["noise"],
        expected["timestep"],
        context=expected["context"],
        report=expected["text"],
    )

    assert (velocity - expected["velocity"]).abs().max() < 1e-5


@torch.no_grad()
def test_parity_holds_through_eight_euler_steps(published: Path):
    expected = load_file(published / "expected.safetensors")
    network = load_published(published)

    end = euler(
        lambda x, t: network(
            x, t, context=expected["context"], report=expected["text"]
        ),
        expected["noise"],
        time_grid(8),
    )

    assert (end - expected["euler8"]).abs().max() < 1e-5


@torch.no_grad()
def test_switching_extensions_on_changes_no_published_number(published: Path):
    expected = load_file(published / "expected.safetensors")
    network = load_published(published)
    inputs = (expected["noise"], expected["timestep"])
    known = {"context": expected["context"], "report": expected["text"]}

    plain = network(*inputs, **known)
    extended = network(
        *inputs,
        **known,
        report_mask=torch.ones(2, 1, dtype=torch.bool),
        geometry=torch.rand(2, 16, 4),
    )

    assert (plain - extended).abs().max() < 1e-6


def test_another_model_class_is_refused(published: Path):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"_class_name": "UNet"}))

    with pytest.raises(PackageError, match="DiffuserSTDiT"):
        load_published(published)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", [1, 2, 2]),
        ("depth", 3),
        ("hidden_size", "wide"),
        ("num_heads", 0),
        ("input_size", [16, 16, 32]),
        ("caption_channels", 512),
    ],
)
def test_a_config_that_the_weights_do_not_fit_is_refused(
    published: Path, key: str, value: object
):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {key: value}))

    with pytest.raises(PackageError):
        load_published(published)


def test_other_positions_than_ours_are_refused(published: Path):
    file = published / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["model.pos_embed"] += 1
    save_file(weights, file)

    with pytest.raises(PackageError, match="position"):
        load_published(published)


def test_a_file_that_is_no_safetensors_is_refused(published: Path):
    (published / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x04pickle")

    with pytest.raises(PackageError, match="safetensors"):
        load_published(published)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(PackageError, match=r"config\.json"):
        load_published(tmp_path)
