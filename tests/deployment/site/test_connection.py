"""How often a site asks for the next question."""

import warnings
from itertools import pairwise
from unittest.mock import Mock, create_autospec

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from ctflow_fed.deployment.site import connection
    from ctflow_fed.deployment.site.connection import GatedConnection
    from ctflow_fed.deployment.site.exchange import Flower
    from ctflow_fed.deployment.site.objects import Dispatch
    from ctflow_fed.deployment.site.site import Site


class Clock:
    """Time that passes while one sleeps, and in no other way."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(connection, "time", clock)
    return clock


def test_after_an_answer_it_asks_soon_and_then_ever_more_seldom(clock):
    asked = []
    unused = [None] * 5
    flower = Flower(1, lambda: asked.append(clock.now), lambda *_: (set(), ""), *unused)
    gate = GatedConnection(flower, create_autospec(Site, instance=True))

    assert gate.receive() is None
    assert len(asked) == 1

    answer = create_autospec(Dispatch, instance=True, message=Mock(), objects={})
    answer.tree = None
    gate._deliver(answer, 0.0)
    answered = clock.now
    asked.clear()
    assert gate.receive() is None

    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert waits[0] == pytest.approx(0.2)
    assert waits[-1] == pytest.approx(3, abs=0.3)
    assert waits == sorted(waits)
    assert clock.now - answered == pytest.approx(32, abs=3)
    assert len(asked) < 60
