"""How fast the network is, what part of the device it uses, and how much memory.

    python benchmarks/speed.py --seconds 1800

Every row is measured in a process of its own. A row that would not end within the
seconds that are left is left out, and said so; a volume is then estimated from its
forwards and its decoding, which were measured. What a CPU measures is float32, or
bfloat16 where it has it; a GPU compiles the network. Nothing here is trained: speed
does not depend on the weights.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from speed_rows import EVALUATIONS, ROWS, clips_evaluated, forward_flops

from ctflow_fed.files import write_json
from ctflow_fed.machine import has_native_bfloat16
from ctflow_fed.model import PRESETS, default_device

RESULTS = Path(__file__).parent / "results" / "speed.json"
SIZES = (256, 512)
START_SECONDS = 10.0
"""What a process takes before it computes."""

SHARE = 0.5
"""Of the rate of matrix products, what a network is assumed to reach beforehand."""


@dataclass(frozen=True)
class Row:
    """What one process measures: a kind of work, a preset, pixels along a side."""

    kind: str
    preset: str
    pixels: int

    @property
    def flops(self) -> float:
        """The operations of one forward of one clip of 16 slices."""
        return forward_flops(self.preset, self.pixels, released=self.kind == "plain")

    def expected_seconds(self, rate: float) -> float:
        """Return about how long the row will take at a rate of matrix products."""
        return START_SECONDS + EVALUATIONS[self.kind] * self.flops / (SHARE * rate)


def main() -> None:
    """Measure row by row, print each, and write them all as JSON."""
    asked = _arguments()
    if asked.row:
        kind, preset, pixels = asked.row
        print(json.dumps(ROWS[kind](preset, int(pixels))))
        return
    ends = time.monotonic() + asked.seconds
    device = default_device()
    rates = _measured(Row("rates", "tiny", 256))
    print(f"{_name(device)}: {_rates_in_words(rates)}")
    found: list[dict[str, Any]] = []
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    for row in _rows(asked, device):
        taken = _taken(row, rates, ends - time.monotonic())
        if row.kind == "volume" and "left_out" in taken:
            taken |= _estimate(row, found)
        found.append(asdict(row) | taken)
        print(_line(found[-1]), flush=True)
        write_json(
            asked.out,
            {
                "device": _name(device),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "matmul_flops": rates,
                "rows": found,
            },
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tiny", "S", "B", "L"])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="pixels")
    parser.add_argument("--seconds", type=float, default=1800.0, help="the budget")
    parser.add_argument("--train", action="store_true", help="train on a CPU too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := set(asked.presets) - set(PRESETS):
        parser.error(f"expected presets of {', '.join(PRESETS)}, got {unknown}")
    if min(asked.sizes) < 16 or any(size % 16 for size in asked.sizes):
        parser.error("expected sizes in multiples of 16 pixels")
    return asked


def _rows(asked: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Yield what is to be measured, the quick before the slow."""
    yield Row("plain", "S", 256)
    sizes = [(preset, size) for preset in asked.presets for size in asked.sizes]
    rows = [Row(kind, *each) for kind in ("forward", "volume") for each in sizes]
    if asked.train or device.type == "cuda":
        rows.append(Row("train", "S", 256))
    yield from sorted(rows, key=lambda row: row.expected_seconds(1e12))


def _taken(row: Row, rates: Mapping[str, float], left: float) -> dict[str, Any]:
    """Return what a row measured, or why it was left out."""
    rate = rates["bfloat16" if has_native_bfloat16(default_device()) else "float32"]
    expected = row.expected_seconds(rate)
    if expected > left:
        return {"left_out": f"takes about {expected:.0f} s, {max(left, 0):.0f} s left"}
    try:
        measured = _measured(row, timeout=left)
    except subprocess.TimeoutExpired:
        return {"left_out": f"did not end within the {left:.0f} s that were left"}
    if "flops" in measured:
        reached = measured["flops"] / measured["seconds"]
        measured["fraction"] = reached / rates[measured["precision"]]
    return measured


def _estimate(row: Row, found: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a volume takes by what was measured, if it was.

    The decoder is the same for every preset.
    """
    alike = [each for each in found if each["pixels"] == row.pixels]
    forward = [
        each["seconds"]
        for each in alike
        if (each["kind"], each["preset"]) == ("forward", row.preset)
        and "seconds" in each
    ]
    decoding = [each["decode_seconds"] for each in alike if "decode_seconds" in each]
    if not (forward and decoding):
        return {}
    return {"estimated_seconds": clips_evaluated() * forward[0] + decoding[0]}


def _measured(row: Row, timeout: float | None = None) -> dict[str, Any]:
    """Measure one row in a fresh process, so that its peak of memory is its own."""
    command = [sys.executable, __file__, "--row", row.kind, row.preset]
    done = subprocess.run(
        [*command, str(row.pixels)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _line(row: Mapping[str, Any]) -> str:
    head = f"{row['kind']:8} {row['preset']:5} {row['pixels']:4} px | "
    if "estimated_seconds" in row:
        return f"{head}{row['estimated_seconds']:10.0f} s by its forwards and decoding"
    if "left_out" in row:
        return f"{head}left out: {row['left_out']}"
    if row["kind"] == "plain":
        ratios = [f"{name} {ratio:.2f}x" for name, ratio in row["ratios"].items()]
        return f"{head}time of ours / plain float32: {', '.join(ratios)}"
    line = f"{head}{row['seconds'] * 1e3:10.1f} ms | peak {row['peak_mb']:6.0f} MB"
    if "decode_seconds" in row:
        line += f" | of which decode {row['decode_seconds']:.1f} s ({row['codec']})"
    if "flops" in row:
        line += f" | {row['flops'] / 1e12:.3f} TFLOP | {row['fraction']:.0%} of "
        line += f"the {row['precision']} rate"
    return line


def _rates_in_words(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"CPU with {instructions}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
