"""What a site keeps between two messages: by digest, by round, and within bounds."""

import os
import stat

import numpy as np
import pytest
import torch

from ctflow_fed.errors import SettingsError, StoreError
from ctflow_fed.federation import SiteMemory, SiteState, arrays_digest, spent_beside
from ctflow_fed.training import NoisySteps, PrivacySettings, epsilon_of
from ctflow_fed.training.optimizer import OptimizerMemory

JOB = "a" * 64


def weights(number):
    return {"w": np.full((2, 3), number, np.float32)}


def digest(number):
    return arrays_digest(weights(number))


def memory(number):
    tensors = {"exp_avg.w": torch.full((2, 3), float(number))}
    return SiteMemory(weights(number), OptimizerMemory(tensors, number))


def number_in(memory):
    return memory.optimizer.steps if memory.optimizer else 0


def test_what_is_kept_comes_back_bit_for_bit(tmp_path):
    SiteState(tmp_path, JOB).keep_memory(1, memory(7))
    SiteState(tmp_path, JOB).keep_weights(weights(3), digest(3))

    state = SiteState(tmp_path, JOB)
    back = state.memory_before(2)
    assert np.array_equal(back.residual["w"], weights(7)["w"])
    assert torch.equal(back.optimizer.tensors["exp_avg.w"], torch.full((2, 3), 7.0))
    assert back.optimizer.steps == 7
    assert np.array_equal(state.weights()["w"], weights(3)["w"])


def test_a_round_that_is_asked_again_begins_as_it_did(tmp_path):
    state = SiteState(tmp_path, JOB)
    for number in (1, 2, 3):
        state.keep_memory(number, memory(number))

    assert number_in(state.memory_before(4)) == 3
    assert number_in(state.memory_before(3)) == 2
    state.keep_memory(3, memory(30))
    assert number_in(state.memory_before(4)) == 30
    assert number_in(state.memory_before(3)) == 2


def test_a_site_that_missed_rounds_goes_on_from_the_last_it_trained(tmp_path):
    state = SiteState(tmp_path, JOB)
    state.keep_memory(2, memory(2))

    assert number_in(state.memory_before(9)) == 2


def test_a_job_that_begins_anew_begins_with_nothing(tmp_path):
    state = SiteState(tmp_path, JOB)
    for number in (1, 2, 3):
        state.keep_memory(number, memory(number))

    assert state.memory_before(1).is_empty
    state.keep_memory(1, memory(10))
    assert number_in(state.memory_before(9)) == 10


def test_the_memory_of_two_rounds_of_three_jobs_and_two_bases_is_kept(tmp_path):
    for job in "abcde":
        state = SiteState(tmp_path, job * 64)
        for number in range(1, 6):
            state.keep_memory(number, memory(number))
            state.keep_weights(weights(number), digest(number))
            state.keep_base(weights(number), digest(number))

    jobs = {path.name[0] for path in (tmp_path / "jobs").iterdir()}
    files = {path.name for path in (tmp_path / "jobs" / ("e" * 64)).iterdir()}
    assert jobs == {"c", "d", "e"}
    assert files == {
        "weights.safetensors",
        "weights.json",
        *(
            f"{kind}-000{n}.safetensors"
            for n in (4, 5)
            for kind in ("optimizer", "residual")
        ),
    }
    assert len(list((tmp_path / "bases").glob("*.safetensors"))) == 2
    assert len(list((tmp_path / "bases").iterdir())) == 4


def test_a_base_is_kept_for_every_job_and_the_one_in_use_longest(tmp_path):
    state = SiteState(tmp_path, JOB)
    first, second, third = map(weights, (1, 2, 3))
    for base in (first, second):
        state.keep_base(base, arrays_digest(base))
    other = SiteState(tmp_path, "b" * 64)
    assert np.array_equal(other.base(arrays_digest(first))["w"], first["w"])
    other.keep_base(third, digest(3))

    assert state.base(arrays_digest(first)) is not None
    assert state.base(arrays_digest(second)) is None


