import mmap
import os
import subprocess
import sys

from ctflow_fed.demo.memory import PeakMemory, resident_mb


def test_memory_that_is_held_for_a_while_is_seen():
    before = resident_mb(os.getpid())

    # Pages of its own: an array may be given what the allocator had kept.
    with PeakMemory() as memory, mmap.mmap(-1, 200 * 2**20) as held:
        held.write(bytes(1) * len(held))
        memory._look()

    assert memory.peak_mb > before + 150


def test_the_memory_of_a_child_counts():
    alone = resident_mb(os.getpid())
    program = "data = bytearray(200 * 2**20); print(flush=True); input()"

    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        together = resident_mb(os.getpid())
        child.communicate(b"\n")

    assert together > alone + 150


def test_a_process_that_is_not_there_holds_nothing():
    assert resident_mb(2**30) == 0
