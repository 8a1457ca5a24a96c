"""Vectors that were made once, by what they were made of."""

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctflow_fed.files import digest_of, write_atomically

__all__ = ["FeatureCache", "Measured"]

Measured = Mapping[str, Tensor]
"""Named arrays of one volume."""


class FeatureCache:
    """A folder of safetensors files, named by the digest of all that decides them.

    What was stopped goes on with what is there; what cannot be read is made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: list[object], make: Callable[[], Measured]) -> Measured:
        """Return what ``key`` (content, extractors, settings) gives, made if need be.

        What is new is read back, so that both ways give the same.
        """
        path = self.folder / f"{digest_of(key)}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):
            made = {name: value.contiguous() for name, value in make().items()}
            write_atomically(path, lambda partial: save_file(made, partial))
            return load_file(path)
