"""The optimizers: AdamW for the paper's method, Muon for ours."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW

from ctflow_fed.training.settings import TrainSettings

__all__ = [
    "Muon",
    "OptimizerMemory",
    "learning_rate_at",
    "memory_of",
    "optimizer_of",
    "remind",
]

KINDS = ("exp_avg", "exp_avg_sq", "momentum")
"""What an optimizer may remember of a weight, apart from the number of steps."""

BETAS = (0.9, 0.999)
"""Those of CTFlow."""

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MATRIX_GAIN = 0.4
"""By how much a matrix moves: 0.2 gives the root mean square of AdamW's updates
(arXiv 2502.16982, Eq. 4)."""

STEADY_STEPS = 500
"""Steps after which our learning rate begins to fall."""


@dataclass(frozen=True)
class OptimizerMemory:
    """What an optimizer remembers, as KIND.NAME of a weight, after ``steps`` steps."""

    tensors: Mapping[str, Tensor]
    steps: int


class Muon(AdamW):
    """Move matrices by their orthogonalised momentum, all else as AdamW does.

    Muon (K. Jordan et al. 2024; arXiv 2502.16982): every direction of a matrix moves
    as far as every other, where AdamW follows the few largest. On phantoms it reaches
    AdamW's loss in about three quarters of the steps, which a federation pays for in
    rounds. `torch.optim.Muon` orthogonalises in bfloat16, which most CPUs compute 40
    times slower than float32; this one does in float32.
    """

    def __init__(
        self,
        matrices: Iterable[Parameter],
        others: Iterable[Parameter],
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        groups = [{"params": list(matrices)}, {"params": list(others)}]
        super().__init__(groups, lr=lr, betas=BETAS, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure
        """Take one step; gradients of matrices are used up."""
        group = self.param_groups[0]
        for weight in group["params"]:
            if weight.grad is not None:
                ahead = self._momentum(weight, weight.grad)
                size = MATRIX_GAIN * math.sqrt(max(weight.shape)) * group["lr"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(orthogonalised(ahead), alpha=size)
                weight.grad = None  # AdamW leaves it alone
        super().step(closure)

    def _momentum(self, weight: Parameter, grad: Tensor) -> Tensor:
        """Return the momentum of a matrix, as far ahead as Nesterov looks."""
        memory = self.state[weight]
        if not memory:
            memory["momentum"] = torch.zeros_like(weight)
        return grad.lerp(memory["momentum"].lerp_(grad, 1 - MOMENTUM), MOMENTUM)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix near 1, without finding them.

    Newton-Schulz steps of fifth order, whose coefficients bring small values up fast;
    they end between about 0.7 and 1.2.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


def optimizer_of(weights: Mapping[str, Parameter], settings: TrainSettings) -> AdamW:
    """Return the optimizer of a method.

    Muon is for the matrices of the blocks of a whole network; the low-rank factors of
    an adapter are AdamW's.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.method == "ctflow":
        return AdamW(weights.values(), lr=rate, betas=BETAS, weight_decay=decay)
    matrices = {
        name: value for name, value in weights.items() if _is_matrix(name, value)
    }
    others = [value for name, value in weights.items() if name not in matrices]
    return Muon(matrices.values(), others, lr=rate, weight_decay=decay)


def memory_of(
    optimizer: AdamW, weights: Mapping[str, Parameter], steps: int
) -> OptimizerMemory:
    """Return what an optimizer remembers after so many ``steps``, on the CPU."""
    tensors = {
        f"{kind}.{name}": value.detach().cpu().contiguous()
        for name, weight in weights.items()
        for kind, value in optimizer.state[weight].items()
        if kind in KINDS
    }
    return OptimizerMemory(tensors, steps)


@torch.no_grad()
def remind(
    optimizer: AdamW, weights: Mapping[str, Parameter], memory: OptimizerMemory
) -> None:
    """Give an optimizer a memory, which stays as it is.

    A weight that no gradient has reached has none. Tensors of other shapes than the
    weights raise ``RuntimeError``.
    """
    for name, weight in weights.items():
        known = {
            kind: torch.zeros_like(weight).copy_(memory.tensors[f"{kind}.{name}"])
            for kind in KINDS
            if f"{kind}.{name}" in memory.tensors
        }
        if known:
            step = torch.tensor(float(memory.steps))
            optimizer.state[weight] = {"step": step, **known}


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step, the first being 0.

    It warms up and, in our method, then falls as one over the root of the steps: Muon's
    updates do not shrink by themselves, and a run need not know its end.
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.method == "ctflow":
        return rate
    return rate * math.sqrt(min(1.0, STEADY_STEPS / (step + 1)))


def _is_matrix(name: str, value: Parameter) -> bool:
    inside = name.startswith("blocks.") and name.endswith(".weight")
    return inside and value.ndim == 2 and "lora_" not in name
