"""What it costs to draw with Ray, and what a plan of 100,000 volumes costs the driver.

    python benchmarks/augmentation.py --out runs/augmentation

``overhead``: the same requests, drawn by two Ray workers of one core each, and by two
processes without Ray that have half of them each; several times, now the ones first
and now the others. The time counts from the first volumes to the last, so without the
start of Python, torch and Ray. What Ray costs is the median over the pairs, since the
speed of a machine drifts.
``dispatch``: the CPU seconds that a batch takes when its workers do nothing at all.
``scan``: a plan is made and compared with a folder in which all of it is there, before
its manifest is written and after; then its status is made and the plan read. CPU
seconds, because others may use the machine, and the peak of the process' memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tiny_model import save_tiny_model

from ctflow_fed.augment import GenerateSettings, Plan, SynthStore, generate, plan
from ctflow_fed.augment.pool import Batch, RayPool
from ctflow_fed.files import write_json

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from ctflow_fed.cli import main; main()"
WARM = 4
"""Volumes before the time counts: two a worker, while it loads and warms up."""


def main() -> None:
    """Measure, print, and write ``augmentation.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--scan", type=int, default=100_000)
    asked = parser.parse_args()

    found: dict[str, object] = {}
    if asked.requests:
        found["overhead"] = overhead(asked)
    if asked.batches:
        found["dispatch"] = dispatch(asked.batches)
    if asked.scan:
        found["scan"] = scan(asked.out, asked.scan)
    print(json.dumps(found, indent=2))
    write_json(asked.out / "augmentation.json", found)


def overhead(asked: argparse.Namespace) -> dict[str, object]:
    """Return volumes a second with Ray and without, and what Ray costs."""
    out = asked.out
    save_tiny_model(out / "model", pixels=32)
    plan(target={"Emphysema": asked.requests}, slices=32).save(out / "plan.json")
    rates: dict[str, list[float]] = {"plain": [], "ray": []}
    for number in range(asked.rounds):
        for kind in sorted(rates, reverse=number % 2 == 1):
            folder = out / f"{kind}-{number}"
            runs = [["--workers", "2"]]
            if kind == "plain":
                runs = [["--workers", "0", "--shard", f"{k}/2"] for k in (1, 2)]
            together([command(asked, folder, each) for each in runs])
            rates[kind].append(rate(folder))
    pairs = zip(rates["plain"], rates["ray"], strict=True)
    costs = [1 - ray / plain for plain, ray in pairs]
    plain, ray = (statistics.median(each) for each in rates.values())
    return {
        "volumes_per_second": rates,
        "overhead": statistics.median(costs),
        "overhead_of_medians": 1 - ray / plain,
    }


def command(asked: argparse.Namespace, folder: Path, words: list[str]) -> list[str]:
    """Return the command that draws the plan, or a part of it, into a folder."""
    return [
        *(
            sys.executable,
            "-c",
            PROGRAM,
            "augment",
            "run",
            str(asked.out / "plan.json"),
        ),
        *("--model", str(asked.out / "model"), "--out", str(folder)),
        *("--steps", str(asked.steps), "--solver", "heun", *words),
    ]


def together(commands: list[list[str]]) -> None:
    """Run commands side by side, each with one thread; all must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen(each, cwd=ROOT, env=environment) for each in commands]
    codes = [run.wait() for run in runs]
    if any(codes):
        sys.exit("a run failed")


def rate(folder: Path) -> float:
    """Return how many volumes a second were written, once all were at work."""
    times = sorted(path.stat().st_mtime_ns for path in folder.glob("volumes/*.json"))
    return (len(times) - 1 - WARM) / ((times[-1] - times[WARM]) / 1e9)


class Idle:
    """A worker that does nothing."""

    def draw(self, batch: Batch) -> None:
        """Draw nothing."""

    def write(self, batch: Batch, drawn: None) -> list[str]:
        """Say that all went well."""
        return [""] * len(batch)


def dispatch(count: int) -> dict[str, float]:
    """Return the CPU seconds that a batch costs the driver, and all of Ray.

    All of Ray are the driver, the two workers and its own services, idle or not.
    """
    mark = f"CTFLOW_BENCHMARK={os.getpid()}"
    os.environ.update([mark.split("=")])
    made = plan(target={"Emphysema": 1}, slices=64)
    results = RayPool(2).run(Idle, [made.requests] * count)
    for _ in range(count // 4):  # until its processes are up
        next(results)
    began, before = time.process_time(), seconds_of(mark)
    taken = sum(1 for _ in zip(range(count // 2), results, strict=False))
    driver, others = time.process_time() - began, seconds_of(mark) - before
    results.close()
    return {
        "batches": taken,
        "driver_seconds": round(driver / taken, 5),
        "all_seconds": round((driver + others) / taken, 5),
    }


def seconds_of(mark: str) -> float:
    """Return the CPU seconds of the processes that were started under a mark."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def scan(out: Path, count: int) -> dict[str, float]:
    """Return the CPU seconds and the memory that a large plan takes."""
    seconds: dict[str, float] = {}
    with timed(seconds, "plan"):
        made = plan(target={"Emphysema": count}, slices=64)
        _ = made.plan_id
    store = filled(out, made, plan(target={"Emphysema": 1}, slices=8))
    with timed(seconds, "first_scan"):
        assert not store.missing(made)
    with timed(seconds, "manifest"):
        store.write_manifest()
    with timed(seconds, "resume_scan"):
        assert not store.missing(made)
    with timed(seconds, "status"):
        assert store.status().done == count
    with timed(seconds, "load_plan"):
        Plan.load(store.folder / "plan.json")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"requests": count, **seconds, "peak_gb": round(peak, 3)}


def filled(out: Path, made: Plan, one: Plan) -> SynthStore:
    """Return a store in which each volume is a sidecar and a file of one byte."""
    model = save_tiny_model(out / "model", pixels=32)
    settings = GenerateSettings(steps=1)
    drawn = generate(
        one, model=model, out=out / "one", workers=0, settings=settings
    ).records()[0]
    origin = SynthStore(out / "one").header.origin
    store = SynthStore.create(out / "scan", made, origin)
    (store.folder / "volumes").mkdir(exist_ok=True)
    for request in made.requests:
        record = replace(
            drawn,
            sample_id=origin.sample_id(request),
            labels=request.labels,
            report=request.report,
            seed=request.seed,
            bytes=1,
        )
        store.image(record.sample_id).write_bytes(b"x")
        sidecar = json.dumps(record.to_json(origin), indent=2, sort_keys=True)
        store.sidecar(record.sample_id).write_text(sidecar)
    return store


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note the CPU seconds of what is done within."""
    began = time.process_time()
    yield
    seconds[name] = round(time.process_time() - began, 2)


if __name__ == "__main__":
    main()
