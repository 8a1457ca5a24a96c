"""Canaries in the space of gradients: an attacker who sees every noisy step."""

import numpy as np
import pytest
import torch

from ctflow_fed.errors import SettingsError
from ctflow_fed.training import (
    NoisySteps,
    PrivacySettings,
    audited_epsilon,
    epsilon_of,
)
from ctflow_fed.training.gaussian import clipped, noisy, poisson_sample

CANARIES, STEPS, RATE, DELTA = 2000, 10, 0.5, 1e-5
PRIVACY = PrivacySettings(epsilon=100.0, noise_multiplier=4.0, clip=0.5)
CLAIM = epsilon_of([NoisySteps(4.0, RATE, STEPS)], DELTA)


def _lower_bound(privacy: PrivacySettings, *, clip: bool = True) -> float:
    """Train on canaries alone, each with a direction of its own, and guess who joined.

    Their gradients are ten times as long as the clip.
    """
    joined = np.random.default_rng(0).random(CANARIES) < 0.5
    members = np.flatnonzero(joined).tolist()
    scores = np.zeros(CANARIES)
    for _ in range(STEPS):
        total = torch.zeros(CANARIES, dtype=torch.float64)
        for canary in poisson_sample(members, RATE):
            gradient = torch.zeros(CANARIES)
            gradient[canary] = 10 * privacy.clip
            total += clipped(gradient, privacy.clip) if clip else gradient
        scores += noisy(total, privacy).numpy()
    return audited_epsilon(scores, joined, guesses=500, delta=DELTA)


def test_canaries_find_out_less_than_is_claimed():
    assert 0 < _lower_bound(PRIVACY) < CLAIM


def test_the_audit_finds_training_without_noise_or_without_clipping():
    nearly_silent = PrivacySettings(epsilon=1.0, noise_multiplier=0.1, clip=0.5)

    assert _lower_bound(nearly_silent) > 1.5 * CLAIM
    assert _lower_bound(PRIVACY, clip=False) > 1.5 * CLAIM


def test_right_guesses_give_the_bound_of_their_number():
    joined = np.arange(100) >= 50
    scores = np.arange(100, dtype=np.float64)

    all_right = audited_epsilon(scores, joined, guesses=100, delta=0.0)
    p = 0.05 ** (1 / 100)  # one hundred guesses are right with a chance of p^100

    assert all_right == pytest.approx(np.log(p / (1 - p)), abs=2e-3)
    assert audited_epsilon(scores, ~joined, guesses=100, delta=0.0) == 0.0
    with pytest.raises(SettingsError, match="guesses"):
        audited_epsilon(scores, joined, guesses=101, delta=0.0)
