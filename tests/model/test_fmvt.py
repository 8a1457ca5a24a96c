import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ctflow_fed.errors import SettingsError
from ctflow_fed.model import (
    PRESETS,
    Conditions,
    FMvT,
    FMvTConfig,
    FrameConditions,
    fresh_network,
)
from ctflow_fed.model.fmvt import is_extension

SMALL = FMvTConfig(layers=2, features=32, heads=2)
RELEASED = replace(SMALL, released=True)


def _trained(config: FMvTConfig = SMALL, *, extensions: bool = True) -> FMvT:
    """A network with no weight at zero, as after training; extensions if wanted."""
    network = fresh_network(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, value in network.named_parameters():
        if extensions or not is_extension(name):
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return network.eval()


def _clip(batch: int = 2, frames: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 16, frames, 8, 6, generator=generator)


def _times(batch: int = 2) -> torch.Tensor:
    return torch.linspace(0.2, 0.9, batch)


def _conditions(batch: int = 2, frames: int = 16, tokens: int = 3) -> Conditions:
    generator = torch.Generator().manual_seed(3)
    return Conditions(
        _clip(batch, frames).flip(0),
        torch.randn(batch, tokens, 768, generator=generator),
        torch.ones(batch, tokens, dtype=torch.bool),
        FrameConditions.of(
            torch.rand(batch, frames, 4, generator=generator).sort(1).values,
            torch.rand(batch, frames, generator=generator) < 0.5,
            torch.rand(batch, generator=generator),
        ),
    )


def _of_first(conditions: Conditions) -> Conditions:
    """Return the conditions of the first clip of a batch."""
    frames = conditions.frames
    return Conditions(
        conditions.context[:1],
        conditions.report[:1],
        conditions.report_mask[:1],
        FrameConditions.of(
            frames.geometry[:1], frames.known[:1], frames.noise_level[:1]
        ),
    )


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
@pytest.mark.parametrize("frames", [2, 6, 16, 34])
def test_a_clip_has_any_even_number_of_frames(config: FMvTConfig, frames: int):
    noisy = _clip(frames=frames)

    velocity = _trained(config)(noisy, _times(), _conditions(frames=frames))

    assert velocity.shape == noisy.shape
    assert velocity.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
@pytest.mark.parametrize("part", ["context", "report", "report_mask"])
def test_every_condition_changes_the_velocity_of_a_trained_network(
    config: FMvTConfig, part: str
):
    network, told = _trained(config), _conditions()
    value = getattr(told, part).clone()
    value[:, 0] = 0
    other = replace(told, **{part: value})

    difference = network(_clip(), _times(), other) - network(_clip(), _times(), told)

    assert difference.abs().amax((1, 2, 3, 4)).min() > 1e-5


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
@pytest.mark.parametrize(
    "part", ["height", "fraction", "spacing", "length", "known", "noise_level"]
)
def test_every_extension_changes_the_velocity_of_a_trained_network(
    config: FMvTConfig, part: str
):
    network, told = _trained(config), _conditions()
    frames = told.frames
    quantities = ["height", "fraction", "spacing", "length"]
    if part == "known":
        changed = replace(frames, known=~frames.known)
    elif part == "noise_level":
        changed = replace(frames, noise_level=frames.noise_level / 2)
    else:
        geometry = frames.geometry.clone()
        geometry[..., quantities.index(part)] += 0.3
        changed = replace(frames, geometry=geometry)

    velocity = network(_clip(), _times(), told)
    other = network(_clip(), _times(), replace(told, frames=changed))
    assert (other - velocity).abs().amax((1, 2, 3, 4)).min() > 1e-5


@torch.no_grad()
def test_the_time_changes_the_velocity_of_a_trained_network():
    network = _trained()

    early, late = (network(_clip(), t * _times(), _conditions()) for t in (1.0, 0.9))
    assert (early - late).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
@pytest.mark.parametrize("start", ["fresh", "trained without extensions"])
def test_extensions_change_nothing_until_they_are_trained(
    config: FMvTConfig, start: str
):
    network = (
        fresh_network(config, seed=0)
        if start == "fresh"
        else _trained(config, extensions=False)
    )
    told = _conditions()

    plain = network(_clip(), _times(), replace(told, frames=None))
    extended = network(_clip(), _times(), told)
    assert (plain - extended).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
def test_padding_tokens_are_not_seen(config: FMvTConfig):
    network, told = _trained(config), _conditions(tokens=3)
    padding = torch.full((2, 4, 768), 9.0)
    padded = replace(
        told,
        report=torch.cat([told.report, padding], dim=1),
        report_mask=torch.cat([told.report_mask, padding[..., 0] == 0], dim=1),
    )

    short = network(_clip(), _times(), told)
    long = network(_clip(), _times(), padded)
    assert torch.allclose(short, long, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, RELEASED])
