import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctflow_fed.errors import PackageError
from ctflow_fed.flow import euler, time_grid
from ctflow_fed.model import (
    Conditions,
    FMvT,
    FrameConditions,
    import_published,
    load_package,
    load_published,
)
from ctflow_fed.sampling import SampleSettings
from ctflow_fed.sampling.clips import draw_clips

FOLDER = Path("reference") / "ctflow_stdit_tiny"


@pytest.fixture
def published(shared: Path, tmp_path: Path) -> Path:
    # Not copytree: the copy of a folder that is read-only would be read-only.
    (tmp_path / "net").mkdir()
    for path in (shared / FOLDER).iterdir():
        shutil.copyfile(path, tmp_path / "net" / path.name)
    return tmp_path / "net"


@pytest.fixture
def expected(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / FOLDER / "expected.safetensors")


def _told(expected: dict[str, torch.Tensor], *, extended: bool) -> Conditions:
    """Return what the reference was told, or that and every extension."""
    batch = len(expected["noise"])
    generator = torch.Generator().manual_seed(0)
    frames = FrameConditions.of(
        torch.rand(batch, 16, 4, generator=generator).sort(1).values,
        torch.rand(batch, 16, generator=generator) < 0.5,
        torch.rand(batch, generator=generator),
    )
    return Conditions(
        expected["context"],
        expected["text"],
        torch.ones(batch, 1, dtype=torch.bool),
        frames if extended else None,
    )


def _check_parity(
    network: FMvT, expected: dict[str, torch.Tensor], *, extended: bool
) -> None:
    told = _told(expected, extended=extended)
    velocity = network(expected["noise"], expected["timestep"], told)
    end = euler(lambda x, t: network(x, t, told), expected["noise"], time_grid(8))

    assert (velocity - expected["velocity"]).abs().max() < 1e-5
    assert (end - expected["euler8"]).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("extended", [False, True])
def test_published_weights_give_the_published_numbers_extensions_on_or_off(
    published: Path, expected: dict[str, torch.Tensor], extended: bool
):
    _check_parity(load_published(published), expected, extended=extended)


@torch.no_grad()
@pytest.mark.parametrize("extended", [False, True])
def test_parity_survives_the_import_into_a_package(
    published: Path, expected: dict[str, torch.Tensor], extended: bool
):
    digest = import_published(published, published.parent / "model")

    package = load_package(published.parent / "model")
    assert package.digest == digest
    _check_parity(package.network, expected, extended=extended)


@torch.no_grad()
def test_a_clip_of_the_paper_is_followed_in_the_papers_equal_steps(
    published: Path, expected: dict[str, torch.Tensor]
):
    settings = SampleSettings(steps=8, solver="euler", precision="float32")

    told = _told(expected, extended=False)
    end = draw_clips(load_published(published), expected["noise"], told, settings)
    assert (end - expected["euler8"]).abs().max() < 1e-4


def test_an_imported_model_is_one_of_the_papers_method_bound_to_nothing(
    published: Path, tmp_path: Path
):
    import_published(published, tmp_path / "model")

    known = load_package(tmp_path / "model").provenance
    card = (tmp_path / "model" / "card.md").read_text()
    assert (known.method, known.codec_id, known.encoder_id) == ("ctflow", "", "")
    assert known.latent_size == (16, 16)
    assert known.slices == 201
    assert known.spacing == (1.5, 360 / (8 * 16), 360 / (8 * 16))
    assert "the publisher does not state it" in card
    assert "any is accepted" in card


def test_an_imported_model_is_bound_to_the_codec_and_encoder_that_are_named(
    published: Path, tmp_path: Path
):
    import_published(published, tmp_path / "model", codec_id="a", encoder_id="b")

    known = load_package(tmp_path / "model").provenance
    assert (known.codec_id, known.encoder_id) == ("a", "b")


def test_an_import_overwrites_nothing(published: Path, tmp_path: Path):
    import_published(published, tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}

    for taken in (tmp_path / "model", published, published / "config.json"):
        with pytest.raises(PackageError, match="new or empty folder"):
            import_published(published, taken)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_what_cannot_be_imported_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "net").mkdir()

    with pytest.raises(PackageError, match=r"config\.json"):
        import_published(tmp_path / "net", tmp_path / "model")
    assert not (tmp_path / "model").exists()


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
