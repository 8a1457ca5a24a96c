"""The server's side of shards: what it offers, and what it takes from sites."""

import shutil

import numpy as np
import pytest

from ctflow_fed.errors import IncompleteError, UpdateError
from ctflow_fed.federation import Depot, manifest_of, packed, shards, stow, unstow

LARGE = {"a": np.arange(60_000, dtype=np.float32), "b": np.ones((3, 5), np.float32)}
MANIFEST = manifest_of(LARGE)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)


@pytest.fixture
def depot(tmp_path):
    return Depot(tmp_path / "shards", tmp_path / "arrived")


def offer(depot, kind, arrays):
    manifest = manifest_of(arrays)
    return depot.offer(kind, packed(arrays, manifest), manifest, "float32")


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_fits_a_message_goes_with_it(depot):
    assert set(offer(depot, "weights", {"b": LARGE["b"]})) == {"b"}
    assert not depot.folder.exists()


def test_what_is_offered_takes_the_place_of_what_was_offered_before(depot):
    down = depot.folder / "down"
    first = offer(depot, "weights", LARGE)
    change = offer(depot, "change", {"a": LARGE["a"] + 1})
    assert names_in(down) == {each.digest for each in (*first, *change)}

    other = offer(depot, "weights", {**LARGE, "b": 2 * LARGE["b"]})
    assert names_in(down) == {each.digest for each in (*other, *change)}
    assert set(first) & set(other)  # what is the same stays
    back = unstow(other, MANIFEST, "float32", down)
    assert np.array_equal(back["a"], LARGE["a"])
    assert np.array_equal(back["b"], 2 * LARGE["b"])
    depot.close()
    assert names_in(down) == set()


@pytest.fixture
def sent(depot, tmp_path):
    """Shards in the places of a site."""
    cargo = stow(packed(LARGE, MANIFEST), MANIFEST, "float32", tmp_path / "outbox")
    places = depot.folder / "up" / "a"
    places.mkdir(parents=True)
    for number, shard in enumerate(cargo):
        shutil.copy(tmp_path / "outbox" / shard.digest, places / f"{number:02d}")
    return cargo


def test_what_was_taken_is_out_of_the_reach_of_its_site(depot, sent):
    folder = depot.take(sent, "a")
    for number in range(len(sent)):
        (depot.folder / "up" / "a" / f"{number:02d}").write_bytes(b"other")

    back = unstow(sent, MANIFEST, "float32", folder)
    assert all(np.array_equal(back[name], LARGE[name]) for name in LARGE)
    depot.clear()
    assert not folder.exists()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100_000])
def test_a_shard_that_is_not_the_one_that_was_named_is_told(depot, sent, content):
    place = depot.folder / "up" / "a" / "01"
    place.unlink()
    if content is not None:
        place.write_bytes(content)

    with pytest.raises(UpdateError, match=r"^shard 2 of 3: "):
        depot.take(sent, "a")


def test_a_folder_that_cannot_be_written_to_ends_the_round_in_a_sentence(depot):
    depot.folder.parent.mkdir(parents=True, exist_ok=True)
    depot.folder.write_text("no folder")

    with pytest.raises(IncompleteError, match="goes on after the last finished round"):
        offer(depot, "weights", LARGE)
