"""The environment of Flower's programs."""

import os
import sys
from pathlib import Path

__all__ = ["QUIET", "flower_environment"]

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""With it Flower reports nothing to anyone."""


def flower_environment(server: Path) -> dict[str, str]:
    """Return the environment of Flower's programs at a server: quiet, and its own."""
    known = os.environ
    return {
        **known,
        **QUIET,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{known.get('PATH', '')}",
        "NO_PROXY": f"127.0.0.1,localhost,{known.get('NO_PROXY', '')}",
        "FLWR_HOME": str(server / "flower"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # a program starts without delay
    }
