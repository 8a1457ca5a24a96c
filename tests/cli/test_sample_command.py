"""``ctflow sample``, ``extend``, ``between``: new volumes, real ones completed."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from ctflow_fed.cli import main
from ctflow_fed.cli.drawing import PLAN, SETTINGS
from ctflow_fed.ct.codec import codec_named
from ctflow_fed.ct.dicom import read_series
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.report import encoder_named
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.model import FMvT, FMvTConfig, Provenance, load_package, save_package
from ctflow_fed.sampling import SampleSettings
from ctflow_fed.sampling.settings import PLANS
from ctflow_fed.training.adapters import LAYERS, save_adapter
from ctflow_fed.training.merge import Adapter, AdapterSettings

REPORT = "Small left pleural effusion."
QUICK = ("--steps", "1", "--solver", "euler")


def save_model(folder: Path, method: str = "known") -> Path:
    """Save a network of random weights that draws slices of 32 x 32 pixels."""
    torch.manual_seed(0)
    network = FMvT(FMvTConfig(layers=1, features=32, heads=2))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    provenance = Provenance(
        codec_id=codec_named("haar").codec_id,
        encoder_id=encoder_named("hashing").encoder_id,
        latent_size=(8, 8),
        slices=16,
        spacing=(2.0, 10.0, 10.0),
        steps=1,
        seed=0,
        method=method,
    )
    save_package(folder, network, provenance)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NIfTI file of 20 slices that no model has seen."""
    hu = np.random.default_rng(0).integers(-1000, 400, (20, 48, 40), np.int16)
    affine = np.diag([3.0, -6.0, -6.0, 1.0])[[2, 1, 0, 3]]
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_nifti(CTVolume(hu, affine), path)
    return path


