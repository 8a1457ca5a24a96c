import json

import pytest

from ctflow_fed.augment import GenerateSettings, Job, PlanSettings, plan
from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.errors import CTFlowError, ReportTableError, SettingsError

WHOLE = """
[plan]
target = { Bronchiectasis = 2, "Lung nodule" = 1 }
datalist = "train.json"
ratio = 2
seed = 3
slices = 8

[generate]
model = "package"
out = "set"
workers = 0
steps = 1
guidance = 2
"""


@pytest.fixture
def train(tmp_path):
    """Four items, in the file of a datalist."""
    items = [
        {
            "image": "a.nii.gz",
            "label": [float(name == "Emphysema") for name in FINDINGS],
        }
    ] * 4
    (tmp_path / "train.json").write_text(json.dumps({"training": items}))
    return items


def test_every_folder_of_a_job_is_beside_it(tmp_path):
    (tmp_path / "job.toml").write_text(
        '[generate]\ngate = "any"\ncopies = "site.index"\ncodec = "released:vae"\n'
        'encoder = "texts"'
    )

    settings = Job.from_toml(tmp_path / "job.toml").settings

    assert settings.copies == tmp_path / "site.index"
    assert settings.codec == f"released:{tmp_path / 'vae'}"
    assert settings.encoder == str(tmp_path / "texts")


def test_the_shipped_model_is_no_folder_beside_the_job(tmp_path):
    (tmp_path / "job.toml").write_text('[generate]\nmodel = "base"')

    assert Job.from_toml(tmp_path / "job.toml").model == "base"


@pytest.mark.usefixtures("train")
def test_a_job_is_read_with_paths_relative_to_its_file(tmp_path):
    (tmp_path / "job.toml").write_text(WHOLE)

    job = Job.from_toml(tmp_path / "job.toml")

    assert (job.model, job.out) == (tmp_path / "package", tmp_path / "set")
    assert job.workers == 0
    assert job.settings == GenerateSettings(steps=1, guidance=2)


def test_a_job_makes_the_plan_that_its_arguments_make(tmp_path, train):
    (tmp_path / "job.toml").write_text(WHOLE)

    made = Job.from_toml(tmp_path / "job.toml").plan.make()

    target = {"Bronchiectasis": 2, "Lung nodule": 1}
    assert made == plan(train, target=target, ratio=2, seed=3, slices=8)
    assert len(made) == 8


def test_the_test_part_of_a_datalist_is_what_is_excluded(tmp_path, train):
    parts = {"training": train, "test": [{"report": "A nodule."}]}
    (tmp_path / "all.json").write_text(json.dumps(parts))
    (tmp_path / "reports.txt").write_text("Emphysema.\na  Nodule.\n")
    settings = PlanSettings(
        datalist=tmp_path / "all.json",
        exclude=tmp_path / "all.json",
        reports=tmp_path / "reports.txt",
    )

    with pytest.raises(ReportTableError, match="excluded item, got 1"):
        settings.make()


@pytest.mark.parametrize("value", ["{", '{"training": 3}', "[1]", '{"test": []}'])
def test_a_datalist_that_is_none_is_refused(tmp_path, value):
    (tmp_path / "train.json").write_text(value)
    (tmp_path / "job.toml").write_text(WHOLE)

    with pytest.raises(CTFlowError, match="expected a datalist"):
        Job.from_toml(tmp_path / "job.toml").plan.make()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[plan", "cannot be read"),
        ("[plans]", "a job may have the tables plan, generate"),
        ("plan = 3", r"expected \[plan\] to be a table"),
        ("[plan]\ntargets = 3", r"\[plan\] may have the names target, datalist"),
        ("[plan]\ntarget = 3", r"target of \[plan\] has a value of another kind"),
        ("[plan]\nslices = true", r"slices of \[plan\]"),
        ("[plan]\nslices = 8.5", r"slices of \[plan\]"),
        ("[plan.target]\nEmphysema = 'x'", "whole number"),
        ("[generate]\nplans = 'x'", r"\[generate\] may have the names"),
        ("[generate]\nsteps = 'x'", r"steps of \[generate\]"),
        ("[generate]\nbatch = 0", "1 to 1024"),
    ],
)
def test_a_job_with_anything_else_is_refused_in_a_sentence(tmp_path, text, sentence):
    (tmp_path / "job.toml").write_text(text)

    with pytest.raises(SettingsError, match=sentence):
        Job.from_toml(tmp_path / "job.toml")
