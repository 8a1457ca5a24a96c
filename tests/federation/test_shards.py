from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow_fed.errors import UpdateError
from ctflow_fed.federation.shards import (
    MOST_SHARDS,
    SHARD_BYTES,
    Shard,
    ShardStream,
    check_shard,
    shards_from_record,
    shards_to_record,
    write_shards,
)

NAME = "0" * 64


@given(blocks=st.lists(st.binary(max_size=40)), size=st.integers(1, 50))
def test_a_stream_is_read_as_it_was_written_whatever_the_cuts(
    blocks: list[bytes], size: int, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("shards")
    shards = write_shards(blocks, folder, size)
    stream = ShardStream(folder, shards)

    places = accumulate(map(len, blocks[:-1]), initial=0)
    assert [
        stream.read(p, len(b)) for p, b in zip(places, blocks, strict=False)
    ] == blocks
    assert all(each.size == size for each in shards[:-1])


def test_a_stream_that_is_too_short_is_refused(tmp_path: Path):
    shards = write_shards([b"12345"], tmp_path, 2)

    with pytest.raises(UpdateError, match="a longer stream"):
        ShardStream(tmp_path, shards).read(0, 6)
    (tmp_path / shards[1].digest).write_bytes(b"3")
    with pytest.raises(UpdateError, match="of its length"):
        ShardStream(tmp_path, shards).read(1, 3)


def test_a_shard_of_other_bytes_is_refused(tmp_path: Path):
    (shard,) = write_shards([b"12345"], tmp_path)
    check_shard(tmp_path / shard.digest, shard)

    (tmp_path / shard.digest).write_bytes(b"12346")
    with pytest.raises(UpdateError, match="digest"):
        check_shard(tmp_path / shard.digest, shard)
    with pytest.raises(UpdateError, match="digest"):
        check_shard(tmp_path / NAME, Shard(NAME, 5))


def test_shards_travel_as_text():
    shards = (Shard(NAME, 1), Shard("f" * 64, SHARD_BYTES))

    assert shards_from_record(shards_to_record(shards)) == shards


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"digests": NAME},
        {"digests": "", "sizes": ""},
        {"digests": NAME, "sizes": "0"},
        {"digests": NAME, "sizes": "-1"},
        {"digests": NAME, "sizes": str(SHARD_BYTES + 1)},
        {"digests": NAME, "sizes": "1,1"},
        {"digests": "../" * 21 + "x", "sizes": "1"},
        {"digests": NAME.upper().replace("0", "A"), "sizes": "1"},
        {"digests": 7, "sizes": "1"},
        {
            "digests": ",".join([NAME] * (MOST_SHARDS + 1)),
            "sizes": ",".join(["1"] * (MOST_SHARDS + 1)),
        },
    ],
)
def test_names_that_are_no_digests_and_sizes_beyond_the_bound_are_refused(record):
    with pytest.raises(UpdateError, match="digests and sizes"):
        shards_from_record(record)
