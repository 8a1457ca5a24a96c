"""What a site measures an update by: weights that lie in its own state."""

import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from ctflow_fed.deployment.site.audit import AuditLog
    from ctflow_fed.deployment.site.policy import Policy
    from ctflow_fed.deployment.site.site import Site
from ctflow_fed.federation import RoundOrder, SiteState, arrays_digest

BASE = {"w": np.full((2, 2), 3.0, np.float32)}
WEIGHTS = {"a": np.array([3.0, 4.0], np.float32)}
JOB = "0" * 8


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that holds a base and what was sent last."""
    state = SiteState(tmp_path / "state", JOB)
    state.keep_base(BASE, arrays_digest(BASE))
    state.keep_weights(WEIGHTS, arrays_digest(WEIGHTS))
    return Site(
        name="north",
        address="localhost:1",
        kit=tmp_path,
        store=tmp_path,
        policy=create_autospec(Policy, instance=True),
        audit=AuditLog(tmp_path),
        say=print,
    )


def order(base: str = "", start: str = arrays_digest(WEIGHTS)) -> RoundOrder:
    """An order, as far as it matters here."""
    return create_autospec(RoundOrder, instance=True, job=JOB, base=base, start=start)


def test_all_weights_are_measured_by_their_own_length(site: Site) -> None:
    weights, length = site.weights_of(order())

    assert np.array_equal(weights["a"], WEIGHTS["a"])
    assert length == pytest.approx(5)


def test_an_adapter_is_measured_by_the_length_of_its_base_which_is_read_once(
    site: Site,
) -> None:
    digest = arrays_digest(BASE)
    assert site.weights_of(order(digest))[1] == pytest.approx(6)

    (site.state / "bases" / f"{digest}.safetensors").unlink()

    assert site.weights_of(order(digest))[1] == pytest.approx(6)
    assert replace(site, lengths={}).weights_of(order(digest)) is None


def test_what_a_program_has_noted_of_weights_is_not_believed(site: Site) -> None:
    note = site.state / "jobs" / JOB / "weights.json"
    note.write_text(note.read_text().replace(arrays_digest(WEIGHTS), "f" * 64))

    assert site.weights_of(order(start="f" * 64)) is None
    assert site.weights_of(order()) is not None


def test_the_arrays_of_an_answer_are_shown_by_form_and_size(site: Site) -> None:
    said: list[str] = []
    replace(site, say=said.append).show_arrays({"a": (2, 300), "b": (1,)}, "int8")

    assert said == ["  a [2, 300] int8 612 bytes", "  b [1] int8 5 bytes"]


def test_a_base_that_is_damaged_measures_nothing(site: Site) -> None:
    digest = arrays_digest(BASE)
    path = site.state / "bases" / f"{digest}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    assert site.weights_of(order(digest)) is None


def test_other_weights_than_the_order_names_measure_nothing(site: Site) -> None:
    assert site.weights_of(order(start="1" * 64)) is None
