"""What the benchmarks rest on: equal numbers, counted operations, no graph break."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ctflow_fed.model import Conditions, FMvT, FMvTConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

WHOLE_GRAPH = """
import torch
from speed_rows import clip_of
from ctflow_fed.model import FMvT, FMvTConfig
for released in (False, True):
    config = FMvTConfig(layers=2, features=32, heads=2, released=released)
    network = FMvT(config)
    inputs = clip_of(config, 64)
    whole = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(whole(*inputs), network(*inputs), atol=1e-5)
    whole(*inputs).sum().backward()
"""


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def released() -> FMvT:
    """A small network of the released layout in which every weight says something."""
    network = FMvT(FMvTConfig(layers=2, features=32, heads=2, released=True)).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return network


def clip(batch: int = 2):
    noise, context = torch.randn(2, batch, 16, 16, 8, 12)
    return noise, torch.rand(batch), context, torch.randn(batch, 1, 768)


@torch.no_grad()
def test_the_plain_network_gives_the_numbers_of_the_released_layout(released: FMvT):
    from plain import PlainNetwork

    noise, t, context, text = clip()
    mask = torch.ones(2, 1, dtype=torch.bool)

    plain = PlainNetwork(released, (16, 8, 12))(noise, t, context, text)
    ours = released(noise, t, Conditions(context, text, mask))
    assert ours.abs().max() > 0.1
    assert (plain - ours).abs().max() < 1e-4


def test_one_token_is_attended_to_by_a_shortcut_that_changes_nothing(released: FMvT):
    noise, t, context, text = clip(batch=3)
    mask = torch.tensor([[True], [False], [True]])
    told = Conditions(context, text, mask)

    attended = released(noise, t, told)
    with torch.no_grad():
        short = released(noise, t, told)
    assert (attended - short).abs().max() < 1e-5


def test_the_operations_of_a_forward_are_those_that_the_paper_s_sizes_imply():
    from speed_rows import forward_flops

    # Linear layers of 18 d^2 + attention over 256 places and 8 pairs, twice for each
    # of 2,048 patches in 12 blocks; the rest is under 2 %.
    d = 384
    expected = 12 * 2048 * 2 * (18 * d * d + 2 * d * (256 + 8))
    assert forward_flops("S", 256, released=True) == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_the_network_is_one_graph():
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_GRAPH],
        check=False,
        capture_output=True,
        text=True,
        cwd=BENCHMARKS,
    )

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_one_command_measures_prints_and_writes(tmp_path: Path):
    out = tmp_path / "speed.json"
    asked = ["--presets", "nano", "--sizes", "64", "--seconds", "1", "--out", str(out)]

    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "speed.py"), *asked],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "left out" in done.stdout
    assert out.exists()


CHILD = "x = bytearray(80_000_000); print(flush=True); input()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_the_memory_of_a_process_and_of_those_that_it_starts_is_seen():
    from processes import MemoryWatch

    words = [sys.executable, "-c", PARENT]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe) as parent:
        with MemoryWatch({"both": parent.pid}) as watch:
            parent.stdout.readline()
            time.sleep(1.0)
        parent.communicate(b"\n")

    assert 80 < max(watch.peaks["both"].values()) < watch.totals["both"] < 400
