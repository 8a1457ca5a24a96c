"""NIfTI: the same voxels in the same places for every reader, doubts refused."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import SettingsError, VolumeError
from ctflow_fed.files import sha256_of

LPS = np.array(
    [[-0.7, 0, 0, 81.25], [0, -0.9, 0, 60.5], [0, 0, 2.5, -310.125], [0, 0, 0, 1.0]]
)


def chest_like():
    """A small volume with air, in canonical order."""
    noise = np.random.default_rng(7).integers(-1024, 1500, (6, 24, 20))
    return CTVolume(noise.astype(np.int16), LPS[:, [2, 1, 0, 3]])


def save(path: Path, voxels=None, affine=LPS, *, sform=1, qform=1, unit="mm"):
    """Write a NIfTI file with nibabel, by default a good one."""
    if voxels is None:
        voxels = chest_like().hu.transpose(2, 1, 0)
    image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


def overwrite(path, offset, value):
    """Change bytes of a header."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(bytes(content))


# --- writing --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nibabel_finds_each_voxel_where_the_volume_says(tmp_path, name):
    volume = chest_like()
    write_nifti(volume, tmp_path / name, description="SYNTHETIC")

    image = nibabel.load(tmp_path / name)
    place = volume.affine @ (4, 10, 3, 1)
    index = np.rint(np.linalg.inv(image.affine) @ place).astype(int)
    assert np.asarray(image.dataobj)[tuple(index[:3])] == volume.hu[4, 10, 3]
    assert np.array_equal(np.asarray(image.dataobj), volume.hu.transpose(2, 1, 0))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.int16
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["descrip"].item() == b"SYNTHETIC"
    assert np.abs(image.header.get_qform() - image.header.get_sform()).max() < 1e-4


def test_simpleitk_sees_the_same_voxels_in_the_same_places(tmp_path):
    volume = chest_like()
    write_nifti(volume, tmp_path / "v.nii.gz")

    image = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
    place = (volume.affine @ (4, 10, 3, 1))[:3] * (-1, -1, 1)
    assert image.TransformIndexToPhysicalPoint((3, 10, 4)) == pytest.approx(place, 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # an optional decoder
def test_monai_sees_the_same_voxels_in_the_same_places(tmp_path):
    from monai.transforms import LoadImaged

    volume = chest_like()
    write_nifti(volume, tmp_path / "v.nii.gz")

    load = LoadImaged("image", image_only=True, ensure_channel_first=True)
    image = load({"image": str(tmp_path / "v.nii.gz")})["image"]
    assert image.shape == (1, 20, 24, 6)
    assert np.array_equal(image[0].numpy(), volume.hu.transpose(2, 1, 0))
    place = np.linalg.inv(image.affine.numpy()) @ volume.affine @ (4, 10, 3, 1)
    assert np.abs(place - (3, 10, 4, 1)).max() < 1e-4


def test_the_same_volume_gives_the_same_file_under_any_name(tmp_path):
    write_nifti(chest_like(), tmp_path / "a.nii.gz")
    write_nifti(chest_like(), tmp_path / "b" / "other.nii.gz")

    assert sha256_of(tmp_path / "a.nii.gz") == sha256_of(tmp_path / "b/other.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b"]


@pytest.mark.parametrize(
    ("name", "description"), [("v.mha", ""), ("v.nii", "x" * 80), ("v.nii", "größer")]
)
def test_what_does_not_fit_into_the_format_is_refused(tmp_path, name, description):
    with pytest.raises(SettingsError):
        write_nifti(chest_like(), tmp_path / name, description=description)


# --- reading --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_written_volume_is_read_back_exactly(tmp_path, name):
    volume = chest_like()
    write_nifti(volume, tmp_path / name)

    read = read_nifti(tmp_path / name)
    assert np.array_equal(read.hu, volume.hu)
    assert np.abs(read.affine - volume.affine).max() < 1e-5  # float32 in the file


@pytest.mark.parametrize("lean", [0.0009, -0.0009])
def test_a_volume_that_is_sheared_or_turned_a_little_is_read_back(tmp_path, lean):
    sheared, turned_too = np.eye(4), np.eye(4)
    sheared[0, 1] = turned_too[0, 1] = lean
    turned_too[1, 0] = -lean
    hu = np.zeros((2, 900, 900), np.int16) - 1000
    for change in (sheared, turned_too):
        volume = CTVolume(hu, change @ chest_like().affine)
        write_nifti(volume, tmp_path / "v.nii")

        read = read_nifti(tmp_path / "v.nii")
        assert np.abs(read.affine - volume.affine).max() < 1e-5


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "PSR", "SAL", "IRP"])
def test_voxels_of_any_axis_order_come_to_the_same_places(tmp_path, axes):
    image = nibabel.Nifti1Image(chest_like().hu.transpose(2, 1, 0), LPS)
    target = nibabel.orientations.axcodes2ornt(axes)
    now = nibabel.io_orientation(LPS)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(now, target))
    turned.set_qform(None, code=0)
    turned.to_filename(tmp_path / "v.nii")

    read = read_nifti(tmp_path / "v.nii")
    assert np.array_equal(read.hu, chest_like().hu)
    assert np.abs(read.affine - chest_like().affine).max() < 1e-4


