"""Volumes that lie near their own reports pass; those that do not fail."""

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from ctflow_fed.cli import cli
from ctflow_fed.ct.nifti import read_nifti
from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.evaluation.nearness import CTCLIP, nearness_figure

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pleural", "effusion", "."]
COUNT = 6
REPORTS = ["Pleural effusion. " * (number + 1) for number in range(COUNT)]


def cosines(own, *, count=40):
    """Return cosines of volumes and reports; those of a pair are around ``own``."""
    rng = np.random.default_rng(3)
    table = rng.normal(0.2, 0.1, (count, count))
    np.fill_diagonal(table, rng.normal(own, 0.1, count))
    return table


def scored(own):
    names = [str(number) for number in range(40)]
    return nearness_figure(cosines(0.5), cosines(own), (names, names), seed=0)


def test_volumes_near_their_reports_pass():
    found = scored(0.45)

    assert found.verdict == "pass"
    assert found.value.value == pytest.approx(45, abs=4)
    assert found.ceiling.value == pytest.approx(50, abs=4)
    assert found.floor.low < 20 < found.floor.high + 2


def test_volumes_as_near_to_any_report_fail():
    assert scored(0.2).verdict == "fail"


def test_a_cosine_below_zero_counts_as_zero():
    assert scored(-0.9).value.value == 0


@pytest.fixture
def ctclip(ctclip_weights, tmp_path):
    """Write a narrow CT-CLIP: the tower of images, one of text, both projections."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=16,
    )
    tower = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    folder = tmp_path / "ctclip"
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    weights = {f"text_transformer.{name}": each for name, each in tower.items()}
    projection = tower["embeddings.word_embeddings.weight"].clone()
    weights |= {**ctclip_weights, "to_text_latent.weight": projection}
    save_file(weights, folder / "model.safetensors")
    return folder


def write(folder):
    """Write scans and the table of their reports."""
    folder.mkdir()
    rng = np.random.default_rng(len(folder.name))
    with folder.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["study", "report"])
        for number in range(COUNT):
            hu = rng.normal(-500, 300, (20, 24, 24)).astype(np.int16)
            image = nibabel.Nifti1Image(hu, np.diag([2.0, 2, 3, 1]))
            nibabel.save(image, folder / f"{number}.nii.gz")
            table.writerow([number, REPORTS[number]])
    return folder


def run(real, synth, ctclip, out):
    tables = ("--reports", f"{real}.csv", "--synth-reports", f"{synth}.csv")
    command = ("evaluate", "nearness", real, synth, *tables, "--ctclip", ctclip)
    words = [str(each) for each in (*command, "--out", out)]
    return CliRunner().invoke(cli, words)


@pytest.mark.slow
def test_the_command_scores_volumes_beside_real_scans(ctclip, tmp_path):
    real, synth = write(tmp_path / "real"), write(tmp_path / "synth")

    result = run(real, synth, ctclip, tmp_path / "out")

    assert result.exit_code == 0, result.output
    (figure,) = json.loads((tmp_path / "out/nearness.json").read_text())["figures"]
    judge = CTCLIP(ctclip)
    own = [
        float(judge.volume(read_nifti(synth / f"{number}.nii.gz")) @ report)
        for number, report in enumerate(judge.reports(REPORTS))
    ]
    assert figure["n"] == COUNT
    assert figure["value"]["value"] == pytest.approx(
        np.mean([100 * max(0, cosine) for cosine in own]), abs=1e-3
    )


@pytest.mark.slow
def test_too_few_volumes_with_reports_are_refused(ctclip, tmp_path):
    real, synth = write(tmp_path / "real"), write(tmp_path / "synth")
    synth.with_suffix(".csv").write_text("study,report\n0,Pleural effusion.\n")

    result = run(real, synth, ctclip, tmp_path / "out")

    assert isinstance(result.exception, SettingsError)
    assert "got 6 and 1" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("projection", [None, torch.full((8, 768), torch.nan)])
def test_towers_without_a_projection_of_reports_are_refused(ctclip, projection):
    weights = load_file(ctclip / "model.safetensors")
    del weights["to_text_latent.weight"]
    if projection is not None:
        weights["to_text_latent.weight"] = projection
    save_file(weights, ctclip / "model.safetensors")

    with pytest.raises(PackageError, match="whole checkpoint of CT-CLIP"):
        CTCLIP(ctclip)
