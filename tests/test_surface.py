"""What a user may import, and what importing costs."""

import importlib
import subprocess
import sys
import time

import pytest

DOORS = {
    "ctflow_fed": ["__version__"],
    "ctflow_fed.augment": [
        "Cost",
        "GenerateSettings",
        "Job",
        "Origin",
        "Plan",
        "PlanSettings",
        "RandSyntheticCTd",
        "StoreStatus",
        "SynthRecord",
        "SynthRequest",
        "SynthStore",
        "SyntheticCTDataset",
        "extend",
        "generate",
        "mix_weights",
        "plan",
        "probe",
        "train_reader",
        "write_datalist",
        "write_dicom",
        "write_latents",
    ],
    "ctflow_fed.copies": ["CopyCheck", "CopyIndex", "Picture", "picture_of"],
    "ctflow_fed.flow": [
        "SOLVERS",
        "PathSample",
        "Velocity",
        "ab2",
        "euler",
        "flow_matching_loss",
        "guided_velocity",
        "heun",
        "logit_normal_times",
        "shift_for",
        "shifted",
        "straight_path",
        "time_grid",
    ],
    "ctflow_fed.model": [
        "PRESETS",
        "Conditions",
        "FMvT",
        "FMvTConfig",
        "FrameConditions",
        "ModelPackage",
        "Provenance",
        "base_model",
        "default_device",
        "fresh_network",
        "import_published",
        "load_package",
        "load_published",
        "package_folder",
        "save_package",
        "start_network",
    ],
    "ctflow_fed.sampling": ["SampleSettings", "VolumeRequest", "VolumeSampler"],
    "ctflow_fed.training": [
        "AdapterSettings",
        "FitResult",
        "NoisySteps",
        "PrivacyLedger",
        "PrivacySettings",
        "PrivateFit",
        "TrainSettings",
        "audited_epsilon",
        "check_channels",
        "check_origin",
        "describe",
        "epsilon_of",
        "evaluate_loss",
        "fit",
        "fit_privately",
        "load_adapter",
        "spent_in",
        "train",
    ],
}
"""Adding a name here is a visible act."""

HEAVY = ("torch", "monai", "ray", "flwr", "diffusers", "transformers", "nibabel")


@pytest.mark.parametrize("door", DOORS)
def test_a_door_shows_what_is_written_down_and_no_more(door: str):
    module = importlib.import_module(door)

    assert module.__all__ == DOORS[door]
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize(
    "module", ["ctflow_fed", "ctflow_fed.cli", "ctflow_fed.augment"]
)
def test_importing_loads_nothing_heavy(module: str):
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    loaded = set(result.stdout.split())
    assert not loaded & set(HEAVY)


def test_help_answers_in_half_a_second():
    command = [sys.executable, "-m", "ctflow_fed", "--help"]
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        began = time.perf_counter()
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)

    assert min(seconds) < 0.5
    assert "federation" in result.stdout


def test_a_wrong_input_is_one_sentence_and_exit_code_1(tmp_path):
    command = [sys.executable, "-m", "ctflow_fed", "train", str(tmp_path)]
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        check=False,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
