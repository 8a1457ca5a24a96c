import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import StoreError, VolumeError
from ctflow_fed.evaluation import Evaluation, Figure, Interval
from ctflow_fed.report import show, volumes_in, write_overview
from tests.report.browser import (
    chest,
    needs_browser,
    screenshot,
    shows_a_chest,
    viewer_rows,
)
from tests.report.conftest import utility_with
from tests.report.test_page import Reader, words_of


def figure(verdict, part="lung window"):
    return Figure(
        name="fd_3d",
        part=part,
        n=20,
        value=Interval(41.0, 37.0, 46.0),
        floor=Interval(22.0, 17.0, 30.0),
        convention="not above the floor",
        verdict=verdict,
        method="Fréchet distance",
    )


def page_of(run, shown=()):
    write_overview(run / "page.html", run, shown)
    return (run / "page.html").read_text(encoding="utf-8")


def own_words(page):
    """The page without its programs."""
    return words_of(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


@pytest.fixture
def volumes(tmp_path):
    for side in ("real", "synthetic"):
        (tmp_path / side).mkdir()
        write_nifti(chest(10), tmp_path / side / "patient-name.nii.gz")
    return [
        each
        for side in ("real", "synthetic")
        for each in show(volumes_in(tmp_path / side), side)
    ]


def test_what_nobody_measured_is_said_to_be_not_measured(tmp_path):
    words = own_words(page_of(tmp_path))

    assert "Of 6 questions 0 passed, 0 failed, 6 not measured" in words
    assert "ctflow evaluate fidelity REAL SYNTHETIC" in words


def test_one_figure_that_fails_fails_the_question(tmp_path):
    figures = [figure("pass"), figure("fail", part="bone window")]
    Evaluation("fidelity", figures, {"real": 20}).save(tmp_path / "found.json")

    words = own_words(page_of(tmp_path))

    assert "0 passed, 1 failed, 5 not measured" in words
    assert "41 (37 to 46)" in words
    assert "not above the floor" in words


def test_a_gain_over_real_and_over_copies_answers_the_question_of_use(tmp_path):
    result = utility_with((0.05, 0.01, 0.09), (0.04, 0.005, 0.08))
    (tmp_path / "utility.json").write_text(json.dumps(asdict(result)))

    assert "1 passed, 0 failed, 5 not measured" in own_words(page_of(tmp_path))


def test_a_trial_of_use_is_known_by_what_it_holds_and_not_by_its_name(tmp_path):
    Evaluation("utility", [figure("fail")], {}).save(tmp_path / "utility.json")

    assert "0 passed, 1 failed, 5 not measured" in own_words(page_of(tmp_path))


def test_words_of_a_result_are_words_and_no_markup(tmp_path):
    hostile = figure("pass", part="<script>alert(1)</script>")
    Evaluation("fidelity", [hostile], {"a": "</pre><b>"}).save(tmp_path / "found.json")

    page = page_of(tmp_path)

    assert "<script>alert(1)" not in page
    assert "</pre><b>" not in page
    assert Reader(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)).open == []


def test_the_page_forbids_itself_every_address(tmp_path, volumes):
    page = page_of(tmp_path, volumes)

    assert "default-src 'none'" in page
    assert all(
        each.startswith(("data:image/png", "#")) for each in Reader(page).references
    )


def test_no_file_name_of_a_volume_is_on_the_page(tmp_path, volumes):
    assert "patient-name" not in page_of(tmp_path, volumes)


def test_losses_of_training_are_drawn_and_a_torn_line_is_left_out(tmp_path):
    lines = [json.dumps({"step": n, "loss": 1 / n}) for n in range(1, 101)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + '\n{"step": 101, "lo')

    page = page_of(tmp_path)

    assert "steps 100 mean loss at first" in own_words(page)
    assert "<polyline" in page


def test_a_part_that_is_broken_is_named_and_the_rest_is_shown(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "provenance.json").write_text("{}")
    (tmp_path / "train.jsonl").write_text('{"step": 1, "loss": 0.5}\n')

    words = own_words(page_of(tmp_path))

    assert "provenance.json of a model package has other keys than ours" in words
    assert "mean loss at first" in words


@pytest.mark.parametrize(
    "content", ["{", '{"kind": "fidelity", "schema": 1, "figures": [{"name": 1}]}']
)
def test_a_result_that_is_none_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "found.json").write_text(content)

    with pytest.raises(StoreError, match=r"^expected .*; .*again"):
        page_of(tmp_path)


def test_a_folder_without_volumes_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="expected a folder of NIfTI volumes"):
        volumes_in(tmp_path)


def test_a_large_volume_is_averaged_down_in_its_place(tmp_path):
    volume = CTVolume(
        np.repeat(chest().hu, 4, axis=0),
        np.diag([6.0, -6.0, 1.5, 1.0])[:, [2, 1, 0, 3]],
    )
    write_nifti(volume, tmp_path / "long.nii.gz")

    (shown,) = show(volumes_in(tmp_path), "real")

    assert shown.size == "160 x 48 x 48, shown as 80 x 48 x 48"


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_both_sides_in_three_planes(tmp_path, volumes):
    page_of(tmp_path, volumes)

    grey = screenshot(tmp_path / "page.html")

    rows = viewer_rows(grey)
    for side in np.split(grey[rows], 2, axis=1):
        assert shows_a_chest(side)
