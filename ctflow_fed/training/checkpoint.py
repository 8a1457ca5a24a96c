"""The whole state of a training run in one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import AdamW

from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.files import write_atomically
from ctflow_fed.model import FMvT
from ctflow_fed.training.optimizer import OptimizerMemory, memory_of, remind
from ctflow_fed.training.step import trained_weights

__all__ = ["TrainState", "restore", "save_state"]


@dataclass
class TrainState:
    """What training changes: the network, its optimizer, its average, the step.

    ``average`` is the exponential moving average of the weights that are trained, what
    is kept in the end. Weights that are frozen are no part of the state.
    """

    network: FMvT
    optimizer: AdamW
    average: dict[str, Tensor]
    step: int = 0

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average towards the network, faster in the first steps."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, value in trained_weights(self.network).items():
            self.average[name].lerp_(value, 1 - decay)


def save_state(path: Path, state: TrainState, job: str) -> None:
    """Write the state; ``job`` names the run that it belongs to."""
    weights = trained_weights(state.network)
    tensors = dict(memory_of(state.optimizer, weights, state.step).tensors)
    for name, value in weights.items():
        tensors[f"network.{name}"] = value.detach().cpu().contiguous()
        tensors[f"average.{name}"] = state.average[name].cpu().contiguous()
    metadata = {"job": job, "step": str(state.step)}
    write_atomically(path, lambda partial: save_file(tensors, partial, metadata))


@torch.no_grad()
def restore(path: Path, state: TrainState, job: str) -> None:
    """Bring ``state`` to what was saved for this ``job``; exact to the last bit.

    Raises `MismatchError` for the state of another job, `StoreError` for a file that
    is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("job") != job:
                raise MismatchError(
                    "the checkpoint that is there belongs to a run with another "
                    "store, seed or settings; repeat the command that began it, or "
                    "choose another folder"
                )
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        weights = trained_weights(state.network)
        for name, value in weights.items():
            value.copy_(tensors[f"network.{name}"])
            state.average[name].copy_(tensors[f"average.{name}"])
        state.step = int(metadata["step"])
        remind(state.optimizer, weights, OptimizerMemory(tensors, state.step))
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise StoreError(
            "the checkpoint of this run is damaged; remove it to begin again"
        ) from error
