"""Arrays in files: one at a time, whole or absent, and no other than were opened."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ctflow_fed.federation import ArrayFile, arrays_digest, manifest_of, write_arrays
from ctflow_fed.federation.array_files import ArrayWriter, paged, put_arrays

ARRAYS = {
    "b": np.float32([[1, -2, 3], [4, 5, -6]]),
    "a.weight": np.float32([0.5, np.pi]),
    "c": np.zeros((2, 0), np.float32),
}


def is_same(got, expected):
    return got.keys() == expected.keys() and all(
        np.array_equal(got[name], expected[name]) for name in expected
    )


def test_what_is_written_is_read_by_us_and_by_safetensors(tmp_path):
    written = write_arrays(tmp_path / "x.safetensors", ARRAYS)

    assert is_same(written, ARRAYS)
    assert is_same(load_file(tmp_path / "x.safetensors"), ARRAYS)
    assert manifest_of(written) == manifest_of(ARRAYS)
    read = ArrayFile(tmp_path / "x.safetensors")
    assert written.digest == read.digest == arrays_digest(ARRAYS)


def test_a_file_of_safetensors_is_read(tmp_path):
    save_file(ARRAYS, tmp_path / "x", metadata={"format": "np"})

    assert is_same(ArrayFile(tmp_path / "x"), ARRAYS)


def test_what_was_opened_is_read_whatever_takes_its_place(tmp_path):
    first = write_arrays(tmp_path / "x", ARRAYS)
    others = {name: value + 1 for name, value in ARRAYS.items()}
    second = write_arrays(tmp_path / "x", others)

    assert is_same(first, ARRAYS)
    assert is_same(second, others)


def test_what_is_written_to_pages_of_a_file_stays_in_them(tmp_path):
    written = write_arrays(tmp_path / "x", ARRAYS)
    pages = paged(written)
    write_arrays(tmp_path / "x", {name: value + 1 for name, value in ARRAYS.items()})

    assert is_same(pages, ARRAYS)
    pages["b"][:] = 7
    assert (pages["b"] == 7).all()
    assert is_same(written, ARRAYS)
    assert is_same(paged(written), ARRAYS)


def test_arrays_that_lie_in_no_file_have_no_pages():
    assert paged(ARRAYS) is ARRAYS


def test_arrays_of_a_file_are_put_elsewhere_without_being_copied(tmp_path):
    first = write_arrays(tmp_path / "x", ARRAYS)

    put_arrays(tmp_path / "y", first)
    write_arrays(tmp_path / "x", {name: value + 1 for name, value in ARRAYS.items()})

    assert (tmp_path / "y").stat().st_ino != (tmp_path / "x").stat().st_ino
    assert is_same(ArrayFile(tmp_path / "y"), ARRAYS)
    put_arrays(tmp_path / "z", ArrayFile(tmp_path / "y"))
    assert (tmp_path / "z").samefile(tmp_path / "y")


def test_arrays_are_put_where_no_link_can_be(tmp_path, monkeypatch):
    first = write_arrays(tmp_path / "x", ARRAYS)

    def other_disk(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", other_disk)
    put_arrays(tmp_path / "y", first)

    assert is_same(ArrayFile(tmp_path / "y"), ARRAYS)
    assert not (tmp_path / "y").samefile(tmp_path / "x")


def test_a_file_that_was_not_finished_is_not_there(tmp_path):
    writer = ArrayWriter(tmp_path / "x", manifest_of(ARRAYS))
    with pytest.raises(ValueError, match="not all arrays"), writer:
        writer.write("a.weight", ARRAYS["a.weight"])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("b", "b"), ("a.weight", "b")])
def test_values_come_in_the_order_of_their_manifest(tmp_path, name, value):
    writer = ArrayWriter(tmp_path / "x", manifest_of(ARRAYS))
    with pytest.raises(ValueError, match="the next values"), writer:
        writer.write(name, ARRAYS[value])


def header(entries, length=None):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\xff" * 40,
        header(b"[]"),
        header(b"[" * 10_000),
        header(b"not json"),
        header({"a": 1}),
        header({"a": entry([2], 0, 8)}),  # without its bytes
        header({"a": entry([2], 0, 8)}) + bytes(9),
        header({"a": entry([2], 0, 4)}) + bytes(8),
        header({"a": entry([2], -8, 0)}),
        header({"a": entry([-2, -1], 0, 8)}) + bytes(8),
        header({"a": entry([2], 4, 12)}) + bytes(12),
        header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}) + bytes(16),
        header({"a": entry([2], 0, 4, "F16")}) + bytes(4),
        header({"a": entry([True], 0, 4)}) + bytes(4),
    ],
    ids=range(16),
)
def test_a_file_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(ValueError, match=r".") as refused:
        ArrayFile(tmp_path / "x")
    assert type(refused.value) in (ValueError, json.JSONDecodeError)
