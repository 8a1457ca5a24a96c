"""Volumes: one canonical order, nothing moved, doubts refused."""

import itertools

import numpy as np
import pytest

from ctflow_fed.ct.volume import (
    AIR,
    CTVolume,
    refuse_other_than_hounsfield,
    to_hounsfield,
)
from ctflow_fed.errors import VolumeError

CANONICAL = np.array(
    [[0, 0, -0.7, 81.25], [0, -0.9, 0, 60.5], [2.5, 0, 0, -310.0], [0, 0, 0, 1.0]]
)


def voxels(shape=(4, 6, 5)):
    return np.random.default_rng(1).integers(-1024, 1500, shape).astype(np.int16)


def place(volume, index):
    return volume.affine[:3] @ (*index, 1)


@pytest.mark.parametrize(
    ("axes", "flips"),
    [
        (axes, flips)
        for axes in itertools.permutations(range(3))
        for flips in itertools.product((False, True), repeat=3)
    ],
)
def test_every_order_and_direction_of_axes_becomes_the_same_volume(axes, flips):
    turned, affine = voxels().transpose(axes), CANONICAL[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1

    volume = CTVolume.canonical(turned, affine)
    assert np.array_equal(volume.hu, voxels())
    assert np.abs(volume.affine - CANONICAL).max() < 1e-9
    assert volume.hu.flags.c_contiguous


def test_spacing_is_given_along_slices_rows_columns():
    assert CTVolume(voxels(), CANONICAL).spacing == pytest.approx((2.5, 0.9, 0.7))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([-3024.4, -10.6, 2.5, 40000]), [AIR, -11, 2, 32767]),
        (np.array([-3024, 7, 70000], np.int32), [AIR, 7, 32767]),
        (np.array([0, 65535], np.uint16), [0, 32767]),
        (np.array([0, 255], np.uint8), [0, 255]),
    ],
)
def test_values_are_rounded_and_clipped_to_hu(values, expected):
    hu = to_hounsfield(values)

    assert hu.dtype == np.int16
    assert hu.tolist() == expected


def test_a_volume_without_air_is_not_in_hu():
    refuse_other_than_hounsfield(CTVolume(voxels(), CANONICAL))

    with pytest.raises(VolumeError, match="no air"):
        refuse_other_than_hounsfield(CTVolume(np.abs(voxels()), CANONICAL))


@pytest.mark.parametrize("padding", [-3024, -2000, -1024])
def test_padding_is_no_air_and_does_not_make_stored_values_hounsfield(padding):
    stored = np.random.default_rng(2).integers(20, 1100, (4, 30, 30))
    stored[:, :8] = padding

    volume = CTVolume.canonical(stored, CANONICAL)
    with pytest.raises(VolumeError, match="no air"):
        refuse_other_than_hounsfield(volume)


def test_a_thousandth_of_air_beside_padding_is_enough():
    hu = np.full((10, 10, 10), AIR, np.int16)
    hu[0, 0, 0] = -700

    refuse_other_than_hounsfield(CTVolume(hu, CANONICAL))


def changed(row, column, value):
    affine = CANONICAL.copy()
    affine[row, column] = value
    return affine


def test_a_turn_of_half_a_degree_is_kept_and_of_two_refused():
    for degrees in (0.5, 2.0):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        affine = np.array([[c, s, 0, 0], [-s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        affine = affine @ CANONICAL
        if degrees < 1:
            assert np.array_equal(CTVolume.canonical(voxels(), affine).affine, affine)
        else:
            with pytest.raises(VolumeError, match="oblique"):
                CTVolume.canonical(voxels(), affine)


def test_thick_slices_turned_a_little_keep_their_order():
    c, s = np.cos(np.radians(0.9)), np.sin(np.radians(0.9))
    turn = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])
    affine = turn @ np.diag([-0.7, -0.7, 60.0, 1])

    volume = CTVolume.canonical(voxels().transpose(2, 1, 0), affine)
    assert np.array_equal(volume.hu, voxels())
    assert volume.spacing == pytest.approx((60.0, 0.7, 0.7))


@pytest.mark.parametrize(
    ("affine", "sentence"),
    [
        (changed(1, 0, 0.3), "sheared"),
        (changed(2, 0, 250.0), "mm apart"),
        (changed(2, 0, 0.0), "mm apart"),
        (changed(0, 2, np.nan), "mm apart"),
    ],
)
def test_axes_that_have_no_canonical_order_are_refused(affine, sentence):
    with pytest.raises(VolumeError, match=sentence):
        CTVolume.canonical(voxels(), affine)


@pytest.mark.parametrize(
    ("affine", "sentence"),
    [(changed(2, 0, 0.0), "singular"), (changed(2, 3, np.inf), "finite")],
)
def test_a_volume_needs_a_place(affine, sentence):
    with pytest.raises(VolumeError, match=sentence):
        CTVolume(voxels(), affine)


def test_squaring_averages_and_keeps_every_corner_in_place():
    volume = CTVolume(voxels((3, 8, 8)), np.diag([2.0, 0.5, 0.5, 1]))

    small = volume.squared(4)
    assert small.hu.shape == (3, 4, 4)
    assert small.spacing == pytest.approx((2.0, 1.0, 1.0))
    assert place(small, (0, -0.5, -0.5)) == pytest.approx(
        place(volume, (0, -0.5, -0.5))
    )
    assert place(small, (2, 3.5, 3.5)) == pytest.approx(place(volume, (2, 7.5, 7.5)))
    assert small.hu.mean() == pytest.approx(volume.hu.mean(), abs=30)
    assert small.notes == ("in-plane 8x8 -> 4x4",)


def test_squaring_pads_the_shorter_side_with_air_and_keeps_places():
    volume = CTVolume(voxels((3, 4, 8)), np.diag([2.0, 0.5, 0.5, 1]))

    square = volume.squared(8)
    assert np.array_equal(square.hu[:, 2:6], volume.hu)
    assert (square.hu[:, :2] == AIR).all()
    assert (square.hu[:, 6:] == AIR).all()
    assert place(square, (1, 2, 0)) == pytest.approx(place(volume, (1, 0, 0)))
    assert square.notes == ("padded with air to 8x8",)


def test_a_square_volume_of_the_right_size_is_left_alone():
    volume = CTVolume(voxels((3, 8, 8)), np.diag([2.0, 0.5, 0.5, 1]))

    assert volume.squared(8) is volume