@pytest.fixture
def ctflow(monkeypatch, capsys):
    """Run ``ctflow`` as a user does; return its exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ctflow", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def description(path: Path) -> str:
    return nibabel.load(path).header["descrip"].item().decode()


def test_a_volume_is_drawn_and_says_that_it_is_synthetic(ctflow, model, tmp_path):
    out = tmp_path / "drawn.nii.gz"

    words = ("sample", model, "--report", REPORT, "--slices", 12, "--out", out)
    code, stdout, _ = ctflow(*words, *QUICK)

    assert code == 0
    assert "12 x 32 x 32 voxels" in stdout
    assert read_nifti(out).hu.shape == (12, 32, 32)
    assert description(out) == "SYNTHETIC CT - NOT FOR DIAGNOSTIC USE"


def test_an_empty_report_is_none(ctflow, model, tmp_path):
    volumes = {}
    for name, report in {"told": REPORT, "untold": "", "blank": "  "}.items():
        out = tmp_path / f"{name}.nii"
        words = ("sample", model, "--report", report, "--slices", 8, "--out", out)
        assert ctflow(*words, *QUICK)[0] == 0
        volumes[name] = read_nifti(out).hu

    assert np.array_equal(volumes["untold"], volumes["blank"])
    assert not np.array_equal(volumes["untold"], volumes["told"])


@pytest.mark.parametrize(
    "choice",
    [
        ("--plan", "autoregressive", "--clip-slices", "8", "--overlap", "2"),
        ("--guidance", "3"),
        ("--steps", "2"),
        ("--solver", "heun"),
    ],
)
def test_what_is_chosen_of_the_sampler_reaches_it(ctflow, model, tmp_path, choice):
    words = ("sample", model, "--report", REPORT, "--slices", 20, "--out")
    plain = ("--steps", 3, "--solver", "euler")

    assert ctflow(*words, tmp_path / "a.nii", *plain)[0] == 0
    assert ctflow(*words, tmp_path / "b.nii", *plain, *choice)[0] == 0

    first, second = (read_nifti(tmp_path / name).hu for name in ("a.nii", "b.nii"))
    assert not np.array_equal(first, second)


def test_a_batch_of_another_size_changes_nothing(ctflow, model, tmp_path):
    words = ("sample", model, "--report", REPORT, "--slices", 40, "--clip-slices", 8)
    exact = ("--precision", "float32")
    for size in (1, 16):
        out = tmp_path / f"{size}.nii"
        several = ("--batch-clips", size, "--out", out)
        assert ctflow(*words, *QUICK, *exact, *several)[0] == 0

    one, many = (read_nifti(tmp_path / f"{size}.nii").hu for size in (1, 16))
    assert np.abs(one.astype(int) - many).max() <= 1


def test_a_folder_becomes_a_dicom_series_that_says_that_it_is_synthetic(
    ctflow, model, tmp_path
):
    words = ("sample", model, "--report", REPORT, "--slices", 8, *QUICK)
    assert ctflow(*words, "--out", tmp_path / "drawn.nii")[0] == 0
    code, _, _ = ctflow(*words, "--out", tmp_path / "series")

    first = pydicom.dcmread(min((tmp_path / "series").iterdir()))
    assert code == 0
    assert first.SyntheticData == "YES"
    assert first.PatientID.startswith("SYN-")
    expected = read_nifti(tmp_path / "drawn.nii")
    volume = read_series(tmp_path / "series")
    assert np.array_equal(volume.hu, expected.hu)
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-3)


def test_a_volume_is_continued_and_its_own_slices_stay(ctflow, model, scan, tmp_path):
    out, expected = tmp_path / "whole.nii.gz", read_nifti(scan).squared(32)

    words = ("extend", model, scan, "--below", 3, "--above", 2, "--out", out)
    code, stdout, _ = ctflow(*words, *QUICK)

    whole = read_nifti(out)
    assert code == 0
    assert "5 of 25 slices are synthetic" in stdout
    assert description(out) == "SYNTHETIC CT (5 of 25 slices) - NOT FOR DIAGNOSTIC USE"
    assert len(whole.hu) == 3 + 20 + 2
    assert np.array_equal(whole.hu[3:-2], expected.hu)
    lowest = expected.affine @ (-3, 0, 0, 1)
    np.testing.assert_allclose(whole.affine[:, 3], lowest, atol=1e-3)


def test_slices_are_drawn_between_those_of_a_volume(ctflow, model, scan, tmp_path):
    out, expected = tmp_path / "fine.nii.gz", read_nifti(scan).squared(32)

    words = ("between", model, scan, "--factor", 3, "--report", REPORT)
    code, stdout, _ = ctflow(*words, "--out", out, *QUICK)

    fine = read_nifti(out)
    assert code == 0
    assert "38 of 58 slices are synthetic" in stdout
    assert description(out).startswith("SYNTHETIC CT (38 of 58 slices)")
    assert np.array_equal(fine.hu[::3], expected.hu)
    np.testing.assert_allclose(fine.spacing[0], expected.spacing[0] / 3, rtol=1e-5)


def test_a_real_chest_is_continued_and_its_own_slices_stay(
    ctflow, model, shared, tmp_path
):
    folder = shared / "realdata" / "volumes" / "lidc_0314_ds2"
    chest, out = folder / "ct_binned2x2x2.nii.gz", tmp_path / "whole.nii.gz"

    words = ("extend", model, chest, "--below", 4, "--above", 3, "--out", out)
    code, _, _ = ctflow(*words, *QUICK)

    assert code == 0
    assert np.array_equal(read_nifti(out).hu[4:-3], read_nifti(chest).squared(32).hu)


def test_a_real_dicom_series_gets_finer_slices_and_its_own_stay(
    ctflow, model, shared, tmp_path
):
    series = shared / "realdata" / "volumes" / "totalseg_example_dicom_j2k" / "dicom"
    out, expected = tmp_path / "fine.nii.gz", read_series(series).squared(32)

    code, _, _ = ctflow("between", model, series, "--out", out, *QUICK)

    fine = read_nifti(out)
    assert code == 0
    assert len(fine.hu) == 2 * len(expected.hu) - 1
    assert np.array_equal(fine.hu[::2], expected.hu)


def save_random_adapter(folder: Path, model: Path, base: str) -> Path:
    package = load_package(model)
    layers = {
        name: layer
        for name, layer in package.network.named_modules()
        if LAYERS.fullmatch(name)
    }
    down = {f"{n}.lora_A": torch.randn(2, m.in_features) for n, m in layers.items()}
    up = {f"{n}.lora_B": torch.randn(m.out_features, 2) for n, m in layers.items()}
    settings = AdapterSettings(rank=2, alpha=1)
    save_adapter(folder, Adapter(settings, base, down | up, package.provenance))
    return folder


def test_an_adapter_changes_what_its_model_draws(ctflow, model, tmp_path):
    digest = load_package(model).digest
    adapter = save_random_adapter(tmp_path / "adapter", model, digest)
    words = ("sample", model, "--report", REPORT, "--slices", 8, *QUICK, "--out")

    assert ctflow(*words, tmp_path / "a.nii")[0] == 0
    assert ctflow(*words, tmp_path / "b.nii", "--adapter", adapter)[0] == 0

    first, second = (read_nifti(tmp_path / name).hu for name in ("a.nii", "b.nii"))
    assert not np.array_equal(first, second)


def test_an_adapter_of_another_model_is_refused(ctflow, model, tmp_path):
    adapter = save_random_adapter(tmp_path / "adapter", model, "0" * 64)
    words = ("sample", model, "--report", REPORT, "--adapter", adapter)

    code, _, stderr = ctflow(*words, "--out", tmp_path / "drawn.nii")

    assert code == 1
    assert "belongs to another model" in stderr
    assert not (tmp_path / "drawn.nii").exists()


def test_a_model_of_the_papers_method_cannot_complete_a_volume(ctflow, scan, tmp_path):
    papers = save_model(tmp_path / "papers", "ctflow")

    code, _, stderr = ctflow(
        *("extend", papers, scan, "--above", 2, "--out", tmp_path / "whole.nii")
    )

    assert code == 1
    assert "train it further with the method known" in stderr


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "MODEL", "--out", "a.nii"),
        ("sample", "MODEL", "--report", "", "--out", "a.nrrd"),
        ("sample", "MODEL", "--report", "", "--out", "full"),
        ("sample", "MODEL", "--report", "", "--out", "full/a-file"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--slices", "0"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--slice-mm", "0"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--steps", "0"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--steps", "many"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--solver", "magic"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--plan", "magic"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--guidance", "nan"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--clip-slices", "7"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--overlap", "64"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--precision", "int8"),
        ("sample", "MODEL", "--report", "", "--out", "a.nii", "--adapter", "full"),
        ("sample", "full", "--report", "", "--out", "a.nii"),
        ("extend", "MODEL", "SCAN", "--out", "a.nii"),
        ("extend", "MODEL", "SCAN", "--below", "-1", "--above", "2", "--out", "a.nii"),
        ("extend", "MODEL", "SCAN", "--above", "9999", "--out", "a.nii"),
        ("extend", "MODEL", "SCAN", "--above", "2", "--out", "series"),
        ("extend", "MODEL", "SCAN", "--above", "2", "--out", "SCAN"),
        ("extend", "MODEL", "full/a-file", "--above", "2", "--out", "a.nii"),
        ("extend", "MODEL", "full", "--above", "2", "--out", "a.nii"),
        ("between", "MODEL", "absent.nii", "--out", "a.nii"),
        ("between", "MODEL", "SCAN", "--factor", "1", "--out", "a.nii"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_and_nothing_is_written(
    ctflow, model, scan, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "a-file").write_text("something")
    before, content = sorted(tmp_path.rglob("*")), scan.read_bytes()

    named = {"MODEL": model, "SCAN": scan}
    code, stdout, stderr = ctflow(*(named.get(word, word) for word in words))

    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert scan.read_bytes() == content


@pytest.mark.parametrize("command", ["sample", "extend", "between"])
def test_the_help_shows_the_defaults_of_the_sampler(ctflow, command):
    _, stdout, _ = ctflow(command, "--help")

    said = " ".join(stdout.split())
    for option in SETTINGS:
        default = getattr(SampleSettings, option.strip("-").replace("-", "_"))
        of_option = said.split(f" {option} ")[1]
        assert of_option.split("[default: ")[1].startswith(f"{default}]")


def test_the_help_names_every_plan():
    (_, text), *_ = PLAN.values()

    assert all(plan in text for plan in PLANS)