@pytest.mark.parametrize("extended", [True, False])
def test_no_report_is_finite_and_the_same_whatever_its_hidden_tokens_are(
    config: FMvTConfig, extended: bool
):
    network, told = _trained(config), _conditions()
    if not extended:
        told = replace(told, frames=None)
    silent = told.without_report()
    other = replace(silent, report=torch.full_like(told.report, 5.0))

    velocity = network(_clip(), _times(), silent)
    assert velocity.isfinite().all()
    assert torch.equal(velocity, network(_clip(), _times(), other))
    assert (velocity - network(_clip(), _times(), told)).abs().max() > 1e-4


@torch.no_grad()
def test_the_null_token_is_seen_where_there_is_no_report_and_only_there():
    network, told = _trained(), _conditions()
    mixed = replace(told, report_mask=torch.tensor([[True] * 3, [False] * 3]))

    before = network(_clip(), _times(), mixed)
    network.y_embedder.null += torch.linspace(-1, 1, 32)
    after = network(_clip(), _times(), mixed)
    assert torch.equal(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-4


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch():
    network, told = _trained(), _conditions()

    together = network(_clip(), _times(), told)
    alone = network(_clip()[:1], _times()[:1], _of_first(told))
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_a_fresh_network_guesses_what_is_right_for_data_that_are_white_noise():
    velocity = fresh_network(SMALL, seed=0)(_clip(), _times(), _conditions())

    t = _times()[:, None, None, None, None]
    # E[noise - data | x_t] = cov(noise - data, x_t) / var(x_t) x_t
    expected = (t - (1 - t)) / (t**2 + (1 - t) ** 2) * _clip()
    assert torch.allclose(velocity, expected, atol=1e-6)


@torch.no_grad()
def test_a_released_network_predicts_the_velocity_itself():
    velocity = fresh_network(RELEASED, seed=0)(_clip(), _times(), _conditions())

    assert velocity.abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_velocity_is_finite_at_both_ends_of_the_path(t: float):
    velocity = _trained()(_clip(), torch.full((2,), t), _conditions())

    assert velocity.isfinite().all()


def test_checkpointing_changes_no_gradient():
    def gradients(checkpointing: bool) -> torch.Tensor:
        network = _trained().train()
        network.checkpointing = checkpointing
        network(_clip(), _times(), _conditions()).square().mean().backward()
        gradients = [value.grad for value in network.parameters()]
        return torch.cat([each.flatten() for each in gradients if each is not None])

    assert torch.allclose(gradients(True), gradients(False), atol=1e-6)


def test_fresh_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(5)
    first = fresh_network(SMALL, seed=7).state_dict()
    torch.manual_seed(6)
    second = fresh_network(SMALL, seed=7).state_dict()
    other = fresh_network(SMALL, seed=8).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("preset", "millions"), [("S", 36), ("B", 146), ("L", 512)])
def test_presets_have_the_sizes_of_the_paper(preset: str, millions: int):
    with torch.device("meta"):
        network = FMvT(PRESETS[preset])
    count = sum(
        value.numel()
        for name, value in network.named_parameters()
        if not is_extension(name)
    )

    assert count / 1e6 == pytest.approx(millions, rel=0.04)


def test_features_that_heads_cannot_share_are_refused():
    with pytest.raises(SettingsError, match="multiple"):
        FMvTConfig(layers=1, features=30, heads=4)


WHOLE_GRAPH = """
import torch
from ctflow_fed.model import Conditions, FMvTConfig, FrameConditions, fresh_network

config = FMvTConfig(layers=2, features=32, heads=2, released={released})
network = fresh_network(config, seed=0).eval()
told = Conditions(
    torch.randn(1, 16, 4, 4, 4), torch.randn(1, 3, 768), torch.ones(1, 3) > 0,
    FrameConditions.of(torch.rand(1, 4, 4), torch.zeros(1, 4) > 0, torch.zeros(1)),
)
inputs = torch.randn(1, 16, 4, 4, 4), torch.full((1,), 0.5), told
with torch.no_grad():
    compiled = torch.compile(network, fullgraph=True, backend="eager")(*inputs)
    assert torch.allclose(compiled, network(*inputs), atol=1e-5)
print("whole")
"""


@pytest.mark.slow
@pytest.mark.parametrize("released", [True, False])
def test_the_network_compiles_to_one_graph(released: bool):
    # In a process of its own: the checks of shapes under pytest cannot be compiled.
    code = WHOLE_GRAPH.format(released=released)
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )

    assert result.stdout == "whole\n", result.stderr[-2000:]
