"""What a federation's transport is compared with: plain HTTPS, a step alone, Flower."""

import os
import ssl
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np

from ctflow_fed.federation import SHARD_BYTES

__all__ = ["memory_costs", "plain_seconds", "step_alone"]

PIECE = 2**20
GIGABYTES, PAGE, REST_SECONDS = 8, 4096, 20.0

STEP = """
import sys, types
from pathlib import Path
client = types.ModuleType("client"); client.site = types.ModuleType("client.site")
client.site.app = None
sys.modules |= {"client": client, "client.site": client.site}
from transport_client import random_step
from ctflow_fed.federation import ArrayFile, arrays_of, network_of, write_arrays
from ctflow_fed.model import PRESETS
weights, out = Path(sys.argv[1]), Path(sys.argv[2])
network = network_of(PRESETS[sys.argv[3]], ArrayFile(weights))
random_step(network, 0)
write_arrays(out, arrays_of(network))
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6)
"""


def step_alone(weights: Path, out: Path, preset: str) -> tuple[float, float]:
    """Take a random step on the weights of a file; return seconds and MB."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(weights), str(out), preset],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    out.unlink()
    return time.monotonic() - began, float(done.stdout)


def memory_costs() -> dict[str, float]:
    """Return the seconds of a GB of memory: at rest before, and had just before.

    A process that ends leaves its memory to the system, which may give it away.
    """
    context = get_context("spawn")
    seconds = []
    for _ in range(2):
        time.sleep(REST_SECONDS)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            seconds.append(pool.submit(_touch_twice).result())
    rested, used = seconds[-1]
    return {"rested_gb_seconds": round(rested, 2), "used_gb_seconds": round(used, 2)}


def _touch_twice() -> tuple[float, float]:
    def touch() -> float:
        began = time.monotonic()
        np.empty(GIGABYTES * 10**9, np.uint8)[::PAGE] = 1
        return (time.monotonic() - began) / GIGABYTES

    return touch(), touch()


def plain_seconds(
    address: str, server: Path, kits: dict[str, Path], down: int, up: int
) -> float:
    """Return how long so many bytes take down to every site, and up from it.

    All sites at once, each with its own process, through the nginx of the server.
    """
    source = server / "shards" / "down" / ("0" * 64)
    _write(source, down)
    context = get_context("spawn")
    with ProcessPoolExecutor(len(kits), mp_context=context) as pool:
        list(pool.map(_warm, kits))
        began = time.monotonic()
        jobs = [
            pool.submit(_transfer, address, kit, site, source.name, up)
            for site, kit in kits.items()
        ]
        for job in jobs:
            job.result()
        seconds = time.monotonic() - began
    source.unlink()
    return seconds


def _warm(site: str) -> str:
    return site


def _transfer(address: str, kit: Path, site: str, name: str, up: int) -> None:
    context = ssl.create_default_context(cafile=str(kit / "ca.crt"))
    context.load_cert_chain(kit / "site.pem")
    base, path = f"https://{address}/v1/shards/", kit / "plain"
    with httpx.Client(base_url=base, verify=context, timeout=120) as client:
        with client.stream("GET", f"down/{name}") as answer, path.open("wb") as file:
            answer.raise_for_status()
            for piece in answer.iter_raw(PIECE):
                file.write(piece)
        _write(path, min(SHARD_BYTES, up))
        for number in range(-(-up // SHARD_BYTES)):
            with path.open("rb") as file:
                client.put(f"up/{site}/{number:02d}", content=file).raise_for_status()
    path.unlink()


def _write(path: Path, size: int) -> None:
    block = os.urandom(PIECE)
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            file.write(block)
        file.write(block[: size % PIECE])
