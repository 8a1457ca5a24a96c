"""Answers that no honest site of this round would give: none is counted or crashes."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from ctflow_fed.ct.store import StoreHeader
from ctflow_fed.errors import CTFlowError
from ctflow_fed.federation import (
    RAW,
    Depot,
    RoundOrder,
    SiteFacts,
    arrays_digest,
    manifest_digest,
    manifest_of,
    norm_of,
    pack,
    receipt,
)
from ctflow_fed.model import PRESETS
from ctflow_fed.training import TrainSettings
from server.strategy import facts_in, loss_in, sort_replies, update_in

START = {"a": np.float32([[1, -2, 3], [4, 5, -6]]), "b": np.float32([0.5])}
HEADER = StoreHeader("codec", "encoder", 16, 8, 8)
FACTS = SiteFacts(
    site="a", header=HEADER, studies=3, slices=90, spacing=(1.0, 1.0, 1.0)
)
ORDER = RoundOrder(
    round_number=7,
    steps=2,
    seed=0,
    training=TrainSettings(),
    network=PRESETS["nano"],
    manifest=manifest_digest(manifest_of(START)),
    start=arrays_digest(START),
    job="0" * 64,
    sites=3,
)
DEPOT = Depot(Path("shards"), Path("arrived"))
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Answer:
    """An answer to train, part by part; ``None`` leaves a part out."""

    receipt: object
    arrays: object
    metrics: object

    def message(self) -> Message:
        parts = {
            "receipt": self.receipt,
            "arrays": self.arrays,
            "metrics": self.metrics,
        }
        kept = {name: part for name, part in parts.items() if part is not None}
        return Message(RecordDict(kept), 1, "train")


def arrays(**changes) -> ArrayRecord:
    """Return the arrays of an update; a change of ``None`` leaves one out."""
    wire = {
        name: Array(each.dtype, each.shape, RAW, each.data)
        for name, each in pack(START).items()
    }
    changed = {**wire, **changes}
    return ArrayRecord({name: each for name, each in changed.items() if each})


def coded(precision, data) -> ArrayRecord:
    """Return the arrays of a change of nothing but ``data`` in place of `a`."""
    zeros = {name: np.zeros_like(value) for name, value in START.items()}
    wire = {
        name: Array(each.dtype, each.shape, RAW, each.data)
        for name, each in pack(zeros, precision).items()
    }
    return ArrayRecord({**wire, "a": Array(precision, (2, 3), RAW, data)})


def array(values=START["a"], dtype="float32", shape=None, data=None) -> Array:
    values = np.asarray(values, np.float32)
    data = values.tobytes() if data is None else data
    return Array(dtype, values.shape if shape is None else shape, RAW, data)


def receipts(**changes) -> ConfigRecord:
    changed = {**receipt(ORDER, "a", HEADER), **changes}
    return ConfigRecord({k: value for k, value in changed.items() if value is not None})


def metrics(kind=MetricRecord, **changes) -> MetricRecord:
    honest = {"num-examples": 90, "loss-first": 1.0, "loss-last": 0.5, "loss": 0.7}
    changed = {**honest, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return kind({name: value for name, value in changed.items() if value is not None})


HONEST = {"receipt": receipts(), "arrays": arrays(), "metrics": metrics()}

BAD_RECEIPTS = [
    *(receipts(**{key: None}) for key in HONEST["receipt"]),
    *(receipts(**{key: "x"}) for key in HONEST["receipt"]),
    *(receipts(**{key: ["x"] * 3}) for key in HONEST["receipt"]),
    *(receipts(round=number) for number in (6, 8, 0, -7, 2**62, 7.0, True)),
    receipts(start=ORDER.start.upper() + " "),
    receipts(start=b"\x00" * 64),
    receipts(site="a" * 100_000),
    receipts(site="../../etc"),
    ConfigRecord({}),
    None,
    MetricRecord({"round": 7}),
    arrays(),
]
BAD_ARRAYS = [
    None,
    ArrayRecord({}),
    ConfigRecord({"a": b"\x00" * 24}),
    metrics(),
    arrays(a=None),
    arrays(c=array()),
    arrays(a=None, A=array()),
    arrays(**{"a": None, "../a": array()}),
    *(
        arrays(a=array(dtype=kind))
        for kind in ("float64", "int32", "bfloat16", "object", "<f4", "", "O" * 9999)
    ),
    *(
        arrays(a=array(shape=shape))
        for shape in ((3, 2), (6,), (), (2, 3, 1), (-2, -3), (2**40, 2**40), (0, 3))
    ),
    *(
        arrays(a=array(data=data))
        for data in (b"", b"\x00" * 23, b"\x00" * 25, b"\x80\x04" * 500, b"PK" * 12000)
    ),
    *(
        arrays(a=array(np.full((2, 3), bad)))
        for bad in (np.nan, np.inf, -np.inf, FLOAT_MAX, -FLOAT_MAX, 1e6)
    ),
    arrays(b=array([np.nan])),
    arrays(b=array([-np.inf])),
    arrays(b=array([FLOAT_MAX])),
    arrays(a=array(START["a"] * 1000), b=array(START["b"] * 1000)),
    arrays(a=array(START["a"] * -11), b=array(START["b"] * -11)),
]
NAN, INFINITE, HUGE = (
    np.float32([value]).tobytes() for value in (np.nan, np.inf, 3e38)
)
BAD_CODES = [  # of `a`, whose 6 values are one block
    *(("int8", data) for data in (b"", b"\x00" * 9, b"\x00" * 11, b"\x00" * 260)),
    ("int8", NAN + b"\x00" * 6),
    ("int8", INFINITE + b"\x00" * 6),
    ("int8", b"\x00\x00\x80\xff" + b"\x01" * 6),
    ("int8", HUGE + b"\x7f" * 6),
    ("int8", np.float32([1e6]).tobytes() + b"\x7f" * 6),
    *(("bfloat16", data) for data in (b"", b"\x00" * 11, b"\x00" * 24)),
    ("bfloat16", b"\xc0\x7f" * 6),
    ("bfloat16", b"\x80\x7f" * 6),
    ("bfloat16", b"\x80\xff" * 6),
    ("bfloat16", b"\x7f\x7f" * 6),
]
BAD_COUNTS = [None, 0, -90, 89, 91, 90.5, 10**18, float("nan"), float("inf"), [90] * 2]
BAD_LOSSES = [None, -1.0, float("nan"), float("inf"), 1e300, -(10**18), [0.5]]
BAD_METRICS = [
    None,
    ConfigRecord({"num-examples": 90, "loss-first": 1.0, "loss-last": 0.5}),
    MetricRecord({}),
    *(metrics(num_examples=count) for count in BAD_COUNTS),
    *(metrics(loss_first=loss) for loss in BAD_LOSSES),
    *(metrics(loss_last=loss) for loss in BAD_LOSSES),
]
BAD_UPDATES = [
    *(Answer(**{**HONEST, "receipt": bad}) for bad in BAD_RECEIPTS),
    *(Answer(**{**HONEST, "arrays": bad}) for bad in BAD_ARRAYS),
    *(Answer(**{**HONEST, "metrics": bad}) for bad in BAD_METRICS),
    Answer(None, None, None),
]
BAD_FACTS = [
    {"version": "0.0.0"},
    {"version": 1},
    {"site": "b/../a"},
    {"site": "a" * 10**6},
    {"site": ["a"]},
    {"header": "{"},
    {"header": "[" * 100_000},
    {"header": json.dumps({"codec_id": "codec"})},
    {"header": json.dumps({"codec_id": 10**400})},
    {"header": b"\xff\xfe"},
    {"slices": 10**18},
    {"slices": -1},
    {"slices": "90"},
    {"studies": 91},
    {"spacing": [float("nan")] * 3},
    {"spacing": [-1.0, 1.0, 1.0]},
    {"spacing": [1.0] * 10_000},
    {"spacing": "111"},
]


@pytest.fixture(autouse=True)
def _flower(direct_grid):
    direct_grid({})  # messages can be made from now on


def update(content, site, precision="float32"):
    return update_in(content, site, START, norm_of(START), precision, DEPOT)


def read_loss(content, site):
    return loss_in(content)


def sort(answer, read):
    return sort_replies({"a": answer.message()}, ORDER, {"a": FACTS}, read)


def check_reason(reason):
    assert 20 < len(reason) < 400
    assert reason.isprintable()


def test_an_honest_answer_is_taken():
    heard = sort(Answer(**HONEST), update)

    assert (heard.refused, heard.wrong) == ({}, frozenset())
    assert heard.taken["a"].moved == 0.0
    assert sort(Answer(**HONEST), read_loss).taken == {"a": 0.7}


def test_there_are_more_than_a_hundred_broken_answers():
    assert len(BAD_UPDATES) + len(BAD_LOSSES) + len(BAD_FACTS) > 100


@pytest.mark.parametrize("answer", BAD_UPDATES, ids=range(len(BAD_UPDATES)))
def test_a_broken_update_is_refused_with_a_reason(answer):
    heard = sort(answer, update)

    assert heard.taken == {}
    assert heard.wrong == {"a"}
    check_reason(heard.refused["a"])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_an_honest_change_is_taken_as_what_the_start_becomes(precision):
    change = {name: np.full_like(value, 0.25) for name, value in START.items()}
    wire = {
        name: Array(each.dtype, each.shape, RAW, each.data)
        for name, each in pack(change, precision).items()
    }
    answer = Answer(**{**HONEST, "arrays": ArrayRecord(wire)})

    taken = sort(answer, partial(update, precision=precision)).taken["a"]
    assert np.allclose(taken.arrays["a"], START["a"] + 0.25)
    assert taken.moved == pytest.approx(0.25 * 7**0.5 / norm_of(START))


@pytest.mark.parametrize(("precision", "data"), BAD_CODES, ids=range(len(BAD_CODES)))
def test_broken_codes_are_refused_with_a_reason(precision, data):
    answer = Answer(**{**HONEST, "arrays": coded(precision, data)})

    heard = sort(answer, partial(update, precision=precision))
    assert (heard.taken, heard.wrong) == ({}, {"a"})
    check_reason(heard.refused["a"])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_another_precision_than_that_of_the_round_is_refused(precision):
    zeros = coded(precision, b"\x00" * {"bfloat16": 12, "int8": 10}[precision])
    others = {"float32", "bfloat16", "int8"} - {precision}

    for asked in others:
        for sent in (HONEST["arrays"], zeros):
            if sent is zeros or asked != "float32":
                answer = Answer(**{**HONEST, "arrays": sent})
                heard = sort(answer, partial(update, precision=asked))
                assert (heard.taken, heard.wrong) == ({}, {"a"})
    honest = Answer(**{**HONEST, "arrays": zeros})
    assert sort(honest, partial(update, precision=precision)).taken["a"].moved == 0


def test_a_site_that_lacks_what_it_was_sent_is_refused_but_not_wrong():
    message = Message(RecordDict({"lacking": ConfigRecord({"site": "a"})}), 1, "train")

    heard = sort_replies({"a": message}, ORDER, {"a": FACTS}, read_loss)
    assert "although all were sent" in heard.refused["a"]
    assert (heard.taken, heard.wrong) == ({}, frozenset())


@pytest.mark.parametrize("loss", BAD_LOSSES, ids=range(len(BAD_LOSSES)))
def test_a_broken_loss_is_refused_with_a_reason(loss):
    heard = sort(Answer(**{**HONEST, "metrics": metrics(loss=loss)}), read_loss)

    assert heard.taken == {}
    assert heard.wrong == {"a"}
    check_reason(heard.refused["a"])


@pytest.mark.parametrize("change", BAD_FACTS, ids=range(len(BAD_FACTS)))
def test_broken_facts_are_refused_with_a_reason(change):
    record = ConfigRecord({**FACTS.to_record(), **change})

    with pytest.raises(CTFlowError) as refused:
        facts_in(RecordDict({"facts": record}))
    check_reason(str(refused.value))


def test_an_answer_of_an_earlier_round_is_refused_by_what_is_stale():
    stale = receipt(replace(ORDER, round_number=6, start="0" * 64), "a", HEADER)

    heard = sort(Answer(**{**HONEST, "receipt": ConfigRecord(stale)}), read_loss)
    assert "another round, start;" in heard.refused["a"]


def test_a_site_that_says_why_it_cannot_answer_gives_no_wrong_answer():
    refusal = ConfigRecord({"site": "a", "reason": "the disk\n is full\x1b[31m"})
    message = Message(RecordDict({"refusal": refusal}), 1, "train")

    heard = sort_replies({"a": message}, ORDER, {"a": FACTS}, read_loss)
    assert heard.refused == {"a": "the disk  is full [31m"}
    assert heard.wrong == frozenset()
