"""The strategies of a job: how the weights of the sites become the next weights.

A strategy is an average over the sites and, for some, the rule of an optimiser at the
server, which takes the way from the weights that were sent to their average as one step
of descent. FedProx (1812.06127) is any of them with ``proximal`` above 0: it changes
what the sites minimise, not what the server does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctflow_fed.federation.aggregate import (
    coordinate_median,
    federated_average,
    trimmed_mean,
)
from ctflow_fed.federation.arrays import Arrays, Run, values_of
from ctflow_fed.federation.encoding import compress

__all__ = ["STRATEGIES", "ServerState", "Strategy", "advance", "follow", "rounded"]

TAU = 1e-3
"""How adaptive FedAdam is; the value of its paper's main experiments."""

Float64 = NDArray[np.float64]
Average = Callable[[Mapping[str, Arrays], Mapping[str, float]], Arrays]


class Step(NamedTuple):
    """What a rule adds to one array, and what it remembers of it."""

    change: Float64
    moments: tuple[Float64, ...]


Rule = Callable[[Float64, tuple[Float64, ...], float], Step]


def momentum(delta: Float64, moments: tuple[Float64, ...], rate: float) -> Step:
    """FedAvgM (1909.06335): ``m = 0.9 m + delta; w += rate m``."""
    (m,) = moments
    m = 0.9 * m + delta
    return Step(rate * m, (m,))


def nesterov(delta: Float64, moments: tuple[Float64, ...], rate: float) -> Step:
    """Outer step of DiLoCo (2311.08105): ``m = 0.9 m + d; w += rate (d + 0.9 m)``."""
    (m,) = moments
    m = 0.9 * m + delta
    return Step(rate * (delta + 0.9 * m), (m,))


def adam(delta: Float64, moments: tuple[Float64, ...], rate: float) -> Step:
    """FedAdam (2003.00295, Algorithm 2).

    ``m = 0.9 m + 0.1 d; v = 0.99 v + 0.01 d^2; w += rate m / (sqrt(v) + tau)``.
    """
    m, v = moments
    m = 0.9 * m + 0.1 * delta
    v = 0.99 * v + 0.01 * delta**2
    return Step(rate * m / (np.sqrt(v) + TAU), (m, v))


@dataclass(frozen=True)
class Strategy:
    """An average over the sites and the rule of the server, if there is one.

    ``moments`` names what the rule remembers of each weight, and says with what it
    begins; ``learning_rate`` is what the rule is given unless another is chosen.
    """

    average: Average
    rule: Rule | None = None
    moments: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 1.0


STRATEGIES = {
    "fedavg": Strategy(federated_average),
    "fedavgm": Strategy(federated_average, momentum, {"momentum": 0.0}),
    "fedadam": Strategy(federated_average, adam, {"mean": 0.0, "square": TAU**2}, 0.01),
    "diloco": Strategy(federated_average, nesterov, {"momentum": 0.0}, 0.7),
    "trimmed-mean": Strategy(trimmed_mean),
    "median": Strategy(coordinate_median),
}
"""Every strategy by the name that a job calls it."""


@dataclass(frozen=True)
class ServerState:
    """What the server carries from round to round, all of it float32.

    ``weights`` are what the sites hold; ``moments`` is what the strategy remembers, by
    the names of its moments; ``average`` is the moving average of the weights, empty
    without one; ``residual`` is what rounding took from the last change of the weights,
    empty where they travel as they are.
    """

    weights: Arrays
    moments: Mapping[str, Arrays] = field(default_factory=dict)
    average: Arrays = field(default_factory=dict)
    residual: Arrays = field(default_factory=dict)

    @property
    def model(self) -> Arrays:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.average or self.weights

    def only(self, run: Run) -> "ServerState":
        """Return the state of the values of a run."""

        def pick(arrays: Arrays) -> Arrays:
            return {run.name: values_of(arrays, run)} if run.name in arrays else {}

        moments = {kind: pick(arrays) for kind, arrays in self.moments.items()}
        weights, average = pick(self.weights), pick(self.average)
        return ServerState(weights, moments, average, pick(self.residual))


def advance(
    state: ServerState, mean: Arrays, strategy: Strategy, rate: float
) -> ServerState:
    """Return the state with the next weights, from the mean of what the sites sent.

    Without a rule the next weights are that mean, bit for bit.
    """
    if strategy.rule is None:
        return replace(state, weights=mean)
    weights: dict[str, NDArray[np.float32]] = {}
    moments: dict[str, dict[str, NDArray[np.float32]]] = {
        each: {} for each in strategy.moments
    }
    for name, value in state.weights.items():
        w = value.astype(np.float64)
        known = tuple(
            state.moments[each][name].astype(np.float64)
            if each in state.moments
            else np.full_like(w, first)
            for each, first in strategy.moments.items()
        )
        step = strategy.rule(mean[name].astype(np.float64) - w, known, rate)
        weights[name] = (w + step.change).astype(np.float32)
        for each, moment in zip(strategy.moments, step.moments, strict=True):
            moments[each][name] = moment.astype(np.float32)
    return replace(state, weights=weights, moments=moments)


def follow(state: ServerState, decay: float, round_number: int) -> ServerState:
    """Return the state with its average moved towards its weights.

    ``a_t = d a_(t-1) + (1 - d) w_t`` with ``d = min(decay, 1 - 1/t)`` after round t:
    the plain mean of the first rounds, until the decay takes over. A decay of 0 has no
    average.
    """
    if not decay:
        return state
    d = min(decay, 1 - 1 / round_number)
    average = {
        name: (
            d * state.average.get(name, value).astype(np.float64)
            + (1 - d) * value.astype(np.float64)
        ).astype(np.float32)
        for name, value in state.weights.items()
    }
    return replace(state, average=average)


def rounded(
    before: ServerState, state: ServerState, precision: str
) -> tuple[ServerState, list[bytes]]:
    """Return the state with the weights that sites get when their change is rounded.

    With it comes the change as it is sent, array by array. What rounding takes from it
    is part of the next change. Nothing is rounded or sent in float32.
    """
    if precision == "float32":
        return state, []
    weights: dict[str, NDArray[np.float32]] = {}
    residual: dict[str, NDArray[np.float32]] = {}
    sent: list[bytes] = []
    for name, held in before.weights.items():
        step = np.asarray(state.weights[name] - held)
        data, arrived, left = compress(step, before.residual.get(name), precision)
        weights[name], residual[name] = np.add(arrived, held, out=arrived), left
        sent.append(data)
    return replace(state, weights=weights, residual=residual), sent