def test_weights_of_another_digest_are_not_kept(tmp_path):
    state = SiteState(tmp_path, JOB)
    state.keep_weights(weights(1), digest(1))

    assert state.keep_weights(weights(2), digest(3)) is None
    assert np.array_equal(state.weights()["w"], weights(1)["w"])
    left = {path.name for path in (tmp_path / "jobs" / JOB).iterdir()}
    assert left == {"weights.safetensors", "weights.json"}


def test_a_digest_is_noted_and_not_computed_again(tmp_path):
    SiteState(tmp_path, JOB).keep_weights(weights(1), digest(1))
    note = tmp_path / "jobs" / JOB / "weights.json"
    note.write_text(note.read_text().replace(digest(1), "f" * 64))

    assert SiteState(tmp_path, JOB).weights().digest == "f" * 64
    assert SiteState(tmp_path, JOB, doubting=True).weights().digest == digest(1)


def test_a_base_that_was_damaged_unseen_is_sent_again_once_that_is_found(tmp_path):
    state, doubting = (SiteState(tmp_path, JOB, doubting=d) for d in (False, True))
    state.keep_base(weights(1), digest(1))
    path = tmp_path / "bases" / f"{digest(1)}.safetensors"
    found, content = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[:-1] + b"\x01")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert state.base(digest(1)) is not None

    assert doubting.base(digest(1)) is None
    assert state.base(digest(1)) is None


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"digest": 1, "file": []}'])
def test_a_note_that_is_damaged_is_as_good_as_none(tmp_path, note):
    state = SiteState(tmp_path, JOB)
    state.keep_weights(weights(1), digest(1))
    (tmp_path / "jobs" / JOB / "weights.json").write_text(note)

    assert state.weights().digest == digest(1)


def test_damaged_weights_are_as_good_as_none(tmp_path):
    state = SiteState(tmp_path, JOB)
    state.keep_base(weights(1), digest(1))
    path = tmp_path / "bases" / f"{digest(1)}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01")
    assert state.base(digest(1)) is None

    (tmp_path / "jobs" / JOB / "weights.safetensors").write_bytes(b"not these")
    assert state.weights() is None


@pytest.mark.parametrize("kind", ["optimizer", "residual"])
def test_a_damaged_memory_is_told_with_the_remedy(tmp_path, kind):
    state = SiteState(tmp_path, JOB)
    state.keep_memory(1, memory(1))
    damaged = tmp_path / "jobs" / JOB / f"{kind}-0001.safetensors"
    damaged.write_bytes(b"\x80\x04pickle")

    with pytest.raises(StoreError, match="remove the site's state folder"):
        state.memory_before(2)


def test_an_empty_memory_leaves_no_file(tmp_path):
    SiteState(tmp_path, JOB).keep_memory(1, SiteMemory())

    assert list((tmp_path / "jobs" / JOB).iterdir()) == []


def test_nobody_else_may_look_into_the_folder(tmp_path):
    SiteState(tmp_path / "state", JOB)

    mode = stat.S_IMODE((tmp_path / "state").stat().st_mode)
    assert mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="`state` in the node config"):
        SiteState(tmp_path / "file" / "state", JOB)


def test_what_other_jobs_have_spent_adds_up_and_a_damaged_ledger_is_told(tmp_path):
    privacy = PrivacySettings(epsilon=9.0, noise_multiplier=8.0)
    spent = NoisySteps(8.0, 0.5, 2)
    for job in (JOB, "b" * 64, "c" * 64):
        SiteState(tmp_path, job).ledger(privacy).book(spent)

    each = epsilon_of([spent], 1e-5)
    assert spent_beside(tmp_path, JOB, 1e-5) == pytest.approx(2 * each)
    assert spent_beside(tmp_path, "d" * 64, 1e-5) == pytest.approx(3 * each)
    assert spent_beside(tmp_path / "new", JOB, 1e-5) == 0
    (tmp_path / "privacy" / f"{'b' * 64}.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        spent_beside(tmp_path, JOB, 1e-5)