def test_scaling_is_applied_and_rounded_to_whole_hu(tmp_path):
    stored = np.arange(0, 20 * 24 * 6, dtype=np.int16).reshape(20, 24, 6)
    scaling = np.array([0.5, -1200], "<f4").tobytes()
    save(tmp_path / "v.nii", stored)
    overwrite(tmp_path / "v.nii", 112, scaling)

    expected = np.maximum(np.rint(stored * 0.5 - 1200), AIR).transpose(2, 1, 0)
    assert np.array_equal(read_nifti(tmp_path / "v.nii").hu, expected)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64, ">i2"])
def test_every_real_type_of_voxels_is_read(tmp_path, dtype):
    save(tmp_path / "v.nii", chest_like().hu.transpose(2, 1, 0).astype(dtype))

    assert np.array_equal(read_nifti(tmp_path / "v.nii").hu, chest_like().hu)


def test_a_fourth_dimension_of_one_is_no_obstacle_and_no_unit_means_mm(tmp_path):
    voxels = chest_like().hu.transpose(2, 1, 0)[..., None]
    save(tmp_path / "v.nii", voxels, unit="unknown")

    assert np.array_equal(read_nifti(tmp_path / "v.nii").hu, chest_like().hu)


def voxels_with(value):
    voxels = chest_like().hu.transpose(2, 1, 0).astype(np.float32)
    voxels[3, 4, 5] = value
    return voxels


def turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ LPS


def sheared():
    affine = LPS.copy()
    affine[1, 2] = 0.6
    return affine


def save_conflict(path):
    save(path)
    image = nibabel.load(path)
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ LPS, code=1)
    image.to_filename(path.with_name("w.nii"))
    path.with_name("w.nii").replace(path)


def save_header(path, offset, value):
    overwrite(save(path), offset, value)


COLOURS = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

