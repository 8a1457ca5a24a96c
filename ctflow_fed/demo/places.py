"""Where the demo keeps what, and what of it can be read back."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctflow_fed.ct.labels import FINDINGS

__all__ = ["Places", "items_of", "rows_of"]


@dataclass(frozen=True)
class Places:
    """The folder of a demo.

    hospitals/NAME/    what a hospital has: DICOM series and reports.csv
    sites/NAME/        its store of latents
    researcher/        what the researcher has: real and test, NIfTI
    federation/        the federated job
    model/             the model package that it made
    synthetic/         the synthetic volumes
    utility.json  summary.json  report.html  journal.json
    """

    folder: Path

    def hospital(self, name: str) -> Path:
        """What a hospital of the federation has."""
        return self.folder / "hospitals" / name

    def site(self, name: str) -> Path:
        """The store of a hospital."""
        return self.folder / "sites" / name

    @property
    def real(self) -> Path:
        """The researcher's own studies."""
        return self.folder / "researcher" / "real"

    @property
    def test(self) -> Path:
        """The studies of the held-out hospital."""
        return self.folder / "researcher" / "test"

    @property
    def federation(self) -> Path:
        """The federated job."""
        return self.folder / "federation"

    @property
    def model(self) -> Path:
        """The model package that the federation made."""
        return self.folder / "model"

    @property
    def synthetic(self) -> Path:
        """The synthetic volumes."""
        return self.folder / "synthetic"

    @property
    def utility(self) -> Path:
        """The result of the utility test."""
        return self.folder / "utility.json"

    @property
    def summary(self) -> Path:
        """The numbers of the run."""
        return self.folder / "summary.json"

    @property
    def page(self) -> Path:
        """The page that explains the run."""
        return self.folder / "report.html"


def items_of(folder: Path) -> list[dict[str, Any]]:
    """Return the studies of a folder of NIfTI phantoms as items of a MONAI dataset."""
    return [
        {
            "image": str(folder / f"{row['study']}.nii.gz"),
            "label": np.array([int(row[name]) for name in FINDINGS], np.float32),
            "report": f"{row['findings']}\n{row['impression']}",
            "synthetic": False,
            "sample_id": f"{folder.name}-{row['study']}",
        }
        for row in rows_of(folder)
    ]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the table of reports in ``folder``."""
    with (folder / "reports.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
