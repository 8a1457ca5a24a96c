"""Real series equal SimpleITK's reading; every awkward folder is refused."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from ctflow_fed.ct.dicom import read_series
from ctflow_fed.ct.volume import AIR, CTVolume
from ctflow_fed.errors import VolumeError


@pytest.fixture(scope="session")
def unpacked(shared, tmp_path_factory):
    """Return a function that unpacks an archive of real slices, once a session."""
    folders: dict[str, Path] = {}

    def unpack(archive: str) -> Path:
        if archive not in folders:
            folders[archive] = tmp_path_factory.mktemp("series")
            with tarfile.open(shared / "realdata" / archive) as tar:
                tar.extractall(folders[archive], filter="data")
        return folders[archive]

    return unpack


def simpleitk_reading(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [slices, rows, cols] and their RAS affine, as SimpleITK reads a series."""
    (holder,) = {path.parent for path in folder.rglob("*") if path.is_file()}
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(holder)))
    image = reader.Execute()
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = (directions * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize(
    "archive",
    [
        "volumes/crlm_1004/dicom.tar.xz",
        pytest.param("volumes/lung1_001/dicom.tar.xz", marks=pytest.mark.slow),
        pytest.param("volumes/cmbcrc_msb01068/dicom.tar.xz", marks=pytest.mark.slow),
    ],
)
def test_axial_series_equal_simpleitk_voxel_by_voxel(unpacked, archive):
    volume = read_series(unpacked(archive))

    voxels, affine = simpleitk_reading(unpacked(archive))
    assert np.array_equal(volume.hu, np.maximum(voxels, AIR))
    assert np.abs(volume.affine - affine).max() < 1e-9


def test_wavelet_files_without_extension_equal_simpleitk(shared, tmp_path):
    source = shared / "realdata/volumes/totalseg_example_dicom_j2k"
    volume = read_series(source)  # with a NIfTI beside the folder, left aside

    voxels, affine = simpleitk_reading(source / "dicom")
    assert np.array_equal(volume.hu, np.maximum(voxels, AIR))
    assert np.abs(volume.affine - affine).max() < 1e-9


def test_sagittal_slices_with_oblong_pixels_become_canonical(unpacked):
    folder = unpacked("awkward/a34_sagittal_ct_nonsquare_pixels.tar.xz")
    volume = read_series(folder)

    voxels, affine = simpleitk_reading(folder)
    expected = CTVolume.canonical(voxels, affine)
    assert volume.hu.shape == (512, 512, 8)
    assert volume.spacing == pytest.approx((1.6797, 1.3672, 1.6797), abs=1e-4)
    assert np.array_equal(volume.hu, expected.hu)
    assert np.abs(volume.affine - expected.affine).max() < 1e-9


def test_slices_beside_another_kind_of_object_are_read_without_it(shared, tmp_path):
    source = shared / "realdata/awkward/a37_implicit_vr_no_studydate_ibsi"
    for path in source.glob("DCM_IMG*"):
        shutil.copy(path, tmp_path)
    volume = read_series(source)  # with an RTSTRUCT beside them

    voxels, affine = simpleitk_reading(tmp_path)
    assert np.array_equal(volume.hu, np.maximum(voxels, AIR))
    assert np.abs(volume.affine - affine).max() < 1e-9


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("a01_gantry_tilt_siemens", "tilted gantry"),
        ("a02_missing_slice_ge", "gaps of 5 to 10 mm"),
        ("a05_mixed_orientations_one_series_mr", "another kind"),
        ("a06_4d_series_mr_fmri", "another kind"),
        ("a07_non_isotropic_pixels", "another kind"),  # of an MR
        ("a10_one_chest_slice_in_16_transfer_syntaxes", "lossy"),
        ("a15_duplicate_slice_mixed_syntax", "single one"),
        ("a16_enhanced_multiframe_no_geometry", "another unit"),
        ("a19_rgb_secondary_capture", "another kind"),
        ("a20_truncated_j2k_and_enhanced_mr", "another kind"),
        ("a21_dicom_seg_object", "another kind"),
        ("a30_scout_plus_axial_one_folder", "2 patients"),
        ("a36_tiny_ct_plus_seg_one_folder", "another unit"),  # RescaleType US
        ("a38_single_lung_kernel_slice", "single one"),
        ("n01_head_cta_not_hu_float", "none in it"),
    ],
)
def test_every_awkward_folder_is_refused(shared, folder, sentence):
    with pytest.raises(VolumeError, match=sentence):
        read_series(shared / "realdata/awkward" / folder)


SYNTAXES = "a10_one_chest_slice_in_16_transfer_syntaxes"


@pytest.mark.parametrize(
    "ending",
    ["1.2", "1.2.1", "1.2.1.99", "1.2.2", "1.2.5", "4.57", "4.70", "4.80", "4.90"],
)
def test_a_chest_slice_is_the_same_in_every_lossless_syntax(shared, tmp_path, ending):
    (slice_file,) = (shared / "realdata/awkward" / SYNTAXES).glob(
        f"*.840*.{ending}.dcm"
    )
    stack_twice(slice_file, tmp_path)

    reference = SimpleITK.GetArrayFromImage(
        SimpleITK.ReadImage(str(shared / "realdata/awkward" / SYNTAXES / "CTImage.dcm"))
    )
    expected = np.maximum(np.repeat(reference, 2, axis=0), AIR)
    assert np.array_equal(read_series(tmp_path).hu, expected)


@pytest.mark.parametrize("ending", ["50", "51", "53", "55", "81", "91"])
def test_a_chest_slice_is_refused_in_every_lossy_syntax(shared, tmp_path, ending):
    (slice_file,) = (shared / "realdata/awkward" / SYNTAXES).glob(f"*4.{ending}.dcm")
    shutil.copy(slice_file, tmp_path)

    with pytest.raises(VolumeError, match="lossy"):
        read_series(tmp_path)


def stack_twice(slice_file: Path, folder: Path) -> None:
    """Write two copies of a slice, 5 mm apart, in its own transfer syntax."""
    dataset = pydicom.dcmread(slice_file)
    for number in range(2):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 5 * number]
        dataset.save_as(folder / f"{number}.dcm")


@pytest.mark.slow
def test_oddities_alone_in_a_folder_raise_nothing_but_volume_error(tmp_path):
    oddities = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path for path in sorted(oddities.rglob("*")) if path.is_file()]
    assert len(files) > 50
    for number, path in enumerate(files):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(path, folder)
        with pytest.raises(VolumeError):
            read_series(folder)
