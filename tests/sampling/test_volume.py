from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.model import FMvTConfig, ModelPackage, fresh_network
from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler
from ctflow_fed.training import TrainSettings, describe, fit

SMALL = FMvTConfig(layers=1, features=32, heads=2)


@pytest.fixture(scope="module")
def package(haar_store: Path) -> ModelPackage:
    """A small network that has seen a ball or two."""
    store = LatentStore.open(haar_store)
    network = fresh_network(SMALL, seed=0)
    settings = TrainSettings(batch_clips=4, warmup_steps=5, learning_rate=1e-2)
    fit(network, store, settings, steps=200, seed=0)
    return ModelPackage(network, describe(store, steps=200, seed=0), "digest")


@pytest.fixture(scope="module")
def sampler(package: ModelPackage) -> VolumeSampler:
    settings = SampleSettings(steps=4)
    return VolumeSampler(package, HaarCodec(), HashingReportEncoder(), settings)


def _request(**changes: object) -> VolumeRequest:
    known = {"report": "A ball of 2 cm.", "slices": 20, "seed": 0}
    return VolumeRequest(**(known | changes))


def test_a_volume_has_exactly_the_slices_asked_for(sampler: VolumeSampler):
    counts = (1, 16, 17, 40)
    volumes = sampler.sample([_request(slices=count) for count in counts])

    assert [len(volume.hu) for volume in volumes] == list(counts)
    assert {volume.hu.shape[1:] for volume in volumes} == {(32, 32)}


def test_what_is_drawn_resembles_what_was_seen(sampler: VolumeSampler):
    (volume,) = sampler.sample([_request(slices=32)])

    corners = volume.hu[:, :4, :4]  # always -900 HU in training
    assert corners.mean() == pytest.approx(-900, abs=200)


def test_the_same_request_gives_the_same_volume(sampler: VolumeSampler):
    first, second, other = (
        sampler.sample([_request(seed=seed)])[0].hu for seed in (1, 1, 2)
    )

    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_volume_does_not_depend_on_its_neighbours(sampler: VolumeSampler):
    (alone,) = sampler.sample([_request(seed=1)])
    together = sampler.sample([_request(seed=5), _request(seed=1)])[1]

    assert np.abs(alone.hu.astype(int) - together.hu).max() <= 1


def test_a_volume_is_placed_with_the_spacing_asked_for(sampler: VolumeSampler):
    (thin,) = sampler.sample([_request(slice_mm=1.5)])

    assert thin.spacing == (1.5, 8.0, 8.0)
    assert nibabel.aff2axcodes(thin.affine) == ("S", "P", "L")


def test_a_volume_is_as_high_as_those_of_training_unless_told(sampler: VolumeSampler):
    volumes = sampler.sample([_request(slices=count) for count in (16, 40)])

    heights = [len(volume.hu) * volume.spacing[0] for volume in volumes]
    assert heights == pytest.approx([32 * 5.0] * 2)  # 32 slices are the median


def test_another_codec_than_the_models_is_refused(package: ModelPackage):
    other = replace(package.provenance, codec_id="another")

    with pytest.raises(MismatchError, match="codec"):
        VolumeSampler(
            package._replace(provenance=other), HaarCodec(), HashingReportEncoder()
        )


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"slice_mm": 0.0}])
def test_a_request_out_of_range_is_refused(wrong: dict[str, float]):
    with pytest.raises(SettingsError):
        _request(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"solver": "magic"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        SampleSettings(**wrong)
