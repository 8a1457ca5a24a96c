from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import MismatchError, SettingsError
from ctflow_fed.model import FMvTConfig, ModelPackage, fresh_network
from ctflow_fed.sampling import SampleSettings, VolumeRequest, VolumeSampler
from ctflow_fed.training import TrainSettings, describe, fit

SMALL = FMvTConfig(layers=1, features=32, heads=2)
PLANS = ["anchored", "autoregressive", "ctflow"]

Samplers = Callable[..., VolumeSampler]


@pytest.fixture(scope="module")
def package(haar_store: Path) -> ModelPackage:
    """A network that heeds all that it is told, but has learnt nothing."""
    network = fresh_network(SMALL, seed=0)
    generator = torch.Generator().manual_seed(1)
    for value in network.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    store = LatentStore.open(haar_store)
    return ModelPackage(network, describe(store, steps=0, seed=0), "digest")


@pytest.fixture(scope="module")
def sampler_of(package: ModelPackage) -> Samplers:
    """Make samplers of the same model and other settings."""

    def make(**changes: object) -> VolumeSampler:
        known = {"steps": 2, "clip_slices": 16, "precision": "float32"}
        settings = SampleSettings(**(known | changes))
        method = "ctflow" if settings.plan == "ctflow" else "known"
        model = _of_method(package, method)
        return VolumeSampler(model, HaarCodec(), HashingReportEncoder(), settings)

    return make


def _of_method(package: ModelPackage, method: str) -> ModelPackage:
    return package._replace(provenance=replace(package.provenance, method=method))


def _request(**changes: object) -> VolumeRequest:
    known = {"report": "A ball of 2 cm.", "slices": 20, "seed": 0}
    return VolumeRequest(**(known | changes))


def _hu(sampler: VolumeSampler, **changes: object) -> np.ndarray:
    (volume,) = sampler.sample([_request(**changes)])
    return volume.hu.astype(int)


def _scan(slices: int = 12) -> CTVolume:
    """A real volume, so to say: no two slices alike, not at the origin."""
    hu = np.random.default_rng(0).integers(-1000, 500, (slices, 32, 32))
    affine = np.array([[0, 0, -8, 100], [0, -8, 0, 50], [5.0, 0, 0, -30], [0, 0, 0, 1]])
    return CTVolume(hu.astype(np.int16), affine, ("read",))


# A volume from a report.


@pytest.mark.parametrize("plan", PLANS)
def test_a_volume_has_exactly_the_slices_asked_for(sampler_of: Samplers, plan: str):
    counts = (1, 2, 15, 16, 17, 33, 70)
    volumes = sampler_of(plan=plan).sample([_request(slices=each) for each in counts])

    assert [len(volume.hu) for volume in volumes] == list(counts)
    assert {volume.hu.shape[1:] for volume in volumes} == {(32, 32)}


