import numpy as np
import torch

from ctflow_fed.evaluation.classifier import Classifier, Recipe, fit_and_score

RECIPE = Recipe(steps=2, batch=3, learning_rate=1e-3, seed=4)


def few(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, 1, 16, 16, 16), generator=generator)


def labels(count):
    return np.arange(count * 2).reshape(count, 2) % 3 == 0


def test_the_same_seed_gives_the_same_scores_and_another_seed_others():
    arguments = few(5, 0), labels(5), few(4, 1)

    first = fit_and_score(*arguments, RECIPE)
    again = fit_and_score(*arguments, RECIPE)
    other = fit_and_score(*arguments, Recipe(2, 3, 1e-3, seed=5))

    assert first.shape == (4, 2)
    assert ((first > 0) & (first < 1)).all()
    assert (first == again).all()
    assert (first != other).any()


def test_training_leaves_the_random_state_of_the_program_alone():
    before = torch.random.get_rng_state()

    fit_and_score(few(3, 0), labels(3), few(2, 1), RECIPE)

    assert torch.equal(before, torch.random.get_rng_state())


def test_training_leaves_the_volumes_as_they_are():
    volumes = few(3, 0)
    before = volumes.clone()

    fit_and_score(volumes, labels(3), few(2, 1), RECIPE)

    assert torch.equal(before, volumes)


def test_a_network_of_ones_own_is_trained():
    class Mean(torch.nn.Module):
        def __init__(self, findings):
            super().__init__()
            self.weights = torch.nn.Linear(1, findings)

        def forward(self, volumes):
            return self.weights(volumes.mean((2, 3, 4)))

    volumes = torch.linspace(-1, 1, 8)[:, None, None, None, None].expand(8, 1, 4, 4, 4)
    labels = (np.arange(8) >= 4)[:, None]
    recipe = Recipe(steps=200, batch=8, learning_rate=0.3, seed=0)

    scores = fit_and_score(volumes, labels, volumes, recipe, Classifier("mean", Mean))

    assert (scores[:, 0] > 0.5).tolist() == labels[:, 0].tolist()
