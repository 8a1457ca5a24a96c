import pytest

from ctflow_fed.demo.journal import Journal
from ctflow_fed.errors import MismatchError, StoreError


def test_a_finished_stage_is_not_done_again(tmp_path):
    done, said = [], []
    Journal(tmp_path, "a", said.append).stage("one", "First", lambda: done.append(1))

    again = Journal(tmp_path, "a", said.append)
    again.stage("one", "First", lambda: done.append(2))

    assert done == [1]
    assert "done before" in said[-1]
    assert again.records["one"].seconds >= 0
    assert again.records["one"].peak_rss_mb > 10


def test_a_stage_that_fails_is_called_again(tmp_path):
    journal, done = Journal(tmp_path, "a", str), []

    with pytest.raises(ZeroDivisionError):
        journal.stage("one", "First", lambda: 1 / 0)
    Journal(tmp_path, "a", str).stage("one", "First", lambda: done.append(1))

    assert done == [1]


def test_only_a_run_that_went_on_counts_as_resumed(tmp_path):
    whole = Journal(tmp_path, "a", str)
    whole.stage("one", "First", str)
    assert not whole.resumed

    again = Journal(tmp_path, "a", str)
    again.stage("one", "First", str)
    assert not again.resumed
    again.stage("two", "Second", str)
    assert again.resumed
    assert Journal(tmp_path, "a", str).resumed


def test_a_folder_of_other_settings_is_refused(tmp_path):
    Journal(tmp_path, "a", str)

    with pytest.raises(MismatchError, match="another seed"):
        Journal(tmp_path, "b", str)


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"identity": "a", "stages": [{}]}', "3"]
)
def test_a_damaged_journal_is_refused(tmp_path, text):
    (tmp_path / "journal.json").write_text(text)

    with pytest.raises(StoreError):
        Journal(tmp_path, "a", str)
