"""A site's programs: copies of a process that has loaded what they need."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.supercore.constant import TaskType
    from flwr.supercore.superexec.executor.types import ExecutionSpec

    from ctflow_fed.deployment.site import programs, supernode
    from ctflow_fed.deployment.site.programs import PROGRAM, ForkExecutor

SPEC = ExecutionSpec(
    task_type=TaskType.CLIENT_APP,
    runtime_api_address="127.0.0.1:1",
    token="token",
    insecure=True,
    root_certificates_path=None,
    runtime_dependency_install=True,
    parent_pid=os.getpid(),
    suppress_output=False,
    task_id=1,
)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """A function: an executor that has begun a program, and what that has told."""
    told = tmp_path / "told"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def launch(seconds=0.0):
        def answer(address, token, **words):
            handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
            name = Path("/proc/self/comm").read_text().strip()
            heard = (address, token, words["runtime_dependency_install"])
            text = f"{os.getpid()} {name} {heard} {set(handlers) == {signal.SIG_DFL}}"
            told.with_suffix(".new").write_text(text)
            told.with_suffix(".new").rename(told)
            time.sleep(seconds)

        monkeypatch.setattr(programs, "run_clientapp", answer)
        executor = ForkExecutor()
        executor.launch(SPEC)
        until(told.exists)
        return executor, told.read_text()

    yield launch
    signal.signal(signal.SIGTERM, before)


def until(done):
    """Wait until something is so."""
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


LOADING = """
import threading, torch
from ctflow_fed.deployment.site.programs import load

asked = []
for name in ("is_available", "device_count", "init", "_lazy_init"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
load()
print(asked, threading.active_count())
"""


def test_what_is_loaded_before_a_copy_is_made_starts_no_thread_and_no_gpu():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[] 1\n"


def test_a_message_is_answered_by_a_copy_with_nothing_of_its_parents_handlers(launched):
    _, told = launched()

    process, _, rest = told.partition(" ")
    assert int(process) != os.getpid()
    assert rest == f"{PROGRAM} ('127.0.0.1:1', 'token', False) True"


def test_processes_that_have_ended_are_let_go(launched):
    executor, told = launched()
    process = Path(f"/proc/{told.split()[0]}")

    def gone():
        executor.reconcile()
        return not process.exists()

    until(gone)


def test_programs_are_told_to_end_with_their_superexec(launched):
    executor, told = launched(seconds=300)
    (process,) = programs.FORK.active_children()
    assert process.pid == int(told.split()[0])
    executor.close()
    process.join(timeout=30)

    assert process.exitcode == -signal.SIGTERM


def test_a_site_ends_with_its_superexec(monkeypatch, tmp_path):
    ended = threading.Event()
    monkeypatch.setattr(supernode, "STOP_SECONDS", 0.0)
    monkeypatch.setattr(supernode, "end_process", lambda _: ended.set())
    monkeypatch.setattr(supernode, "command", lambda *_: [sys.executable, "-c", ""])
    supernode._start_programs(tmp_path / "secret", 1)

    assert ended.wait(30)


def test_a_superexec_whose_supernode_has_ended_asks_nobody_for_work(tmp_path):
    words = programs.command(1, tmp_path / "no secret", os.getppid())
    done = subprocess.run(words, capture_output=True, check=False, timeout=120)

    assert done.returncode == 1
    assert b"secret" not in done.stderr


def test_what_cannot_be_loaded_ahead_is_left_to_who_needs_it(monkeypatch, caplog):
    monkeypatch.setattr(programs, "LOADED", ("no_such_package", "ctflow_fed.files"))
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    programs.load()

    assert "no_such_package was not loaded ahead: ModuleNotFoundError" in caplog.text
