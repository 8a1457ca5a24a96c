"""What a reconstruction kernel is for, by the names that its makers gave it."""

import re
from typing import Literal

__all__ = ["KernelKind", "kernel_kind"]

KernelKind = Literal["soft", "lung", "bone", "unknown"]

_KINDS: tuple[tuple[KernelKind, str], ...] = (
    ("bone", r"BONE|EDGE|DETAIL|FC3\d|FC8\d|ULTRA"),  # GE, Toshiba
    (
        "lung",
        r"LUNG|CHST|FC5\d|L|YA|YB|[BH][RVLF]?[5-9]\d\w?(\\.*)?",
    ),  # Siemens from 50
    ("soft", r"SOFT|STANDARD|STND|FC[01]\d|A|B|C|[BHIJQ][RVF]?[1-4]\d\w?(\\.*)?"),
)


def kernel_kind(kernel: str) -> KernelKind:
    """Tell the kind of a kernel from its name; most names are a maker's own.

    Siemens (B30f, Br40d, Bl57d), GE (STANDARD, LUNG, BONE), Philips (B, C, L, YA) and
    Toshiba or Canon (FC08, FC51) are known.
    """
    name = kernel.strip().upper().replace("+", "").removesuffix("PLUS")
    for kind, pattern in _KINDS:
        if re.fullmatch(pattern, name):
            return kind
    return "unknown"
