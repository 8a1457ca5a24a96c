"""The latents of clips: from noise along the flow, given what is known."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ctflow_fed.flow import SOLVERS, guided_velocity, shift_for, shifted, time_grid
from ctflow_fed.machine import autocast
from ctflow_fed.model import Conditions, FMvT, FrameConditions
from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.seeds import derive_seed
from ctflow_fed.shapes import Clip

__all__ = ["clip_noise", "draw_clips"]

PAIRED_TWICE = 0.25
"""In this last part of the steps, where details are decided, slices are paired both
ways; in the last step at least. With half that part neighbours in a volume of eight
steps differ by 56 HU in place of 41."""

Evaluate = Callable[[Clip, Tensor, Conditions], Clip]


def draw_clips(
    network: FMvT, noise: Clip, conditions: Conditions, settings: SampleSettings
) -> Clip:
    """Follow the flow from noise to clips.

    Known frames go the straight way to what the context holds in their place, so that
    the others see of them at every time what they saw in training.
    """
    frames = conditions.frames
    given = None
    if frames is not None:
        known = frames.known[:, None, :, None, None]
        given = known, noise - conditions.context

    # The released network is followed in equal steps, as its paper does.
    shift = 1.0 if frames is None else _shift(noise, settings)
    times = shifted(time_grid(settings.steps), shift).to(noise.device)
    near = times[-1 - max(1, int(PAIRED_TWICE * settings.steps))]

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        evaluate = _paired_twice if frames is not None and t[0] <= near else _once
        guess = _velocity(partial(evaluate, network), x, t, conditions, settings)
        return guess if given is None else torch.where(given[0], given[1], guess)

    with autocast(noise.device, settings.precision):
        return SOLVERS[settings.solver](velocity, noise, times)


def clip_noise(shape: tuple[int, ...], seed: int, *place: int) -> Clip:
    """Return the noise of one clip, a function of its volume's seed and its place."""
    generator = torch.Generator().manual_seed(derive_seed("sample", seed, *place))
    return torch.randn(1, *shape, generator=generator)


def _velocity(
    evaluate: Evaluate,
    x: Clip,
    t: Tensor,
    conditions: Conditions,
    settings: SampleSettings,
) -> Clip:
    """Return the velocity, guided where the settings say so."""
    low, high = settings.guided
    if settings.guidance == 1.0 or not low <= float(t[0]) <= high:
        return evaluate(x, t, conditions)
    both = _joined(conditions, conditions.without_report())
    velocities = evaluate(torch.cat([x, x]), torch.cat([t, t]), both)
    if both.frames is not None:
        # What is known needs no guidance, nor a say in it.
        velocities = velocities * ~both.frames.known[:, None, :, None, None]
    told, untold = velocities.chunk(2)
    return guided_velocity(told, untold, settings.guidance)


def _once(network: FMvT, x: Clip, t: Tensor, conditions: Conditions) -> Clip:
    return network(x, t, conditions).float()


def _paired_twice(network: FMvT, x: Clip, t: Tensor, conditions: Conditions) -> Clip:
    """Return the mean velocity over both ways to pair slices.

    A patch holds two slices, which fit one another better than those of the next
    patch. Without its first and last slice a clip is paired the other way; in the mean
    of both, the jumps between slices are all alike.
    """
    velocity = _once(network, x, t, conditions)
    if x.shape[2] < 4:
        return velocity
    inside = network(x[:, :, 1:-1], t, conditions.inside()).float()
    velocity[:, :, 1:-1] = (velocity[:, :, 1:-1] + inside) / 2
    return velocity


def _shift(noise: Clip, settings: SampleSettings) -> float:
    return shift_for(settings.time_shift, noise[0, 0].numel())


def _joined(first: Conditions, second: Conditions) -> Conditions:
    """Put two batches of conditions into one."""
    frames = None
    if first.frames is not None and second.frames is not None:
        frames = FrameConditions(
            torch.cat([first.frames.geometry, second.frames.geometry]),
            torch.cat([first.frames.known, second.frames.known]),
            torch.cat([first.frames.nearest, second.frames.nearest]),
            torch.cat([first.frames.noise_level, second.frames.noise_level]),
        )
    return Conditions(
        torch.cat([first.context, second.context]),
        torch.cat([first.report, second.report]),
        torch.cat([first.report_mask, second.report_mask]),
        frames,
    )
