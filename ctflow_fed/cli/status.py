"""``ctflow federation status``: how a job stands, whether it runs or not."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctflow_fed.cli.options import FOLDER

if TYPE_CHECKING:
    from ctflow_fed.federation import JobStatus, Progress, RoundRecord

__all__ = ["command"]

WATCH_SECONDS = 2.0
PHASES = {"train": "training", "evaluate": "evaluating", "wait": "waiting for sites"}


@click.command("status")
@click.option("--out", required=True, type=FOLDER, help="Where the job is kept.")
@click.option("--server", type=FOLDER, help="Say which sites are connected to it, too.")
@click.option("--watch", is_flag=True, help="Go on showing it for as long as it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(out: Path, server: Path | None, watch: bool, as_json: bool) -> None:
    """Show what a job has done and does, who is up, and what is left."""
    from ctflow_fed.federation import status_of

    while True:
        status, up = status_of(out), _up(server)
        if as_json:
            text = json.dumps({**status.to_json(), "up": up})
        else:
            text = "\n".join(_lines(status, up))
        if watch and not as_json:
            click.clear()
        click.echo(text)
        if not watch or status.state != "running":
            return
        time.sleep(WATCH_SECONDS)


def _up(server: Path | None) -> dict[str, bool]:
    if server is None:
        return {}
    from ctflow_fed.deployment.presence import sites_up

    return sites_up(server)


def _lines(status: "JobStatus", up: Mapping[str, bool]) -> Iterator[str]:
    yield _headline(status)
    sites = sorted({site for each in status.records for site in each.losses})
    names = "".join(f"  {site:>8.8}" for site in sites)
    yield f"round    loss  sites      MB  seconds{names}"
    for record in status.records:
        yield _row(record, sites)
        for site, reason in record.refused.items():
            yield f"  left out: {site}: {reason}"
    for site, epsilon in sorted(status.epsilon.items()):
        yield f"privacy spent: {site}: epsilon {epsilon:.2f}"
    for site, is_up in up.items():
        yield f"{site}: {'up' if is_up else 'down'}"
    yield f"model: {status.model or 'not yet'}"


def _headline(status: "JobStatus") -> str:
    done = f"{len(status.records)} of {status.rounds} rounds"
    if status.state == "done":
        return f"done: {done}"
    if status.state == "stopped":
        why = status.progress.ended or "the process that played it is gone"
        return f"stopped: {done}: {why}"
    left = "" if status.left is None else f", {_duration(status.left)} left at most"
    return f"running: {done}, {_now(status.progress)}{left}"


def _now(progress: "Progress") -> str:
    """Say what goes on: `training for 40 s (1 of 3 answered, not yet: b, c)`."""
    phase = PHASES.get(progress.phase, "starting")
    seconds = _duration(max(0.0, time.time() - progress.since))
    if not progress.asked:
        return phase
    missing = sorted(set(progress.asked) - set(progress.answered))
    who = f", not yet: {', '.join(missing)}" if missing else ""
    heard = f"{len(progress.answered)} of {len(progress.asked)} answered{who}"
    return f"{phase} in round {progress.round} for {seconds} ({heard})"


def _row(record: "RoundRecord", sites: list[str]) -> str:
    row = (
        f"{record.round:5d}  {record.loss_after:6.4f}  {len(record.slices):5d}  "
        f"{record.bytes / 1e6:6.1f}  {record.seconds:7.1f}"
    )
    cells = [
        f"  {record.losses[site]:8.4f}" if site in record.losses else f"  {'':8}"
        for site in sites
    ]
    return (row + "".join(cells)).rstrip()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
