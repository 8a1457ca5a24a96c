"""Does the model treat those it was trained on otherwise than those it was not?

An attacker who holds the weights, the scans and their reports scores every patient, the
higher the more likely trained on. Three scores are tried, each a mean over the same
times and the same noise for all:

    loss        minus the flow-matching loss of the patient's clips
    report      how much the report lowers it: hard scans are hard with and without one
                (the discrepancy of arXiv 2405.14800)
    reference   how much lower it is than that of another model, which did not see the
                patient: what is hard is so for both (arXiv 2112.03570)
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Generator, Tensor
from tqdm import tqdm

from ctflow_fed.clips import CLIP_SLICES
from ctflow_fed.ct.store import LatentStore, StudyRecord
from ctflow_fed.flow import flow_matching_loss, straight_path
from ctflow_fed.machine import autocast
from ctflow_fed.model import FMvT, ModelPackage
from ctflow_fed.seeds import derive_seed
from ctflow_fed.training import check_origin
from ctflow_fed.training.batch import ClipBatch, Place, known_clips, previous_clips
from ctflow_fed.training.fit import check_store

__all__ = ["membership_scores"]

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where on the path the loss is taken; 1 is noise."""

CLIPS = 4
"""Clips of a study at most."""

PatientScores = Float64[np.ndarray, " patients"]


def membership_scores(
    model: ModelPackage,
    store: LatentStore,
    *,
    seed: int,
    reference: ModelPackage | None = None,
) -> dict[str, PatientScores]:
    """Return the score of each patient of a store by attack.

    A study that names no patient is one of its own. The attack by reference is there
    if a model for it is. Raises ``MismatchError`` where a model is of other latents or
    reports than the store.
    """
    for package in (model, reference):
        if package is not None:
            check_origin(package.provenance, store.header)
            check_store(package.network, store)
    told = tqdm(store.records, "membership", unit="study", disable=None)
    rows = [_scores(model, reference, store, record, seed) for record in told]
    patients = [
        record.patient or f"study {record.study_id}" for record in store.records
    ]
    return {
        name: _by_patient([row[name] for row in rows], patients) for name in rows[0]
    }


def _by_patient(scores: list[float], patients: list[str]) -> PatientScores:
    """Return the mean over the studies of each patient."""
    gathered: dict[str, list[float]] = {}
    for score, patient in zip(scores, patients, strict=True):
        gathered.setdefault(patient, []).append(score)
    return np.array([np.mean(each) for each in gathered.values()])


def _scores(
    model: ModelPackage,
    reference: ModelPackage | None,
    store: LatentStore,
    record: StudyRecord,
    seed: int,
) -> dict[str, float]:
    batch = _clips(store, record, model.provenance.method)
    silent = replace(batch, conditions=batch.conditions.without_report())
    weights = store.channel_weights
    loss = _mean_loss(model.network, batch, weights, seed)
    found = {
        "loss": -loss,
        "report": _mean_loss(model.network, silent, weights, seed) - loss,
    }
    if reference is not None:
        batch = _clips(store, record, reference.provenance.method)
        found["reference"] = _mean_loss(reference.network, batch, weights, seed) - loss
    return found


def _clips(store: LatentStore, record: StudyRecord, method: str) -> ClipBatch:
    """Return clips of a study as its method of training takes them, nothing known.

    Ours reach over the whole volume, each beginning at another slice; the paper's are
    of neighbours.
    """
    still = Generator().manual_seed(0)  # nothing is drawn: no context has noise
    if method == "ctflow":
        starts = range(0, record.slices, CLIP_SLICES)
        places = [
            Place(record, tuple(range(first, first + CLIP_SLICES)))
            for first in starts[:CLIPS]
        ]
        return previous_clips(store, places, torch.zeros(len(places)), still)
    places = list(_whole_clips(record))
    unknown = torch.zeros(len(places), CLIP_SLICES, dtype=torch.bool)
    batch = known_clips(store, places, unknown, torch.zeros(len(places)), still)
    inside = torch.tensor([place.clip for place in places]) < record.slices
    return replace(batch, scored=batch.scored & inside)


def _whole_clips(record: StudyRecord) -> Iterator[Place]:
    stride = -(-record.slices // CLIP_SLICES)
    for first in range(min(stride, CLIPS)):
        yield Place(record, tuple(range(first, first + CLIP_SLICES * stride, stride)))


@torch.inference_mode()
def _mean_loss(network: FMvT, batch: ClipBatch, weights: Tensor, seed: int) -> float:
    """Return the mean loss over clips and `TIMES`; noise depends on the seed alone.

    In bfloat16, where the device computes it, a loss is off by a few thousandths of how
    far those of patients lie apart.
    """
    device = next(network.parameters()).device
    batch, weights = batch.to(device), weights.to(device)[:, None, None, None]
    scored = batch.scored[:, None, :, None, None].float() * weights
    losses = []
    for number, time in enumerate(TIMES):
        generator = Generator().manual_seed(derive_seed("membership", seed, number))
        noise = torch.randn(batch.data.shape, generator=generator).to(device)
        t = torch.full((len(batch.data),), time, device=device)
        path = straight_path(batch.data, noise, t)
        with autocast(device):
            velocity = network(path.x_t, t, batch.conditions)
        losses.append(flow_matching_loss(velocity, path.u_t, scored))
    return float(torch.stack(losses).mean())
