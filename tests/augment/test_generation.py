import pytest

from ctflow_fed.augment import GenerateSettings, Plan, generate, plan
from ctflow_fed.errors import IncompleteError, PackageError, SettingsError

QUICK = GenerateSettings(steps=1, solver="euler")


def digests(store):
    return {each.sample_id: each.sha256 for each in store.records()}


@pytest.fixture(scope="module")
def seven() -> Plan:
    return plan(target={"Emphysema": 4, "Lung nodule": 3}, slices=8)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, model, seven):
    """The set that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    return generate(seven, model=model, out=out, workers=0, settings=QUICK)


def test_every_request_becomes_one_volume(unbroken, seven):
    assert len(unbroken.records()) == len(seven) == 7
    assert len(set(digests(unbroken).values())) == 7


def test_the_same_call_does_nothing_twice(unbroken, seven, model):
    before = {path: path.stat().st_mtime_ns for path in unbroken.folder.glob("*/*")}

    generate(seven, model=model, out=unbroken.folder, workers=0, settings=QUICK)

    after = {path: path.stat().st_mtime_ns for path in unbroken.folder.glob("*/*")}
    assert before == after


@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_lost_is_drawn_again_as_it_was(tmp_path, seven, model, batch):
    settings = GenerateSettings(steps=1, solver="euler", batch=batch)
    store = generate(seven, model=model, out=tmp_path, workers=0, settings=settings)
    before = digests(store)
    without_sidecar, cut_short, damaged, gone = list(before)[:4]
    store.sidecar(without_sidecar).unlink()
    store.image(cut_short).write_bytes(b"cut")
    store.sidecar(damaged).write_text("{")
    store.image(gone).unlink()
    (tmp_path / "volumes" / ".partial-x.nii.gz").write_bytes(b"half")

    assert store.status().done == 3
    generate(seven, model=model, out=tmp_path, workers=0, settings=settings)

    assert digests(store) == before
    assert not list(tmp_path.rglob(".partial-*"))


def test_what_fails_is_counted_and_the_rest_is_done(tmp_path, seven, model, unbroken):
    blocked = unbroken.records()[2].sample_id
    obstacle = tmp_path / "volumes" / f"{blocked}.nii.gz"
    obstacle.mkdir(parents=True)
    arguments = {"model": model, "out": tmp_path, "workers": 0, "settings": QUICK}

    with pytest.raises(IncompleteError, match="1 of 7 volumes could not be drawn"):
        generate(seven, **arguments)

    failures = (tmp_path / "failed.jsonl").read_text()
    assert failures.count("\n") == 1
    assert blocked in failures
    assert "IsADirectoryError at " in failures
    obstacle.rmdir()
    store = generate(seven, **arguments)
    assert digests(store) == digests(unbroken)
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_what_is_drawn_depends_on_the_model_and_on_how_it_is_followed(
    tmp_path, seven, model, unbroken
):
    settings = GenerateSettings(steps=2, solver="heun")

    store = generate(seven, model=model, out=tmp_path, workers=0, settings=settings)

    assert not set(digests(store)) & set(digests(unbroken))
    assert not set(digests(store).values()) & set(digests(unbroken).values())


def test_a_model_that_is_none_is_refused_before_anything_is_written(tmp_path, seven):
    with pytest.raises(PackageError):
        generate(seven, model=tmp_path, out=tmp_path / "set", workers=0)

    assert not (tmp_path / "set").exists()


def test_less_than_no_worker_is_refused(tmp_path, seven, model):
    with pytest.raises(SettingsError, match="1 worker or more, got -1"):
        generate(seven, model=model, out=tmp_path / "set", workers=-1)


def test_an_empty_batch_is_refused():
    with pytest.raises(SettingsError, match="1 to 1024"):
        GenerateSettings(batch=0)
