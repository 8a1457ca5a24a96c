"""The quality account: what it counts is what came in, and it stays at the site."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow_fed.ct.account import StudyAccount, note
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.codec_error import codec_numbers
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MismatchError, MissingExtraError
from ctflow_fed.report.quality import quality_of, write_quality
from ctflow_fed.report.rendering import check_packages

MEASURED = {"codec_psnr": 60.0, "codec_ssim": 0.99, "codec_bias_lung": -2.0}


@pytest.fixture
def site(haar_store, tmp_path):
    """A store of three studies with the account of five."""
    folder = Path(shutil.copytree(haar_store, tmp_path / "site"))
    ids = [f"{number:032x}" for number in range(5)]
    note(
        folder, StudyAccount(ids[0], "taken", numbers={**MEASURED, "scrubbed_date": 2})
    )
    numbers = {"codec_psnr": 40.0, "codec_ssim": 0.9, "codec_bias_lung": 1.0}
    numbers |= {"codec_bias_fat": -0.004, "column_mm": 0.75}
    note(folder, StudyAccount(ids[1], "taken", numbers=numbers))
    note(folder, StudyAccount(ids[2], "corrected", "a tilt of 14 degrees was sheared"))
    note(folder, StudyAccount(ids[3], "refused", "a <slice> is missing"))
    note(folder, StudyAccount(ids[4], "refused", "a <slice> is missing"))
    return folder


def test_the_account_counts_verdicts_reasons_labels_and_what_was_scrubbed(site):
    account = quality_of(site)

    assert account.verdicts == {"taken": 2, "corrected": 1, "refused": 2}
    assert account.reasons[0] == ("refused", "a <slice> is missing", 2)
    assert account.labels["Lung nodule"] == 1
    assert sum(account.labels.values()) == 1
    assert sum(account.slices.heights) == 3
    assert sum(account.pixel_mm.heights) == 1
    assert account.pixel_mm.edges[0] < 0.75 < account.pixel_mm.edges[-1]
    assert account.scrubbed == {"date": 2}


def test_patients_are_counted_by_decade_and_sex(tmp_path, haar_store):
    folder = Path(shutil.copytree(haar_store, tmp_path / "site"))
    index = folder / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[0] |= {"age_band": "90+", "sex": "F"}
    lines[1] |= {"age_band": "60-69"}
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))

    account = quality_of(folder)
    write_quality(tmp_path / "quality.html", account)
    assert account.age_bands == {"60-69": 1, "90+": 1, "": 1}
    assert account.sexes == {"F": 1, "": 2}
    assert "<th>90+</th>" in (tmp_path / "quality.html").read_text()


def test_the_codec_is_told_with_its_mean_and_its_worst(site):
    codec = quality_of(site).codec

    assert codec["psnr"] == {"mean": 50.0, "median": 50.0, "worst": 40.0}
    assert codec["bias_lung"] == {"mean": -0.5, "median": -0.5, "worst": -2.0}
    assert "bias_bone" not in codec


def test_the_hu_of_the_store_are_counted_where_they_lie(site):
    hu = quality_of(site).hu

    shares = dict(zip(hu.edges, hu.heights, strict=False))
    assert sum(hu.heights) == pytest.approx(100, abs=0.1)
    assert shares[-900.0] + shares[-950.0] > 60  # the ground of the three balls
    assert shares[0.0] + shares[-50.0] > 5  # the balls


def test_the_page_marks_its_pictures_as_the_sites_own_and_needs_no_other_file(
    site, tmp_path
):
    write_quality(tmp_path / "quality.html", quality_of(site))

    page = (tmp_path / "quality.html").read_text()
    assert "This page stays at the site" in page
    assert page.count("data:image/png") == 6  # two windows of three studies
    assert "a &lt;slice&gt; is missing" in page
    assert "distance of columns, mm" in page
    assert not re.search(r"-0(\.0+)?<", page)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_the_json_says_the_same_without_pictures(site, tmp_path):
    write_quality(tmp_path / "quality.html", quality_of(site))

    saved = json.loads((tmp_path / "quality.json").read_text())
    assert saved["verdicts"] == {"taken": 2, "corrected": 1, "refused": 2}
    assert len(saved["studies"]) == 5
    assert "views" not in saved
    assert "data:image" not in json.dumps(saved)


@pytest.mark.parametrize(("module", "package"), [("jinja2",) * 2, ("PIL", "pillow")])
def test_what_a_page_lacks_is_told_before_the_work(monkeypatch, module, package):
    check_packages()

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*ctflow-fed\[report\]"):
        check_packages()


def test_a_store_of_another_codec_is_refused(site, monkeypatch):
    class Other(HaarCodec):
        def __init__(self):
            super().__init__()
            self.codec_id = "another"

    monkeypatch.setattr("ctflow_fed.report.quality.codec_named", lambda _: Other())
    with pytest.raises(MismatchError, match="another codec"):
        quality_of(site)


class Shifting(HaarCodec):
    """A codec whose voxels come out 10 HU too high."""

    def decode(self, latents):
        return super().decode(latents) + 10


def test_the_error_of_a_codec_is_measured_in_hu():
    hu = np.full((16, 32, 32), -700, np.int16)
    hu[:, 8:24, 8:24] = 40
    volume = CTVolume(hu, np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])

    exact, shifted = (
        codec_numbers(codec, volume) for codec in (HaarCodec(), Shifting())
    )
    assert exact["codec_psnr"] > 90
    assert exact["codec_ssim"] == pytest.approx(1, abs=1e-4)
    assert shifted["codec_psnr"] == pytest.approx(20 * np.log10(200), abs=0.05)
    assert shifted["codec_bias_lung"] == pytest.approx(10, abs=0.1)
    assert shifted["codec_bias_soft"] == pytest.approx(10, abs=0.1)
    assert "codec_bias_bone" not in shifted


def test_noise_costs_similarity():
    class Noisy(HaarCodec):
        def decode(self, latents):
            noise = torch.Generator().manual_seed(0)
            hu = super().decode(latents)
            return hu + 100 * torch.randn(hu.shape, generator=noise)

    volume = CTVolume(
        np.zeros((16, 32, 32), np.int16), np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    )
    assert codec_numbers(Noisy(), volume)["codec_ssim"] < 0.5
