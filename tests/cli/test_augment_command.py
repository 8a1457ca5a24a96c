from pathlib import Path

import pytest
from click.testing import CliRunner

from ctflow_fed.augment import Plan, SynthStore, plan
from ctflow_fed.cli.augment import command
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import CTFlowError, SettingsError
from ctflow_fed.model import FMvTConfig, fresh_network, save_package
from ctflow_fed.training import describe

GIVEN = "Mild bronchiectasis on the left."


@pytest.fixture
def haar_model(haar_store, tmp_path) -> Path:
    """A network that has learnt nothing yet, of 32 x 32 pixels."""
    network = fresh_network(FMvTConfig(layers=1, features=16, heads=2), seed=0)
    provenance = describe(LatentStore.open(haar_store), steps=0, seed=0)
    save_package(tmp_path / "model", network, provenance)
    return tmp_path / "model"


def invoke(*arguments) -> str:
    """Run ``ctflow augment`` and return what it prints."""
    result = CliRunner().invoke(command, [str(each) for each in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_plan_writes_what_it_says(tmp_path):
    out = tmp_path / "plan.json"

    said = invoke(
        "plan",
        *("--target", "Bronchiectasis=3", "--target", "Lung nodule=2"),
        *("--slices", 8, "--seed", 5, "--out", out),
    )

    expected = plan(target={"Bronchiectasis": 3, "Lung nodule": 2}, slices=8, seed=5)
    assert Plan.load(out) == expected
    assert said == expected.describe() + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", f"{GIVEN}\n\n"),
        ("a.csv", f"study,findings,impression\n1,{GIVEN},\n"),
        ("a.csv", f'study,report,age\na,"{GIVEN}",44\n'),
    ],
)
def test_reports_are_read_from_a_table_or_a_text(tmp_path, name, content):
    (tmp_path / name).write_text(content)

    invoke("plan", "--reports", tmp_path / name, "--out", tmp_path / "plan.json")

    (request,) = Plan.load(tmp_path / "plan.json").requests
    assert (request.report, request.source) == (GIVEN, "given")


def test_the_settings_of_the_sampler_may_be_chosen(tmp_path, haar_model):
    plan(target={"Emphysema": 1}, slices=8).save(tmp_path / "plan.json")

    invoke(
        *("run", tmp_path / "plan.json", "--model", haar_model, "--workers", 0),
        *("--plan", "autoregressive", "--guidance", 2, "--steps", 3, "--solver"),
        *("heun", "--batch-clips", 2, "--out", tmp_path / "set"),
    )

    sampling = SynthStore(tmp_path / "set").header.origin.sampling
    assert sampling["plan"] == "autoregressive"
    assert (sampling["steps"], sampling["solver"]) == (3, "heun")
    assert sampling["guidance"] == 2.0


@pytest.mark.parametrize("wrong", [("--steps", 0), ("--plan", "magic")])
def test_settings_that_are_none_are_refused_and_nothing_written(
    tmp_path, haar_model, wrong
):
    plan(target={"Emphysema": 1}, slices=8).save(tmp_path / "plan.json")
    words = ("run", tmp_path / "plan.json", "--model", haar_model, "--workers", 0)

    with pytest.raises(SettingsError):
        invoke(*words, *wrong, "--out", tmp_path / "set")

    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "Bronchiectasis"),
        ("--target", "=3"),
        ("--target", "Bronchiectasis=-3"),
        ("--target", "Bronchiectasis=³"),
        ("--reports", "absent.csv"),
        ("--reports", "labels.csv"),
        ("--reports", "empty.csv"),
        (),
    ],
)
def test_what_cannot_be_planned_is_refused_and_nothing_written(
    tmp_path, monkeypatch, arguments
):
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("study,Bronchiectasis\n1,1\n")
    Path("empty.csv").write_text("study,findings\n1,Emphysema.\n2,\n")

    with pytest.raises(CTFlowError):
        invoke("plan", *arguments, "--out", "plan.json")

    assert not Path("plan.json").exists()
