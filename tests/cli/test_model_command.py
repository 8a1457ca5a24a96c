"""``ctflow model import``: a package of the released network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest
from click.testing import CliRunner

from ctflow_fed.cli import cli
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.model import load_package


@pytest.fixture
def published(shared: Path, tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    for path in (shared / "reference" / "ctflow_stdit_tiny").iterdir():
        shutil.copyfile(path, tmp_path / "net" / path.name)
    return tmp_path / "net"


def run(*arguments: object):
    return CliRunner().invoke(
        cli, [str(each) for each in arguments], catch_exceptions=False
    )


def refused(*arguments: object) -> str:
    """Run ``ctflow`` in a process of its own and return its one sentence."""
    command = [sys.executable, "-m", "ctflow_fed", *(str(each) for each in arguments)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_published_folder_becomes_a_package_that_names_no_codec(
    published: Path, tmp_path: Path
):
    result = run("model", "import", published, tmp_path / "model")

    package = load_package(tmp_path / "model")
    assert result.exit_code == 0
    assert package.digest[:12] in result.output
    assert package.provenance.method == "ctflow"
    assert (package.provenance.codec_id, package.provenance.encoder_id) == ("", "")


def test_a_package_can_be_bound_to_a_codec_and_an_encoder(
    published: Path, tmp_path: Path
):
    bound = ("--codec", "haar", "--encoder", "hashing")
    run("model", "import", published, tmp_path / "model", *bound)

    known = load_package(tmp_path / "model").provenance
    assert known.codec_id == HaarCodec().codec_id
    assert known.encoder_id == HashingReportEncoder().encoder_id


def test_an_imported_model_samples_with_the_plan_of_the_paper(
    published: Path, tmp_path: Path
):
    run("model", "import", published, tmp_path / "model")
    out = tmp_path / "drawn.nii.gz"

    options = ("--slices", 20, "--steps", 2, "--out", out)
    result = run("sample", tmp_path / "model", "--report", "Emphysema.", *options)

    assert result.exit_code == 0
    assert sorted(nibabel.load(out).shape) == [20, 64, 64]


def test_an_import_overwrites_no_package(published: Path, tmp_path: Path):
    run("model", "import", published, tmp_path / "model")
    before = (tmp_path / "model" / "provenance.json").read_bytes()

    sentence = refused("model", "import", published, tmp_path / "model")
    assert "new or empty folder" in sentence
    assert (tmp_path / "model" / "provenance.json").read_bytes() == before


def test_another_network_is_refused_with_a_sentence(published: Path, tmp_path: Path):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"_class_name": "UNet"}))

    assert "DiffuserSTDiT" in refused("model", "import", published, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "wrong", [("--codec", "harr"), ("--encoder", "class:no/such/folder")]
)
def test_a_codec_or_encoder_that_is_none_is_refused_before_anything_is_written(
    published: Path, tmp_path: Path, wrong: tuple[str, str]
):
    sentence = refused("model", "import", published, tmp_path / "model", *wrong)

    assert "got none of them" in sentence
    assert not (tmp_path / "model").exists()
