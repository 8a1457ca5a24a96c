"""Mutated files, a few of those of `benchmarks/fuzz_intake.py`: read or refused."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctflow_fed.ct.dicom import SeriesTags, read_series, write_series
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.phantom import Scanner, draw
from ctflow_fed.ct.policy import IntakePolicy
from ctflow_fed.ct.volume import AIR
from ctflow_fed.errors import VolumeError

LENIENT = IntakePolicy("correct", "resample", "accept", "any")

change = st.one_of(
    st.tuples(st.just("set"), st.integers(0), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("cut"), st.integers(0), st.integers(1, 40)),
    st.tuples(st.just("repeat"), st.integers(0), st.integers(1, 200)),
)
"""What is done to a file, at which byte, and with what."""


def changed(content, changes):
    result = bytearray(content)
    for deed, place, value in changes:
        at = place % len(result)
        if deed == "set":
            result[at : at + len(value)] = value
        elif deed == "cut":
            result[at : at + value] = b"\0"
        else:
            result[at:at] = result[at : at + value]
    return bytes(result)


def outcome(read, *arguments):
    """Read, and return what a refusal says; anything else that is raised is a fault."""
    try:
        volume = read(*arguments)
    except VolumeError as error:
        return str(error)
    return "read" if volume.hu.min() >= AIR else "padding left"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    volume = draw(0, scanner=Scanner(slices=2, rows=16, slice_mm=90.0)).volume
    write_nifti(volume, folder / "v.nii")
    write_series(volume, folder / "series", seed=0, tags=SeriesTags("SYN-0"))
    return folder


fuzzed = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzzed
@given(changes=st.lists(change, min_size=1, max_size=5))
def test_a_mutated_nifti_is_read_or_refused(originals, tmp_path, changes):
    path = tmp_path / "v.nii"
    path.write_bytes(changed((originals / "v.nii").read_bytes(), changes))

    assert outcome(read_nifti, path).startswith(("read", "expected"))


@fuzzed
@given(changes=st.lists(change, min_size=1, max_size=5))
def test_a_mutated_slice_is_read_or_costs_its_series(originals, tmp_path, changes):
    for path in (originals / "series").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "00002.dcm"
    path.write_bytes(changed(path.read_bytes(), changes))

    assert outcome(read_series, tmp_path, LENIENT).startswith(("read", "expected"))
