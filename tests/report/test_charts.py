import re

import pytest

from ctflow_fed.evaluation import Interval
from ctflow_fed.report.charts import Bar, curve, forest


def circles(svg, kind):
    found = re.findall(rf'<circle class="{kind}" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_a_curve_goes_to_the_right_and_higher_values_are_higher():
    dots = circles(curve([3.0, 1.0, 2.0], x_title="round", y_title="loss"), "dot")

    across, down = zip(*dots, strict=True)
    assert list(across) == sorted(across)
    assert down[0] < down[2] < down[1]


def test_a_curve_shows_its_values_and_its_titles():
    svg = curve([0.5], x_title="round", y_title="loss")

    assert ">0.5<" in svg
    assert 'aria-label="loss over round"' in svg


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-4, 2e-4], [7.9, 7.9], [-1.0, 2.0]])
def test_a_curve_of_any_values_stays_on_its_paper(values):
    for x, y in circles(curve(values, x_title="x", y_title="y"), "dot"):
        assert 0 <= x <= 640
        assert 0 <= y <= 260


def test_a_mark_lies_inside_its_interval():
    svg = forest([Bar("a", Interval(0.6, 0.5, 0.8), "real")], reference=0.5, x_title="")

    low, high = re.search(
        r'class="range" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', svg
    ).groups()
    ((mark, _),) = circles(svg, "mark")
    assert (mark - float(low)) * 2 == pytest.approx(float(high) - mark, abs=0.4)


def test_names_in_a_chart_are_text_and_never_markup():
    svg = forest([Bar("<b>", Interval(0, 0, 0), "real")], reference=0.0, x_title="&")

    assert "<b>" not in svg
    assert "&lt;b&gt;" in svg
