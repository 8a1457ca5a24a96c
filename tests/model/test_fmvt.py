from dataclasses import replace

import pytest
import torch

from ctflow_fed.errors import SettingsError
from ctflow_fed.model import PRESETS, FMvT, FMvTConfig, fresh_network

SMALL = FMvTConfig(layers=2, features=32, heads=2)


def _trained() -> FMvT:
    """A network with no weight at zero, as after training."""
    network = fresh_network(SMALL, seed=0)
    generator = torch.Generator().manual_seed(1)
    for value in network.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return network.eval()


def _inputs(batch: int = 2, tokens: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    clip = torch.randn(batch, 16, 16, 8, 6, generator=generator)
    return {
        "noisy": clip,
        "timestep": torch.linspace(0.2, 0.9, batch),
        "context": clip.flip(0),
        "report": torch.randn(batch, tokens, 768, generator=generator),
        "geometry": torch.rand(batch, 16, 4, generator=generator),
    }


@torch.no_grad()
def test_the_velocity_has_the_shape_of_the_clip():
    inputs = _inputs()

    assert _trained()(**inputs).shape == inputs["noisy"].shape


@torch.no_grad()
@pytest.mark.parametrize("part", ["timestep", "context", "report", "geometry"])
def test_every_condition_changes_the_velocity_of_a_trained_network(part: str):
    network, inputs = _trained(), _inputs()
    changed = inputs | {part: inputs[part] * 0.5}

    difference = network(**changed) - network(**inputs)

    assert difference.abs().max() > 1e-4


@torch.no_grad()
def test_padding_tokens_are_not_seen():
    network, inputs = _trained(), _inputs(tokens=3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    padded = torch.cat([inputs["report"], torch.full((2, 4, 768), 9.0)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)

    short = network(**inputs, report_mask=mask)
    long = network(**(inputs | {"report": padded}), report_mask=padded_mask)

    assert torch.allclose(short, long, atol=1e-5)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch():
    network, inputs = _trained(), _inputs()
    alone = {name: value[:1] for name, value in inputs.items()}

    assert torch.allclose(network(**inputs)[:1], network(**alone), atol=1e-5)


@torch.no_grad()
def test_a_fresh_network_guesses_that_all_data_are_zero():
    inputs = _inputs()

    velocity = fresh_network(SMALL, seed=0)(**inputs)

    assert torch.allclose(
        velocity, inputs["noisy"] / inputs["timestep"][:, None, None, None, None]
    )


@torch.no_grad()
def test_a_released_network_predicts_the_velocity_itself():
    config = replace(SMALL, predicts_data=False)

    assert fresh_network(config, seed=0)(**_inputs()).abs().max() == 0


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
    count = sum(value.numel() for value in network.parameters())

    assert count / 1e6 == pytest.approx(millions, rel=0.04)


def test_features_that_heads_cannot_share_are_refused():
    with pytest.raises(SettingsError, match="multiple"):
        FMvTConfig(layers=1, features=30, heads=4)
