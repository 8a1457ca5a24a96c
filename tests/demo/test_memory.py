import os
import subprocess
import sys

import numpy as np

from ctflow_fed.demo.memory import PeakMemory, resident_mb


def test_memory_that_is_held_for_a_while_is_seen():
    before = resident_mb(os.getpid())

    with PeakMemory() as memory:
        held = np.ones(40 * 2**20, dtype=np.uint8)
        memory._look()
        del held

    assert memory.peak_mb > before + 30


def test_the_memory_of_a_child_counts():
    alone = resident_mb(os.getpid())
    program = "data = bytearray(50 * 2**20); print(flush=True); input()"

    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        together = resident_mb(os.getpid())
        child.communicate(b"\n")

    assert together > alone + 45


def test_a_process_that_is_not_there_holds_nothing():
    assert resident_mb(2**30) == 0
