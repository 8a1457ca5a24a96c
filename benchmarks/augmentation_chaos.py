"""Forty volumes while workers and the driver are killed: none lost, none doubled.

    python benchmarks/augmentation_chaos.py --kills 20 --out runs/chaos

``ctflow augment run`` draws a plan with two Ray workers. One of its processes, a worker
or the driver, is killed at a moment and by a choice that the seed decides, again and
again; when the driver is gone the same command is started anew. In the end there must
be one volume a request, each bit for bit that of a run that nobody disturbed.
"""

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiny_model import save_tiny_model

from ctflow_fed.augment import GenerateSettings, Plan, SynthStore, generate, plan

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from ctflow_fed.cli import main; main()"
MARK = "CTFLOW_CHAOS"
STEPS = 15
SOLVER = "heun"
PATIENCE = 900.0
"""Seconds in which something must happen, on a machine that is busy otherwise."""


def main() -> None:
    """Disturb a run, compare it with an undisturbed one, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    model = save_tiny_model(asked.out / "model")
    made = plan(target={"Emphysema": asked.requests}, slices=16)
    made.save(asked.out / "plan.json")
    expected = undisturbed(made, model, asked.out / "undisturbed")
    killed = disturb(asked.out, model, asked.kills, random.Random(asked.seed))

    found = digests(asked.out / "disturbed")
    files = sorted(path.name for path in (asked.out / "disturbed/volumes").iterdir())
    wanted = sorted(f"{each}{end}" for each in expected for end in (".json", ".nii.gz"))
    print(f"{killed['driver']} drivers and {killed['worker']} workers were killed")
    print(
        f"{len(found)} of {asked.requests} volumes; bit-identical: {found == expected}"
    )
    if found != expected or files != wanted or sum(killed.values()) != asked.kills:
        sys.exit("volumes were lost, doubled or changed")


def undisturbed(made: Plan, model: Path, out: Path) -> dict[str, str]:
    """Draw a plan in this process and return the digests of its volumes."""
    settings = GenerateSettings(steps=STEPS, solver=SOLVER)
    generate(made, model=model, out=out, workers=0, settings=settings)
    return digests(out)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each volume by its id."""
    return {each.sample_id: each.sha256 for each in SynthStore(folder).records()}


def disturb(
    out: Path, model: Path, kills: int, chance: random.Random
) -> dict[str, int]:
    """Run the command until it succeeds, and kill so many of its processes."""
    killed = {"driver": 0, "worker": 0}
    words = [
        *("augment", "run", out / "plan.json", "--model", model),
        *("--out", out / "disturbed", "--workers", 2),
        *("--steps", STEPS, "--solver", SOLVER),
    ]
    while True:
        mark = secrets.token_hex(8)
        driver = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", MARK: mark},
            stderr=subprocess.DEVNULL,
        )
        while sum(killed.values()) < kills:
            await_progress(out / "disturbed", driver, chance.randrange(3))
            kind = chance.choice(["driver", "worker", "worker"])
            if driver.poll() is not None or not kill(kind, driver, mark):
                break
            killed[kind] += 1
        if driver.wait(PATIENCE) == 0:
            return killed


def await_progress(folder: Path, driver: subprocess.Popen[bytes], more: int) -> None:
    """Wait until a running driver has drawn so many volumes more, or a moment."""
    began, until = drawn(folder), time.monotonic() + PATIENCE
    time.sleep(0.2)
    while drawn(folder) < began + more and driver.poll() is None:
        if time.monotonic() > until:
            sys.exit("no volume was drawn in time")
        time.sleep(0.02)


def drawn(folder: Path) -> int:
    """Return how many volumes there are."""
    return len(list(folder.glob("volumes/*.json")))


def kill(kind: str, driver: subprocess.Popen[bytes], mark: str) -> bool:
    """Kill the driver, or one of its workers once there is one; tell whether."""
    if kind == "driver":
        driver.kill()
        return True
    until = time.monotonic() + PATIENCE
    while not (workers := worker_processes(mark)):
        if driver.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.02)
    try:
        os.kill(workers[0], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def worker_processes(mark: str) -> list[int]:
    """Return the processes of a marked run that draw for Ray, the last one first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment and b"_Actor" in title:
            found.append(int(entry.name))
    return sorted(found, reverse=True)


if __name__ == "__main__":
    main()
