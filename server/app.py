"""The ServerApp: it reads the run config and plays the rounds of a job.

The run config is `ctflow_fed.federation.FederationSettings`, key by key; the job's
folder ``out`` is on this host. The same run again goes on after the last finished
round.
"""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ctflow_fed.federation import FederationSettings
from server.rounds import play_job

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the rounds that are left of the job that the run config describes."""
    _log_to_stderr()
    play_job(grid, FederationSettings.from_run_config(context.run_config))


def _log_to_stderr() -> None:
    """Show our lines in `flwr log`, unless whoever started us listens already."""
    log = logging.getLogger("server")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False
