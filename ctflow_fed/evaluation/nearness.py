"""Does a volume lie near its own report? CT-CLIP's score (arXiv 2403.17834).

CT-CLIP brings volumes and reports to one space; the score is 100 max(0, cosine), the
mean over the volumes. It is read beside that of real scans and that of reports dealt
out anew. A generator that was conditioned on CT-CLIP's text tower, as the paper's is,
is judged by what it was taught with: let another reader judge it as well.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import normalize

from ctflow_fed.ct.report import TOKEN_FEATURES, CTCLIPReportEncoder
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.evaluation.features import (
    CTCLIPVolumes,
    FeatureCache,
    Measured,
    as_published,
)
from ctflow_fed.evaluation.figure import Evaluation, Figure
from ctflow_fed.evaluation.measuring import measure_each
from ctflow_fed.evaluation.scans import Scan
from ctflow_fed.evaluation.scores import Interval, draw_patients, interval
from ctflow_fed.seeds import derive_seed

__all__ = ["CTCLIP", "measure_nearness", "nearness_figure"]

DRAWS = 1000
FEWEST = 5
PROJECTION = "to_text_latent.weight"
UNSAID = str.maketrans("", "", "\"'()")
"""What CT-CLIP's own script leaves out of reports."""

Cosines = Float[np.ndarray, "volumes reports"]


class CTCLIP:
    """Both towers of CT-CLIP.

    Args:
        folder: holds ``config.json`` and ``vocab.txt`` of CXR-BERT, and the whole
            checkpoint as ``model.safetensors``.

    Raises ``PackageError`` where something of that is missing or does not fit.
    """

    def __init__(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        self.volumes = CTCLIPVolumes(weights)
        self._tower = CTCLIPReportEncoder(str(folder), class_token=True)
        self._projection = _projection(weights)
        expected = (self.volumes.width, TOKEN_FEATURES)
        is_finite = bool(self._projection.isfinite().all())
        if self._projection.shape != expected or not is_finite:
            raise PackageError(
                f"expected a whole checkpoint of CT-CLIP, with {PROJECTION} of "
                f"{expected[0]} x {expected[1]} finite numbers, got none; "
                "take the checkpoint, not a tower of it"
            )

    @property
    def encoder_id(self) -> str:
        """What the reports' places depend on, but for their projection."""
        return self._tower.encoder_id

    def volume(self, volume: CTVolume) -> Float[Tensor, " features"]:
        """Return where a volume lies, a vector of length 1."""
        return self.volumes.latent(as_published(volume))

    def reports(self, texts: Sequence[str]) -> Float[Tensor, "reports features"]:
        """Return where reports lie, vectors of length 1."""
        said = [text.translate(UNSAID) for text in texts]
        tokens = self._tower.encode(said).tokens[:, 0]
        return normalize(tokens @ self._projection.T, dim=-1)


Told = Sequence[tuple[Scan, str]]
"""Volumes and the report of each."""


def measure_nearness(
    real: Told, drawn: Told, *, ctclip: Path, cache: Path, seed: int
) -> Evaluation:
    """Score volumes and real scans with CT-CLIP's weights in a folder.

    What was made of each volume stays in ``cache``. Raises ``SettingsError`` for too
    few of either, and what `CTCLIP` raises.
    """
    patients = [scan.patient for scan, _ in real], [scan.patient for scan, _ in drawn]
    found = [len(set(each)) for each in patients]
    if min(found) < FEWEST:
        raise SettingsError(
            f"expected volumes with reports of {FEWEST} real and {FEWEST} synthetic "
            f"patients or more, got {found[0]} and {found[1]}; name the files in the "
            "tables"
        )
    judge, kept = CTCLIP(ctclip), FeatureCache(cache)
    of_real = _cosines(real, judge, kept, "real")
    of_drawn = _cosines(drawn, judge, kept, "synthetic")
    figure = nearness_figure(of_real, of_drawn, patients, seed=seed)
    made = {
        "real": len(real),
        "synthetic": len(drawn),
        "towers": [judge.volumes.extractor_id, judge.encoder_id],
        "settings": {"seed": seed},
    }
    return Evaluation("alignment", [figure], made)


def nearness_figure(
    real: Cosines,
    drawn: Cosines,
    patients: tuple[Sequence[str], Sequence[str]],
    *,
    seed: int,
) -> Figure:
    """Return the score of volumes; row and column of a number are one volume's.

    ``patients`` are those of the real and of the synthetic volumes.
    """
    value, floor = _own(drawn, patients[1], seed), _dealt_out(drawn, seed)
    return Figure(
        name="ctclip_score",
        part="",
        n=len(drawn),
        value=value,
        floor=floor,
        ceiling=_own(real, patients[0], seed),
        convention="the whole interval is above 97.5 % of reports dealt out anew",
        verdict="pass" if value.low > floor.high else "fail",
        method="mean of 100 max(0, cosine) of a volume and its report in the space of "
        "CT-CLIP, bootstrap over patients; floor: reports dealt out anew; ceiling: "
        "real scans",
    )


def _projection(weights: Path) -> Float[Tensor, "..."]:
    """Read the projection of reports alone; empty where there is none."""
    with safe_open(weights, framework="pt") as file:
        if PROJECTION in file.keys():  # noqa: SIM118  # no dict
            found: Tensor = file.get_tensor(PROJECTION)
            return found.float()
    return torch.empty(0)


def _cosines(told: Told, judge: CTCLIP, cache: FeatureCache, name: str) -> Cosines:
    def near(volume: CTVolume) -> Measured:
        with torch.inference_mode():
            return {"latent": judge.volume(volume)}

    key: list[object] = ["nearness", 1, judge.volumes.extractor_id]
    rows = measure_each([scan for scan, _ in told], near, cache, key, told=name)
    volumes = torch.stack([row["latent"] for row in rows])
    reports = judge.reports([report for _, report in told])
    cosines: Cosines = (volumes @ reports.T).double().numpy()
    return cosines


def _own(cosines: Cosines, patients: Sequence[str], seed: int) -> Interval:
    """Return the mean score of volumes with their own reports."""
    scores = _score(cosines.diagonal())
    draws = draw_patients(patients, repeats=1, draws=DRAWS, seed=seed).weights
    return interval(scores.mean(), draws @ scores / draws.sum(1))


def _dealt_out(cosines: Cosines, seed: int) -> Interval:
    """Return the mean score under reports dealt out anew, and where 95 % of it lie."""
    rng = np.random.default_rng(derive_seed("dealt out", seed))
    rows = np.arange(len(cosines))
    dealt = [_score(cosines[rows, rng.permutation(rows)]).mean() for _ in range(DRAWS)]
    return interval(float(np.mean(dealt)), np.array(dealt))


def _score(
    cosines: Float[np.ndarray, " volumes"],
) -> Float[np.ndarray, " volumes"]:
    return 100 * cosines.clip(0)
