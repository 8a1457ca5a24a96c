"""A site's SuperExec, which has loaded what programs need before one is asked for.

Every message is answered by a process of its own. Begun anew, it would load torch, peft
and Flower first: some 5 s of a core, twice a round. Here it is a copy of a process that
has loaded them and nothing else: no program, no message and no scan has been in it. Nor
has it asked for a GPU or begun a thread, which a copy could not use.

Flower is entered at one name, that of its executor (`supernode.check_seam`).
"""

import importlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.supercore.cli import flower_superexec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult
from flwr.supernode.runtime.run_clientapp import run_clientapp

__all__ = ["EXECUTOR", "PROGRAM", "ForkExecutor", "command", "superexec"]

superexec: Any = importlib.import_module("flwr.supercore.superexec.run_superexec")
EXECUTOR = "get_executor"

PROGRAM = "flwr-clientapp"
"""The name of a program's process, as Flower's own would have."""

SHOWN_NAME = Path("/proc/thread-self/comm")

LOADED = ("ctflow_fed.deployment.cargo", "ctflow_fed.federation", "peft")
FORK = multiprocessing.get_context("fork")

log = logging.getLogger(__name__)


class ForkExecutor(SubprocessExecutor):
    """Flower's executor, whose processes begin as copies of this one."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Begin the process that answers a message."""
        FORK.Process(target=_answer, args=(spec,)).start()
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Let go of the processes that have ended."""
        FORK.active_children()

    def close(self) -> None:
        """End the processes, which tell Flower that they were stopped."""
        for process in FORK.active_children():
            process.terminate()


def command(port: int, secret: Path, parent: int) -> list[str]:
    """Return the command of a SuperExec for a SuperNode: its port and its process.

    The port is one of loopback.
    """
    words = ["--runtime-api-address", f"127.0.0.1:{port}", "--insecure"]
    secured = ["--superexec-auth-secret-file", str(secret)]
    bound = ["--parent-pid", str(parent)]
    return [sys.executable, "-P", "-m", __name__, *bound, *words, *secured]


def _answer(spec: ExecutionSpec) -> None:
    """Answer a message in this process, which is a copy."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    with suppress(OSError):  # where there is no such file it keeps its name
        SHOWN_NAME.write_text(PROGRAM)
    run_clientapp(
        spec.runtime_api_address,
        spec.token,
        insecure=spec.insecure,
        parent_pid=spec.parent_pid,
        runtime_dependency_install=False,
    )


def load() -> None:
    """Import what programs need; what is broken fails where it is needed."""
    # Whoever asks while it is imported whether there is a GPU leaves it to the copies.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in LOADED:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # whatever a package raises
            log.warning("%s was not loaded ahead: %s", name, type(error).__name__)


def _run(words: Sequence[str]) -> None:
    load()
    parent = words[words.index("--parent-pid") + 1]
    if str(os.getppid()) != parent:  # it has ended, and another may have its port
        raise SystemExit(1)
    setattr(superexec, EXECUTOR, lambda *_, **__: ForkExecutor())
    sys.argv = ["flower-superexec", *words]
    flower_superexec()


if __name__ == "__main__":
    _run(sys.argv[1:])
