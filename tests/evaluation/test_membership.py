"""Generators that remember are told from those that do not, by their loss."""

import numpy as np
import pytest
import torch

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import MismatchError
from ctflow_fed.evaluation.exposure import membership_area
from ctflow_fed.evaluation.membership import membership_scores
from ctflow_fed.model import PRESETS, FMvT, ModelPackage, fresh_network
from ctflow_fed.training import describe

STUDIES = 20


class Memory(FMvT):
    """The flow that leads to the clips it remembers, and to nothing else."""

    def remember(self, store):
        clips = [store.slices(each.study_id, 0, each.slices) for each in store.records]
        self.clips = torch.stack(clips).transpose(1, 2)
        return self

    def forward(self, x_t, t, conditions):
        t = t[:, None, None, None, None]
        far = (x_t[:, None] - (1 - t[:, None]) * self.clips).square().flatten(2).sum(2)
        near = (-far / (2 * t.flatten()[:, None].square())).softmax(1)
        return (x_t - torch.tensordot(near, self.clips, 1)) / t


@pytest.fixture(scope="module")
def stores(haar_store, tmp_path_factory):
    """Members, others, and patients that nobody asks about; all latents are noise."""
    like = LatentStore.open(haar_store)
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name in ("members", "others", "unasked"):
        folder = tmp_path_factory.mktemp(name)
        store = LatentStore.create(folder, like.header, like.edges, [1.0] * 16)
        for number in range(STUDIES):
            store.put(
                f"{name}-{number}",
                torch.randn((16, 16, 8, 8), generator=rng),
                like.tokens("study-0"),
                spacing=(5.0, 8.0, 8.0),
                labels={},
                patient=f"{name}-{number}",
            )
        made[name] = store
    return made


def package(network, store):
    return ModelPackage(network, describe(store, steps=0, seed=0), "")


def area(model, stores, attack, **options):
    members, others = (
        membership_scores(model, stores[name], seed=0, **options)[attack]
        for name in ("members", "others")
    )
    return membership_area(members, others, seed=0)


def test_a_generator_that_remembers_is_found_out(stores):
    network = Memory(PRESETS["nano"]).remember(stores["members"])

    assert area(package(network, stores["members"]), stores, "loss").low > 0.95


def test_a_generator_that_remembers_others_does_not_tell_members_apart(stores):
    network = Memory(PRESETS["nano"]).remember(stores["unasked"])

    found = area(package(network, stores["members"]), stores, "loss")
    assert found.low <= 0.5 <= found.high


def test_a_reference_shows_what_the_difficulty_of_scans_hides(stores):
    members, others = stores["members"], stores["others"]
    network = fresh_network(PRESETS["nano"], seed=0).eval()
    leaky = package(Memory(PRESETS["nano"]).remember(members), members)

    found = area(leaky, stores, "reference", reference=package(network, others))
    assert found.low > 0.95


def test_scores_repeat_and_are_one_a_patient(haar_store):
    store = LatentStore.open(haar_store)
    model = package(fresh_network(PRESETS["nano"], seed=0).eval(), store)

    first, second = (membership_scores(model, store, seed=1) for _ in range(2))

    assert first["loss"].shape == (3,)  # no patient is named: each study is its own
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_store_of_another_codec_is_refused(haar_store):
    store = LatentStore.open(haar_store)
    origin = describe(store, steps=0, seed=0)
    other = ModelPackage(
        fresh_network(PRESETS["nano"], seed=0),
        type(origin)(**{**origin.__dict__, "codec_id": "another"}),
        "",
    )

    with pytest.raises(MismatchError):
        membership_scores(other, store, seed=0)
