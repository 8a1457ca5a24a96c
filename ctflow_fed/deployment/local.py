"""All sites on one machine: the real server and client under Flower's simulation.

Flower and Ray are started within this process, quiet and without a call to any network.
The two programs get what `flwr run` and a SuperNode would give them, a run config and
a node config, and know of no difference.
"""

import importlib.util
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.environment import QUIET
from ctflow_fed.errors import MissingExtraError, SettingsError
from ctflow_fed.federation import (
    SHARD_BYTES,
    FederationSettings,
    Job,
    RoundRecord,
    check_site_name,
    encoded_bytes,
    facts_of,
    open_job,
)

__all__ = ["name_sites", "run_locally"]

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # sites share the GPU, if there is one
}
"""Environment of Ray: nothing is reported to anyone."""


def name_sites(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the stores by the names of their folders, which name the sites.

    The order in which they are given does not matter.
    """
    paths = [folder.resolve() for folder in folders]
    stores = {check_site_name(path.name): path for path in paths}
    if len(stores) != len(paths):
        raise SettingsError(
            "expected a folder of another name for every site, got one name twice; "
            "rename a folder, for its name is the name of the site"
        )
    return dict(sorted(stores.items()))


def run_locally(
    settings: FederationSettings,
    stores: Mapping[str, Path],
    on_round: Callable[[RoundRecord], None],
) -> Job:
    """Run a job with the stores of its sites on this machine; return it finished.

    ``on_round`` hears of every round that is played. A finished job is returned at
    once; one that was stopped or killed goes on after its last finished round.
    """
    job = open_job(settings)
    if not job.is_played:
        job.check_sites(
            [facts_of(LatentStore.open(path), site) for site, path in stores.items()]
        )
        payload = min(SHARD_BYTES, encoded_bytes(job.part.manifest, "float32"))
        with _rounds_heard(on_round):
            _simulate(settings, stores, payload)
        job = open_job(settings)
    if not job.is_finished:
        job.publish()
    return job


def _simulate(
    settings: FederationSettings, stores: Mapping[str, Path], payload: int
) -> None:
    for package, extra in (("flwr", "federation"), ("ray", "augment")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra)
    with TemporaryDirectory(prefix="ctflow-", ignore_cleanup_errors=True) as home:
        # Flower reads its environment when it is imported.
        os.environ.update({**QUIET, **RAY, "FLWR_HOME": home})
        _close_ray()
        from ctflow_fed.deployment.secured import certify
        from ctflow_fed.deployment.simulation import simulate

        if settings.secure_aggregation:
            certify(Path(settings.out) / "sites", stores)
        simulate(settings.to_run_config(), stores, payload)


def _close_ray() -> None:
    """Let Ray ask for a token, for its ports run whatever they are sent.

    It must know the token before it is imported.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _rounds_heard(on_round: Callable[[RoundRecord], None]) -> Iterator[None]:
    """Pass on the record of every round that the server logs."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            played = getattr(record, "record", None)
            if isinstance(played, RoundRecord):
                on_round(played)

    log, listener = logging.getLogger("server"), Listener()
    before = log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(before[0])
        log.propagate = before[1]
