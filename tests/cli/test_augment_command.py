import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from ctflow_fed.augment import Plan, SynthStore, plan
from ctflow_fed.augment.shard import Shard
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


JOB = """
[plan]
target = { Emphysema = 2 }
slices = 8

[generate]
model = "model"
out = "set"
workers = 0
steps = 1
"""


def test_a_job_is_run_from_its_file_and_options_go_before_it(tmp_path, haar_model):
    (tmp_path / "job.toml").write_text(JOB)

    said = invoke("run", tmp_path / "job.toml", "--shard", "2/2", "--steps", 2)
    whole = invoke("run", tmp_path / "job.toml", "--out", tmp_path / "other")

    assert "1 of 2 volumes" in said
    assert "2 of 2 volumes" in whole
    steps = [
        SynthStore(tmp_path / name).header.origin.sampling["steps"]
        for name in ("set", "other")
    ]
    assert steps == [2, 1]


def test_a_plan_without_a_model_or_a_folder_is_not_drawn(tmp_path):
    plan(target={"Emphysema": 1}, slices=8).save(tmp_path / "plan.json")

    with pytest.raises(SettingsError, match="name them with --model and --out"):
        invoke("run", tmp_path / "plan.json", "--workers", 0)


def test_status_watches_a_run_to_its_end(tmp_path, haar_model, monkeypatch):
    (tmp_path / "job.toml").write_text(JOB)
    invoke("run", tmp_path / "job.toml", "--shard", "1/2")
    monkeypatch.setattr("ctflow_fed.cli.augment.PAUSE", 0.1)
    store = SynthStore(tmp_path / "set")

    with ThreadPoolExecutor(1) as other:
        with store.runs.going_on(Shard(2, 2)):
            found = json.loads(invoke("status", tmp_path / "set", "--json"))
            watching = other.submit(invoke, "status", tmp_path / "set", "--watch")
            time.sleep(0.5)
            ended = watching.done()
        said = watching.result(timeout=120)

    assert (found["runs"], found["done"], found["planned"]) == (1, 1, 2)
    assert not ended
    assert "1 run goes on, no volume is drawn yet" in said
    assert said.count("no run goes on") == 1
