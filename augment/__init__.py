"""The program that fills a folder with synthetic volumes.

It is the same door as `ctflow_fed.augment`: what that exports is here too.
"""

from typing import Any

from ctflow_fed import augment as door

__all__ = door.__all__


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the door shows
    return getattr(door, name)
