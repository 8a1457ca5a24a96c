"""A phantom in every awkward form that DICOM has, with the truth beside it.

CASE/...             the series, as a PACS would export it
truth/CASE.nii.gz    what has to be read from it, where anything can be
reports.csv          a row for each case
cases.json           for each case: its policy, verdict, and a word of the reason;
                     the policy has to accept what is synthetic besides
"""

import copy
import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path

import gdcm
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ctflow_fed.ct.account import Verdict
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.phantom import forms
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.phantom.study import draw
from ctflow_fed.errors import SettingsError
from ctflow_fed.files import write_json

__all__ = ["CASES", "AwkwardCase", "write_awkward"]


@dataclass(frozen=True)
class AwkwardCase:
    """One awkward form: what intake has to say of it under a ``policy``.

    ``reason`` is a part of the sentence; a case that is refused has no truth.
    """

    verdict: Verdict
    make: forms.Make = field(repr=False)
    reason: str = ""
    policy: dict[str, str] = field(default_factory=dict)


def write_awkward(out: Path, *, seed: int = 0) -> None:
    """Write every case of `CASES` from the phantom of ``seed``, without noise.

    Raises ``SettingsError`` when ``out`` exists and is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise SettingsError(
            "expected a new or empty folder, got one with files in it; choose another"
        )
    scanner = Scanner(slices=40, rows=96, slice_mm=6.0, noise_hu=0.0)
    volume = draw(seed, scanner=scanner).volume
    regular = forms.regular(volume, seed)
    for name, case in CASES.items():
        for file, dataset in case.make(copy.deepcopy(regular), volume):
            path = out / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path, enforce_file_format=True)
        if case.verdict != "refused":
            write_nifti(volume, out / "truth" / f"{name}.nii.gz")
    _write_table(out / "reports.csv")
    told = {
        name: {key: value for key, value in asdict(case).items() if key != "make"}
        for name, case in CASES.items()
    }
    write_json(out / "cases.json", told)


def _write_table(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["study", "findings"])
        table.writerows([name, "No finding."] for name in CASES)


CASES: dict[str, AwkwardCase] = {
    "plain": AwkwardCase("taken", forms.plain),
    "permuted": AwkwardCase("taken", forms.permuted),
    "copies": AwkwardCase("corrected", forms.copied, "2 identical copies"),
    "doubled": AwkwardCase("refused", forms.doubled, "several that differ"),
    "gap": AwkwardCase("refused", forms.gap, "missing slice"),
    "localizer": AwkwardCase("taken", forms.with_localizer),
    "two-series": AwkwardCase("taken", forms.two_series, "chosen: 40 slices"),
    "two-patients": AwkwardCase("refused", forms.two_patients, "2 patients"),
    "tilt": AwkwardCase("refused", forms.tilted, "tilted gantry (14.0 degrees)"),
    "tilt-corrected": AwkwardCase(
        "corrected", forms.tilted, "corrected by shear", {"tilt": "correct"}
    ),
    "uneven": AwkwardCase("refused", forms.uneven, "gaps of 5 to 7 mm"),
    "uneven-resampled": AwkwardCase(
        "corrected", forms.uneven, "resampled", {"uneven": "resample"}
    ),
    "coronal": AwkwardCase("taken", forms.along(1)),
    "sagittal": AwkwardCase("taken", forms.along(2)),
    "far-intercept": AwkwardCase("taken", forms.far_intercept),
    "own-rescale": AwkwardCase("taken", forms.own_rescale),
    "no-rescale": AwkwardCase("taken", forms.no_rescale),
    "no-hounsfield": AwkwardCase("refused", forms.no_hounsfield, "no air"),
    "padding": AwkwardCase("taken", forms.padded),
    "lossy": AwkwardCase("refused", forms.lossy, "lossy"),
    "lossy-accepted": AwkwardCase(
        "corrected", forms.lossy, "HU may be off", {"lossy": "accept"}
    ),
    "multi-frame": AwkwardCase("taken", forms.multi_frame),
    "implicit": AwkwardCase("taken", forms.in_syntax(ImplicitVRLittleEndian)),
    "big-endian": AwkwardCase(
        "taken", forms.by_gdcm(gdcm.TransferSyntax.ExplicitVRBigEndian)
    ),
    "deflated": AwkwardCase("taken", forms.in_syntax(DeflatedExplicitVRLittleEndian)),
    "rle": AwkwardCase("taken", forms.in_syntax(RLELossless)),
    "jpeg": AwkwardCase(
        "taken", forms.by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14)
    ),
    "jpeg-sv1": AwkwardCase(
        "taken", forms.by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    ),
    "jpeg-ls": AwkwardCase("taken", forms.by_gdcm(gdcm.TransferSyntax.JPEGLSLossless)),
    "jpeg-2000": AwkwardCase(
        "taken", forms.by_gdcm(gdcm.TransferSyntax.JPEG2000Lossless)
    ),
}
"""Every awkward form by its name."""