DAMAGES = {
    "absent": (lambda p: None, "missing, broken"),
    "no NIfTI": (lambda p: p.write_bytes(b"x" * 1000), "missing, broken"),
    "empty": (lambda p: p.write_bytes(b""), "missing, broken"),
    "cut": (lambda p: p.write_bytes(save(p).read_bytes()[:3000]), "cut short"),
    "series": (lambda p: save(p, np.zeros((9, 9, 9, 2), np.int16)), "dimensions"),
    "picture": (lambda p: save(p, np.zeros((9, 9), np.int16)), "dimensions"),
    "single slice": (
        lambda p: save(p, np.full((9, 9, 1), -1000, np.int16)),
        "at least two slices",
    ),
    "metres": (lambda p: save(p, unit="meter"), "expected millimetres"),
    "odd unit": (lambda p: save_header(p, 123, b"\x07"), "expected millimetres"),
    "complex": (lambda p: save(p, np.zeros((9, 9, 9), np.complex64)), "real voxels"),
    "colours": (lambda p: save(p, np.zeros((9, 9, 9), COLOURS)), "real voxels"),
    "not a number": (lambda p: save(p, voxels_with(np.nan)), "finite voxels"),
    "infinite": (lambda p: save(p, voxels_with(np.inf)), "finite voxels"),
    "not HU": (lambda p: save(p, np.full((9, 9, 9), 20, np.uint8)), "no air"),
    "no placement": (lambda p: save(p, sform=0, qform=0), "neither sform nor qform"),
    "conflict": (save_conflict, "two orientations"),
    "singular": (
        lambda p: save_header(p, 312, np.zeros(4, "<f4").tobytes()),
        "two orientations",
    ),
    "nowhere": (
        lambda p: save_header(p, 280, np.full(4, np.nan, "<f4").tobytes()),
        "two orientations",
    ),
    "sheared": (lambda p: save(p, affine=sheared(), qform=0), "sheared"),
    "oblique": (lambda p: save(p, affine=turned(5)), "oblique"),
    "far too large": (
        lambda p: save_header(p, 42, np.array([32000] * 3, "<i2").tobytes()),
        "voxels a side",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_doubtful_file_is_refused(tmp_path, damage):
    spoil, sentence = DAMAGES[damage]
    spoil(tmp_path / "doe_jane.nii")

    with pytest.raises(VolumeError, match=sentence) as refusal:
        read_nifti(tmp_path / "doe_jane.nii")
    assert "doe" not in str(refusal.value)


def test_a_singular_sform_alone_is_refused(tmp_path):
    save(tmp_path / "v.nii", qform=0)
    overwrite(tmp_path / "v.nii", 312, bytes(16))

    with pytest.raises(VolumeError, match="mm apart"):
        read_nifti(tmp_path / "v.nii")


def test_a_cut_gzip_stream_is_refused(tmp_path):
    content = gzip.compress(save(tmp_path / "v.nii").read_bytes())
    (tmp_path / "v.nii.gz").write_bytes(content[: len(content) // 2])

    with pytest.raises(VolumeError, match="cut short"):
        read_nifti(tmp_path / "v.nii.gz")


def test_headers_changed_at_random_are_read_or_refused(tmp_path):
    intact = save(tmp_path / "v.nii").read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(150):
        content = bytearray(intact)
        for place in random.integers(0, 348, 3):
            content[place] = random.integers(256)
        (tmp_path / "v.nii").write_bytes(bytes(content))
        try:
            read_nifti(tmp_path / "v.nii")
        except VolumeError:
            refused += 1

    assert 0 < refused < 150


# --- real files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "ibsi_lung_phantom/ct.nii.gz",
        "lidc_0314_ds2/ct_binned2x2x2.nii.gz",
        "totalseg_example_ct_3mm/ct.nii.gz",
        "totalseg_example_ct_sm/ct.nii.gz",
    ],
)
def test_real_volumes_equal_simpleitk_voxel_by_voxel(shared, name):
    path = shared / "realdata/volumes" / name
    volume = read_nifti(path)

    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    voxels = SimpleITK.GetArrayFromImage(image).astype(np.float64)
    assert np.array_equal(volume.hu, np.maximum(np.rint(voxels), AIR))
    assert volume.spacing == pytest.approx(image.GetSpacing()[::-1], 1e-5)
    origin = volume.affine[:3, 3] * (-1, -1, 1)
    assert image.GetOrigin() == pytest.approx(origin, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("awkward/n01_head_cta_not_hu_float/CT_AVM.nii.gz", "no air"),
        ("awkward/n03_nibabel_4d_and_nifti2/anatomical.nii", "no air"),
        ("awkward/n03_nibabel_4d_and_nifti2/example4d.nii.gz", "dimensions"),
        ("awkward/n03_nibabel_4d_and_nifti2/example_nifti2.nii.gz", "dimensions"),
        ("volumes/lung1_001/gtv_mask_from_rtstruct.nii.gz", "no air"),
    ],
)
def test_files_that_are_no_ct_in_hu_are_refused(shared, name, sentence):
    with pytest.raises(VolumeError, match=sentence):
        read_nifti(shared / "realdata" / name)
