"""An attacker at the server of a private job guesses which made-up patients joined."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from client.app import app as client
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.federation import WireArray, arrays_of, minus, part_of, unpack
from ctflow_fed.model import PRESETS, fresh_network, load_package, save_package
from ctflow_fed.training import NoisySteps, audited_epsilon, describe, epsilon_of
from ctflow_fed.training import private as private_training
from ctflow_fed.training.gaussian import clipped
from ctflow_fed.training.private import PatientDraws, patient_gradient
from server.rounds import play_job

CANARIES, ROUNDS, NOISE, DELTA = 60, 2, 8.0, 1e-5
JOINED = np.random.default_rng(0).random(CANARIES) < 0.5
CLAIM = epsilon_of([NoisySteps(NOISE, 1.0, ROUNDS)], DELTA)

pytestmark = pytest.mark.slow


@pytest.fixture
def canaries(haar_store, tmp_path):
    """A store of all canaries, whose latents are noise; beside it that of site `a`."""
    like, weights = LatentStore.open(haar_store), [1.0] * 16
    every, some = (
        LatentStore.create(tmp_path / name, like.header, like.edges, weights)
        for name in ("all", "a")
    )
    for number in range(CANARIES):
        generator = torch.Generator().manual_seed(number)
        latents = torch.randn((16, 16, 8, 8), generator=generator)
        for store in [every, some] if JOINED[number] else [every]:
            store.put(
                f"canary-{number}",
                latents,
                like.tokens("study-0"),
                spacing=(5.0, 8.0, 8.0),
                labels={},
                patient=str(number),
            )
    return LatentStore.open(tmp_path / "all")


@pytest.fixture
def settings(settings, canaries, tmp_path):
    """Rounds of one step each, in which every patient takes part."""
    network = fresh_network(PRESETS["nano"], seed=0)
    generator = torch.Generator().manual_seed(1)
    for value in network.parameters():  # behind a last layer of zeros nothing is learnt
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    save_package(tmp_path / "base", network, describe(canaries, steps=0, seed=0))
    return replace(
        settings,
        sites=("a",),
        init=str(tmp_path / "base"),
        rounds=ROUNDS,
        steps=1,
        adapter_rank=4,
        batch_clips=int(JOINED.sum()),
        dp_epsilon=1.0,
        dp_noise=NOISE,
        round_seconds=60.0,
    )


def found_out(direct_grid, settings, canaries):
    """Play the job and return the epsilon that what the server sees refutes.

    It sees the weights before and after each round, and knows all that is drawn of a
    patient but who takes part and the noise. So it explains the way from the ones to
    the others by the clipped gradients of all canaries, with a ridge against noise. In
    one step AdamW moves all weights equally far, so each is seen in its own size.
    """
    network = load_package(Path(settings.init)).network
    part = part_of(network.config, arrays_of(network), 4, 0, private=True)
    sent, patients = [part.first], canaries.by_patient()

    def answer(message, context):
        reply = client(message, context)
        if "arrays" in reply.content:
            arrays = reply.content["arrays"]
            wire = {n: WireArray(a.dtype, a.shape, a.data) for n, a in arrays.items()}
            sent.append(unpack(wire, part.manifest))
        return reply

    play_job(direct_grid({"a": canaries.folder.parent / "a"}, a=answer), settings)
    scores = np.zeros(CANARIES)
    for number, (before, after) in enumerate(pairwise(sent), 1):
        network = part.trainable(before).train()
        draws = PatientDraws(settings.seed, number, "a")
        gradients = torch.stack(
            [
                clipped(
                    patient_gradient(
                        network, each, settings.training(), draws.generator(0, each)
                    )[1],
                    settings.dp_clip,
                )
                for each in patients
            ]
        )
        names = [n for n, v in network.named_parameters() if v.requires_grad]
        way = minus(before, after)
        ways = [way[name.removesuffix(".default.weight")].reshape(-1) for name in names]
        gradients /= gradients.norm(dim=0).clamp(min=1e-12)
        ridge = gradients @ gradients.T + torch.eye(CANARIES).double()
        went = torch.from_numpy(np.concatenate(ways)).double()
        scores += torch.linalg.solve(ridge, gradients @ went).numpy()
    joined = np.array([JOINED[int(each.records[0].patient)] for each in patients])
    return audited_epsilon(scores, joined, guesses=40, delta=DELTA)


def test_the_server_of_a_private_job_finds_out_less_than_is_claimed(
    direct_grid, settings, canaries
):
    assert found_out(direct_grid, settings, canaries) < CLAIM


def test_the_server_finds_out_a_site_that_adds_no_noise(
    direct_grid, settings, canaries, monkeypatch
):
    monkeypatch.setattr(private_training, "noisy", lambda total, privacy: total)

    assert found_out(direct_grid, settings, canaries) > CLAIM
