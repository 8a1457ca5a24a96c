"""The store of latents: what is put comes back, and nothing else is believed."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from ctflow_fed.ct.store import LatentStore, StoreHeader
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.files import read_json, sha256_of, write_json

HEADER = StoreHeader("codec", "encoder", channels=16, height=8, width=4)
SPACING = (2.5, 1.0, 1.0)


def tensors(seed=0, slices=20, tokens=3):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(slices, 16, 8, 4, generator=generator)
    return latents, torch.randn(tokens, 768, generator=generator)


def put(store, study_id="a", seed=0, labels=None, **sizes):
    labels = labels or {"Emphysema": 1}
    latents, tokens = tensors(seed, **sizes)
    return store.put(study_id, latents, tokens, spacing=SPACING, labels=labels)


@pytest.fixture
def store(tmp_path):
    return LatentStore.create(tmp_path / "site", HEADER, torch.zeros(2, 16, 8, 4))


def test_what_is_put_comes_back_to_the_precision_of_float16(store):
    latents, tokens = tensors()
    put(store)

    again = LatentStore.open(store.folder)
    read = again.slices("a", 4, 20)
    assert read.dtype == torch.float32
    assert torch.equal(read, latents[4:].half().float())
    assert torch.equal(again.tokens("a"), tokens.half().float())


def test_the_edges_come_back(tmp_path):
    edges = tensors()[0][:2]
    LatentStore.create(tmp_path, HEADER, edges)

    assert torch.equal(LatentStore.open(tmp_path).edges, edges.half().float())


def test_the_weights_of_the_channels_come_back_and_are_equal_unless_given(tmp_path):
    weights = [1.5] * 8 + [0.5] * 8
    edges = torch.zeros(2, 16, 8, 4)
    LatentStore.create(tmp_path / "weighed", HEADER, edges, weights)
    LatentStore.create(tmp_path / "plain", HEADER, edges)

    weighed, plain = (
        LatentStore.open(tmp_path / name).channel_weights.tolist()
        for name in ("weighed", "plain")
    )
    assert weighed == weights
    assert plain == [1.0] * 16


@pytest.mark.parametrize("weights", [[1.0] * 15, [1.0] * 15 + [0.0], [-1.0] * 16])
def test_weights_that_are_not_one_positive_number_a_channel_are_refused(
    tmp_path, weights
):
    with pytest.raises(StoreError, match="weight"):
        LatentStore.create(tmp_path, HEADER, torch.zeros(2, 16, 8, 4), weights)


def test_a_store_of_the_schema_before_is_refused_with_the_remedy(store):
    path = store.folder / "store.json"
    write_json(path, {**read_json(path), "schema": 1})

    with pytest.raises(StoreError, match="take the studies in again"):
        LatentStore.open(store.folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50])
def test_a_store_whose_edges_are_broken_is_refused(store, content):
    (store.folder / "edges.safetensors").write_bytes(content)

    with pytest.raises(StoreError, match="edges"):
        LatentStore.open(store.folder)


def test_records_are_in_an_order_that_ids_do_not_change_and_know_their_study(store):
    put(store, "b", seed=1, slices=17)
    put(store, "a", seed=2, labels={"Atelectasis": 0, "Emphysema": 1})

    records = LatentStore.open(store.folder).records
    assert [each.sha256 for each in records] == sorted(each.sha256 for each in records)
    assert records == store.records
    known = {record.study_id: record for record in records}
    assert known["b"].slices == 17
    assert known["a"].spacing == SPACING
    assert known["a"].labels == {"Atelectasis": 0, "Emphysema": 1}
    assert "a" in store
    assert "c" not in store
    assert len(store) == 2


def test_the_digest_of_a_record_is_that_of_its_file(store):
    record = put(store)

    assert record.sha256 == sha256_of(store.folder / "studies" / "a.safetensors")


def test_to_put_the_same_study_twice_changes_nothing(store):
    first = put(store)
    before = (store.folder / "index.jsonl").read_bytes()

    assert put(store) == first
    assert (store.folder / "index.jsonl").read_bytes() == before


def test_another_study_under_the_same_id_is_refused_and_the_first_one_kept(store):
    put(store, seed=0)
    with pytest.raises(StoreError, match="has this id already"):
        put(store, seed=1)

    expected = tensors(seed=0)[0][:1].half().float()
    assert torch.equal(LatentStore.open(store.folder).slices("a", 0, 1), expected)


def test_a_line_torn_by_a_kill_is_no_study_and_the_study_can_be_put_again(store):
    put(store, "a")
    put(store, "b", seed=1)
    index = store.folder / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])

    torn = LatentStore.open(store.folder)
    assert [record.study_id for record in torn.records] == ["a"]
    put(torn, "b", seed=1)
    assert len(LatentStore.open(store.folder)) == 2


def test_an_existing_store_is_opened_by_create_when_the_header_is_the_same(store):
    put(store)

    again = LatentStore.create(store.folder, HEADER, torch.zeros(2, 16, 8, 4))
    assert len(again) == 1


def test_a_store_made_with_another_codec_is_a_mismatch(store):
    other = StoreHeader("other codec", "encoder", channels=16, height=8, width=4)

    with pytest.raises(MismatchError, match="another codec"):
        LatentStore.create(store.folder, other, torch.zeros(2, 16, 8, 4))


def test_a_header_that_makes_no_sense_leaves_no_store_behind(tmp_path):
    header = StoreHeader("codec", "encoder", channels=16, height=0, width=4)

    with pytest.raises(StoreError):
        LatentStore.create(tmp_path / "site", header, torch.zeros(2, 16, 8, 4))
    assert not (tmp_path / "site" / "store.json").exists()


@pytest.mark.parametrize(
    ("latents", "tokens"),
    [
        (torch.zeros(20, 16, 8, 8), torch.zeros(3, 768)),
        (torch.zeros(0, 16, 8, 4), torch.zeros(3, 768)),
        (torch.zeros(20, 16, 8, 4), torch.zeros(3, 512)),
        (torch.zeros(20, 16, 8, 4), torch.zeros(0, 768)),
        (torch.full((20, 16, 8, 4), float("nan")), torch.zeros(3, 768)),
        (torch.full((20, 16, 8, 4), 1e6), torch.zeros(3, 768)),
    ],
)
def test_tensors_that_do_not_fit_are_refused_before_anything_is_written(
    store, latents, tokens
):
    with pytest.raises(StoreError):
        store.put("a", latents, tokens, spacing=SPACING, labels={})
    assert not (store.folder / "studies").exists()


@pytest.mark.parametrize("study_id", ["", "../a", "a/b", "a.b", "ä", "a" * 65, "a\n"])
def test_an_id_that_is_no_safe_file_name_is_refused(store, study_id):
    with pytest.raises(StoreError, match="no record of a study"):
        put(store, study_id)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (5, 21), (20, 36)])
def test_slices_outside_the_study_are_refused(store, start, stop):
    put(store)

    with pytest.raises(StoreError, match="between 0 and 20"):
        store.slices("a", start, stop)


def test_an_unknown_study_is_refused(store):
    with pytest.raises(StoreError, match="no study of this id"):
        store.slices("a", 0, 1)
    with pytest.raises(StoreError, match="no study of this id"):
        store.tokens("a")


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="ctflow intake"):
        LatentStore.open(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"schema": 2}', "{" * 100_000, '{"schema": NaN}']
)
def test_a_hostile_header_is_refused_with_a_sentence(store, content):
    (store.folder / "store.json").write_text(content)

    with pytest.raises(StoreError):
        LatentStore.open(store.folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", "16"), ("width", 0), ("height", 10**12), ("codec_id", ""), ("x", 1)],
)
def test_a_header_with_a_wrong_field_is_refused(store, field, value):
    path = store.folder / "store.json"
    write_json(path, {**read_json(path), field: value})

    with pytest.raises(StoreError, match="not the header"):
        LatentStore.open(store.folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("study_id", "../../etc/passwd"),
        ("slices", True),
        ("slices", 10**9),
        ("spacing", [1, 1]),
        ("spacing", [1, 1, float("inf")]),
        ("spacing", [1, 1, 10**400]),
        ("labels", {"Emphysema": 2}),
        ("labels", []),
        ("flags", "x"),
        ("sha256", "0"),
        ("report", "a field that nobody knows"),
    ],
)
def test_a_hostile_line_of_the_index_is_refused(store, field, value):
    put(store)
    index = store.folder / "index.jsonl"
    line = {**json.loads(index.read_text()), field: value}
    index.write_text(json.dumps(line) + "\n")

    with pytest.raises(StoreError, match="a line that is no study"):
        LatentStore.open(store.folder)


def test_an_index_that_names_a_study_twice_is_refused(store):
    put(store)
    index = store.folder / "index.jsonl"
    index.write_text(2 * index.read_text())

    with pytest.raises(StoreError, match="twice"):
        LatentStore.open(store.folder)


def test_a_study_whose_file_was_changed_is_refused(store):
    put(store)
    path = store.folder / "studies" / "a.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(StoreError, match="not the one that was taken in"):
        LatentStore.open(store.folder).slices("a", 0, 1)


def test_a_study_whose_file_is_gone_is_refused(store):
    put(store)
    (store.folder / "studies" / "a.safetensors").unlink()

    with pytest.raises(StoreError, match="absent"):
        LatentStore.open(store.folder).tokens("a")


@pytest.mark.parametrize(
    "content",
    [
        {"latents": torch.zeros(20, 16, 8, 4), "tokens": torch.zeros(3, 768)},
        {"latents": torch.zeros(20, 16, 8, 4).half()},
        {
            "latents": torch.zeros(19, 16, 8, 4).half(),
            "tokens": torch.zeros(3, 768).half(),
        },
        {
            "latents": torch.zeros(20, 16, 4, 8).half(),
            "tokens": torch.zeros(3, 768).half(),
        },
        {
            "latents": torch.full((20, 16, 8, 4), float("nan")).half(),
            "tokens": torch.zeros(3, 768).half(),
        },
    ],
)
def test_a_study_whose_tensors_are_not_as_recorded_is_refused(store, content):
    put(store)
    path = store.folder / "studies" / "a.safetensors"
    save_file(content, path)
    index = store.folder / "index.jsonl"
    line = {**json.loads(index.read_text()), "sha256": sha256_of(path)}
    index.write_text(json.dumps(line) + "\n")

    with pytest.raises(StoreError):
        LatentStore.open(store.folder).slices("a", 0, 16)


def test_a_study_that_is_no_safetensors_is_refused(store):
    put(store)
    path = store.folder / "studies" / "a.safetensors"
    path.write_bytes(b"\xff" * 100)
    index = store.folder / "index.jsonl"
    line = {**json.loads(index.read_text()), "sha256": sha256_of(path)}
    index.write_text(json.dumps(line) + "\n")

    with pytest.raises(StoreError, match="no safetensors"):
        LatentStore.open(store.folder).slices("a", 0, 16)


def test_a_clip_is_read_in_well_under_a_millisecond(store):
    for index in range(10):
        put(store, f"s{index}", seed=index, slices=200)
    reads = [(f"s{index % 10}", index % 180) for index in range(500)]
    for study_id, start in reads[:10]:
        store.slices(study_id, start, start + 16)

    before = time.process_time()
    for study_id, start in reads:
        store.slices(study_id, start, start + 16)
    assert (time.process_time() - before) / len(reads) < 1e-3
