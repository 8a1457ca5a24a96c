import base64
import io

import numpy as np
from PIL import Image

from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.report.figures import LUNG, MEDIASTINUM, views

AFFINE = np.array([[0, 0, -2.0, 0], [0, -2.0, 0, 0], [8.0, 0, 0, 0], [0, 0, 0, 1.0]])


def opened(view):
    kind, _, data = view.source.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def flat(hu):
    return CTVolume(np.full((16, 32, 32), hu, dtype=np.int16), AFFINE)


def test_a_volume_is_shown_at_three_levels_in_two_windows_and_from_the_front():
    captions = [view.caption for view in views(flat(-600))]

    assert captions == [
        "lower axial, lung window",
        "middle axial, lung window",
        "middle axial, mediastinal window",
        "upper axial, lung window",
        "coronal, lung window",
    ]


def test_grey_is_where_the_value_lies_in_its_window():
    lung, mediastinum = (opened(view) for view in views(flat(40))[1:3])

    for picture, window in ((lung, LUNG), (mediastinum, MEDIASTINUM)):
        expected = 255 * (40 - window.low) / (window.high - window.low)
        assert abs(picture.mean() - expected) < 1


def test_the_coronal_picture_has_the_head_up_and_the_shape_of_the_body():
    volume = flat(-1000)
    volume.hu[8:] = 100  # the upper half

    picture = opened(views(volume)[-1])

    assert picture.shape == (400, 200)  # 16 x 8 mm high, 32 x 2 mm wide
    assert picture[:150].mean() > 200
    assert picture[250:].mean() < 100


def test_the_right_side_of_the_patient_is_on_the_left():
    volume = flat(-1000)
    volume.hu[:, :, :16] = 100  # columns run from the patient's right

    picture = opened(views(volume)[0])

    assert picture[:, :90].mean() > picture[:, 110:].mean()
