"""The scanner: geometry, blur, noise."""

import numpy as np
import pytest

from ctflow_fed.ct.phantom import Scanner, draw
from ctflow_fed.errors import SettingsError


def test_a_resized_scanner_covers_the_same_length():
    scanner = Scanner(slices=60, slice_mm=5).resized(32, 64)
    assert scanner.slices * scanner.slice_mm == pytest.approx(300)
    assert scanner.rows * scanner.pixel_mm == pytest.approx(scanner.field_mm)


def test_the_volume_is_placed_in_canonical_order():
    scanner = Scanner().resized(32, 64)
    volume = draw(0, scanner=scanner).volume
    assert volume.spacing == pytest.approx((scanner.slice_mm, 6.0, 6.0))
    up, back, left = volume.affine[:3, :3].T
    assert up[2] > 0
    assert back[1] < 0
    assert left[0] < 0
    middle = volume.affine @ [*(np.array(volume.hu.shape) - 1) / 2, 1]
    assert middle[:3] == pytest.approx(0)


def test_noise_has_the_level_that_was_asked_for():
    water = np.zeros((8, 64, 64), np.float32)
    seen = Scanner(noise_hu=20).acquire(water, 1)
    assert 15 < seen.std() < 40


def test_a_soft_kernel_has_coarser_noise_than_a_sharp_one():
    water = np.zeros((4, 64, 64), np.float32)
    soft, sharp = (
        Scanner(sharpness=s).acquire(water, 1).astype(float) for s in (0.0, 1.0)
    )

    def neighbours(hu: np.ndarray) -> float:
        return float(np.corrcoef(hu[..., 1:].ravel(), hu[..., :-1].ravel())[0, 1])

    assert neighbours(soft) > neighbours(sharp) + 0.2


def test_a_soft_kernel_blurs_edges():
    edge = np.zeros((1, 16, 16), np.float32)
    edge[..., 8:] = 1000
    soft = Scanner(noise_hu=0, sharpness=0).acquire(edge, 0)
    sharp = Scanner(noise_hu=0, sharpness=1).acquire(edge, 0)
    assert 100 < soft[0, 8, 7] < 300
    assert sharp[0, 8, 7] == 0


@pytest.mark.parametrize(
    "wrong",
    [{"slices": 0}, {"rows": 4}, {"field_mm": 10}, {"noise_hu": -1}, {"sharpness": 2}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        Scanner(**wrong)
