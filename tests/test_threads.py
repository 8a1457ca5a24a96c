"""Work that is done ahead."""

import threading

import pytest

from ctflow_fed import threads
from ctflow_fed.threads import ahead


def test_what_is_made_ahead_comes_in_order():
    assert list(ahead(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    assert list(ahead(str, [])) == []


def test_no_more_is_made_ahead_than_there_are_threads(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    begun, lock = [], threading.Lock()

    def make(number):
        with lock:
            begun.append(number)
        return number

    for number in ahead(make, range(50)):
        assert max(begun) <= number + 2


def test_two_are_made_at_the_same_time(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    together = threading.Barrier(2, timeout=20)

    assert len(list(ahead(lambda _: together.wait(), range(2)))) == 2


def test_an_error_surfaces_where_its_item_is_due():
    made = ahead(lambda n: 1 // n, [1, 2, 0, 3])

    assert [next(made), next(made)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(made)
