"""What the machine that we run on has."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

__all__ = [
    "autocast",
    "cores",
    "has_native_bfloat16",
    "one_thread_each",
]


def cores() -> int:
    """Return how many CPU cores this process may use; macOS tells only of all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_native_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 matrices in hardware.

    Other CPUs do it 40 times slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # older torch has none
    known: dict[str, object] = capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Compute in bfloat16 where that is the precision or, by itself, where it pays."""
    wanted = precision == "auto" and has_native_bfloat16(device)
    return torch.autocast(
        device.type, torch.bfloat16, enabled=wanted or precision == "bfloat16"
    )


@contextmanager
def one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """Run jobs side by side on all cores, each on one thread of torch.

    Small networks and small volumes do not gain from more, and on one thread a result
    does not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores()) as executor:
            yield executor
    finally:
        torch.set_num_threads(threads)
