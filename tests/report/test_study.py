"""The page of a reading study, as a reader's browser shows it."""

import numpy as np
import pytest

from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.evaluation.reading_study import Case
from ctflow_fed.evaluation.scans import scans_of
from ctflow_fed.report.study import write_study_page
from tests.report.browser import (
    chest,
    needs_browser,
    screenshot,
    shows_a_chest,
    viewer_rows,
)

SHOW_THE_SECOND = """<script>
setTimeout(() => document.querySelectorAll("button[data-show]")[1].click(), 8000);
</script>"""


@pytest.fixture
def page(tmp_path):
    """A page of two cases: nothing but air, and a chest."""
    air = CTVolume(np.full_like(chest().hu, -1000), chest().affine)
    (tmp_path / "scans").mkdir()
    for name, volume in (("a", air), ("b", chest())):
        write_nifti(volume, tmp_path / "scans" / f"{name}.nii.gz")
    first, second = scans_of(tmp_path / "scans")
    cases = [Case("real", first, "Air."), Case("synthetic", second, "A chest.")]
    write_study_page(tmp_path / "study.html", cases)
    return tmp_path / "study.html"


@pytest.mark.slow
@needs_browser
def test_a_case_is_shown_slice_by_slice_once_it_is_asked_for(page):
    assert not shows_a_chest(seen(page))

    text = page.read_text(encoding="utf-8")
    end = text.rindex("</body>")
    page.write_text(text[:end] + SHOW_THE_SECOND + text[end:], encoding="utf-8")

    assert shows_a_chest(seen(page))


def seen(page):
    """What the viewer shows of a page."""
    grey = screenshot(page)
    return grey[viewer_rows(grey)]
