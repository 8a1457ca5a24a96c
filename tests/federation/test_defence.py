from dataclasses import replace

import pytest

from ctflow_fed.ct.store import StoreHeader
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import RoundOrder, check_receipt, outliers, receipt
from ctflow_fed.model import PRESETS
from ctflow_fed.training import TrainSettings

HEADER = StoreHeader("codec", "encoder", 16, 8, 8)
ORDER = RoundOrder(
    round_number=3,
    steps=2,
    seed=0,
    training=TrainSettings(),
    network=PRESETS["nano"],
    manifest="0" * 64,
    start="1" * 64,
    job="2" * 64,
    sites=2,
)


def test_an_answer_to_its_order_is_taken():
    check_receipt(receipt(ORDER, "a", HEADER), ORDER, "a", HEADER)


@pytest.mark.parametrize(
    ("answered", "site", "header", "named"),
    [
        (replace(ORDER, round_number=2), "a", HEADER, "round"),
        (replace(ORDER, start="2" * 64), "a", HEADER, "start"),
        (ORDER, "b", HEADER, "site"),
        (ORDER, "a", replace(HEADER, codec_id="x"), "codec"),
        (ORDER, "a", replace(HEADER, encoder_id="x"), "encoder"),
    ],
)
def test_an_answer_to_something_else_is_refused_by_what_differs(
    answered, site, header, named
):
    stale = receipt(answered, site, header)

    with pytest.raises(UpdateError, match=f"another {named};"):
        check_receipt(stale, ORDER, "a", HEADER)


def test_an_answer_of_another_version_is_refused():
    other = {**receipt(ORDER, "a", HEADER), "version": "9.9.9"}

    with pytest.raises(UpdateError, match="another version;"):
        check_receipt(other, ORDER, "a", HEADER)


def test_an_update_that_moved_too_far_is_named_among_three():
    assert set(outliers({"a": 1.0, "b": 1.2, "c": 5.9}, [])) == set()
    assert set(outliers({"a": 1.0, "b": 1.2, "c": 6.1}, [])) == {"c"}


def test_one_site_alone_and_two_that_disagree_are_not_judged_at_first():
    assert outliers({"a": 1e6}, []) == {}
    assert outliers({"a": 1e-6, "b": 1e6}, []) == {}
    assert outliers({}, []) == {}


def test_earlier_rounds_judge_one_site_and_two():
    assert set(outliers({"a": 6.0}, [1.0])) == set()
    assert set(outliers({"a": 6.0}, [1.0, 1.0])) == {"a"}
    assert set(outliers({"a": 1.0, "b": 6.0}, [1.0, 1.0])) == {"b"}


def test_an_update_that_hardly_moves_gets_no_other_refused():
    earlier = [1.0, 0.0, 1.0, 0.0]

    assert outliers({"a": 1.0, "b": 0.0}, earlier) == {}