@pytest.mark.parametrize("clip_slices", [4, 8, 64])
def test_the_length_of_clips_does_not_change_the_number_of_slices(
    sampler_of: Samplers, clip_slices: int
):
    sampler = sampler_of(clip_slices=clip_slices, overlap=2)

    assert len(_hu(sampler, slices=37)) == 37


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_request_gives_the_same_volume(sampler_of: Samplers, plan: str):
    first, second, other = (_hu(sampler_of(plan=plan), seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("plan", PLANS)
def test_a_volume_does_not_depend_on_its_neighbours(sampler_of: Samplers, plan: str):
    sampler = sampler_of(plan=plan)
    requests = [_request(seed=5), _request(slices=7), _request(seed=1)]

    alone = _hu(sampler, seed=1)
    together = sampler.sample(requests)[2].hu
    assert np.abs(alone - together).max() <= 1


@pytest.mark.parametrize("plan", PLANS)
def test_memory_can_be_bounded_without_changing_a_volume(
    sampler_of: Samplers, plan: str
):
    requests = [_request(slices=40, seed=seed) for seed in (1, 2)]
    one, many = (
        sampler_of(plan=plan, batch_clips=count).sample(requests) for count in (1, 16)
    )

    for first, second in zip(one, many, strict=True):
        assert np.abs(first.hu.astype(int) - second.hu).max() <= 1


def test_plans_are_not_the_same_in_a_volume_of_several_clips(sampler_of: Samplers):
    volumes = [_hu(sampler_of(plan=plan), slices=40) for plan in PLANS]

    assert not np.array_equal(volumes[0], volumes[1])
    assert not np.array_equal(volumes[1], volumes[2])


def test_the_plan_is_anchored_unless_the_model_is_of_the_papers_method(
    sampler_of: Samplers, package: ModelPackage
):
    released = VolumeSampler(
        _of_method(package, "ctflow"), HaarCodec(), HashingReportEncoder()
    )

    assert sampler_of().plan == "anchored"
    assert released.plan == "ctflow"


@pytest.mark.parametrize(
    ("method", "plan"), [("ctflow", "anchored"), ("known", "ctflow")]
)
def test_a_plan_of_the_other_method_is_refused(
    package: ModelPackage, method: str, plan: str
):
    with pytest.raises(MismatchError, match="plan"):
        VolumeSampler(
            _of_method(package, method),
            HaarCodec(),
            HashingReportEncoder(),
            SampleSettings(plan=plan),
        )


def test_a_white_clip_ends_a_volume_of_the_paper(package: ModelPackage):
    # One step of a fresh network arrives at the bias of its last layer.
    network, codec = fresh_network(SMALL, seed=0), HaarCodec()
    white = codec.encode(torch.full((1, 4, 4), 1000.0)).flatten()
    network.final_layer.linear.bias.data = white.repeat(2 * 2 * 2)
    settings = SampleSettings(steps=1, plan="ctflow", precision="float32")
    model = _of_method(package._replace(network=network), "ctflow")
    sampler = VolumeSampler(model, codec, HashingReportEncoder(), settings)

    hu = _hu(sampler, slices=40)
    assert len(hu) == 1
    assert hu == pytest.approx(1000, abs=1)


def test_guidance_changes_a_volume_within_its_times_alone(sampler_of: Samplers):
    plain = _hu(sampler_of())

    assert np.array_equal(_hu(sampler_of(guidance=1.0, guided=(0.0, 1.0))), plain)
    assert np.array_equal(_hu(sampler_of(guidance=3.0, guided=(0.0, 0.0))), plain)
    guided = _hu(sampler_of(guidance=3.0, guided=(0.0, 1.0)))
    assert np.abs(guided - plain).max() > 5


def test_the_report_changes_a_volume(sampler_of: Samplers):
    first, second = (
        _hu(sampler_of(), report=report) for report in ("A ball.", "No finding.")
    )

    assert np.abs(first - second).max() > 5


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_report_is_no_report(package: ModelPackage, empty: str):
    def drawn(null: float, report: str) -> np.ndarray:
        network = fresh_network(SMALL, seed=0)
        network.load_state_dict(package.network.state_dict())
        network.y_embedder.null.data[::2] += null
        settings = SampleSettings(steps=2, precision="float32")
        sampler = VolumeSampler(
            package._replace(network=network),
            HaarCodec(),
            HashingReportEncoder(),
            settings,
        )
        return _hu(sampler, report=report)

    assert np.abs(drawn(0.0, empty) - drawn(3.0, empty)).max() > 5
    assert np.array_equal(drawn(0.0, "A ball."), drawn(3.0, "A ball."))


def test_what_is_drawn_resembles_what_was_seen(haar_store: Path):
    store, network = LatentStore.open(haar_store), fresh_network(SMALL, seed=0)
    settings = TrainSettings(batch_clips=4, max_frames=16, learning_rate=2e-3)
    fit(network, store, settings, steps=120, seed=0)
    package = ModelPackage(network, describe(store, steps=120, seed=0), "digest")
    sampler = VolumeSampler(
        package, HaarCodec(), HashingReportEncoder(), SampleSettings(steps=4)
    )

    corners = _hu(sampler, slices=16)[:, :4, :4]  # always -900 HU in training
    assert corners.mean() == pytest.approx(-900, abs=200)


def test_a_volume_is_placed_with_the_spacing_asked_for(sampler_of: Samplers):
    (thin,) = sampler_of().sample([_request(slice_mm=1.5)])

    assert thin.spacing == (1.5, 8.0, 8.0)
    assert nibabel.aff2axcodes(thin.affine) == ("S", "P", "L")


def test_a_volume_is_as_high_as_those_of_training_unless_told(sampler_of: Samplers):
    volumes = sampler_of().sample([_request(slices=count) for count in (16, 40)])

    heights = [len(volume.hu) * volume.spacing[0] for volume in volumes]
    assert heights == pytest.approx([32 * 5.0] * 2)  # 32 slices are the median


# Slices of a real volume.


def test_extending_keeps_every_real_slice_and_its_place(sampler_of: Samplers):
    scan = _scan()

    longer = sampler_of().extend(scan, "A ball.", below=7, above=20, seed=0)

    assert len(longer.hu) == 7 + 12 + 20
    assert np.array_equal(longer.hu[7:19], scan.hu)
    assert longer.spacing == scan.spacing
    real = longer.affine @ [7, 3, 4, 1]
    assert real == pytest.approx(scan.affine @ [0, 3, 4, 1])
    assert longer.notes == ("read", "27 of 39 slices are synthetic")


@pytest.mark.parametrize(("below", "above"), [(0, 5), (5, 0), (40, 40)])
def test_a_volume_is_extended_at_either_end(
    sampler_of: Samplers, below: int, above: int
):
    scan = _scan()

    longer = sampler_of().extend(scan, "", below=below, above=above, seed=0)

    assert len(longer.hu) == below + 12 + above
    assert np.array_equal(longer.hu[below : below + 12], scan.hu)
    assert len(np.unique(longer.hu, axis=0)) == len(longer.hu)  # all drawn, none black


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_slices_between_keep_every_real_slice_and_its_place(
    sampler_of: Samplers, factor: int
):
    scan = _scan()

    finer = sampler_of().between(scan, "A ball.", factor=factor, seed=0)

    assert len(finer.hu) == 11 * factor + 1
    assert np.array_equal(finer.hu[::factor], scan.hu)
    assert finer.spacing == pytest.approx((5.0 / factor, 8.0, 8.0))
    assert finer.affine @ [5 * factor, 0, 0, 1] == pytest.approx(
        scan.affine @ [5, 0, 0, 1]
    )
    assert len(np.unique(finer.hu, axis=0)) == len(finer.hu)


def test_a_larger_scan_is_brought_to_the_pixels_of_the_model(sampler_of: Samplers):
    hu = np.repeat(np.repeat(_scan().hu, 2, axis=1), 2, axis=2)
    affine = _scan().affine @ np.diag([1, 0.5, 0.5, 1])

    longer = sampler_of().extend(
        CTVolume(hu, affine), "A ball.", below=0, above=2, seed=0
    )
    assert longer.hu.shape == (14, 32, 32)
    assert longer.spacing == pytest.approx((5.0, 8.0, 8.0))


def test_a_real_slice_changes_what_is_drawn_beside_it(sampler_of: Samplers):
    sampler, scan = sampler_of(), _scan()
    other = CTVolume(np.full_like(scan.hu, -900), scan.affine)

    first, second = (
        sampler.extend(each, "A ball.", below=0, above=4, seed=0).hu[12:].astype(int)
        for each in (scan, other)
    )
    assert np.abs(first - second).max() > 5


def test_a_model_of_the_papers_method_knows_no_slices(sampler_of: Samplers):
    sampler = sampler_of(plan="ctflow")

    with pytest.raises(MismatchError, match="paper"):
        sampler.extend(_scan(), "A ball.", below=1, above=1, seed=0)
    with pytest.raises(MismatchError, match="paper"):
        sampler.between(_scan(), "A ball.", factor=2, seed=0)


# What does not fit.


@pytest.mark.parametrize("part", ["codec", "encoder"])
def test_another_codec_or_encoder_than_the_models_is_refused(
    package: ModelPackage, part: str
):
    other = replace(package.provenance, **{f"{part}_id": "another"})

    with pytest.raises(MismatchError, match=part):
        VolumeSampler(
            package._replace(provenance=other), HaarCodec(), HashingReportEncoder()
        )


def test_a_model_that_names_no_codec_and_no_encoder_takes_any(package: ModelPackage):
    unbound = replace(package.provenance, codec_id="", encoder_id="")
    sampler = VolumeSampler(
        package._replace(provenance=unbound),
        HaarCodec(),
        HashingReportEncoder(),
        SampleSettings(steps=1),
    )

    assert len(_hu(sampler, slices=2)) == 2


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"slice_mm": 0.0}])
def test_a_request_out_of_range_is_refused(wrong: dict[str, float]):
    with pytest.raises(SettingsError):
        _request(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"solver": "magic"},
        {"plan": "magic"},
        {"clip_slices": 15},
        {"clip_slices": 2},
        {"overlap": 64},
        {"guided": (0.5, 0.2)},
        {"batch_clips": 0},
        {"precision": "float16"},
        {"guidance": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        SampleSettings(**wrong)
