"""A kit as the hospital has it: who it is, where its server is, and how it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ctflow_fed.ct.store import LatentStore
from ctflow_fed.deployment.site.audit import AuditLog, Entry
from ctflow_fed.deployment.site.policy import POLICY, read_policy
from ctflow_fed.deployment.site.site import Site
from ctflow_fed.deployment.site.supernode import run_supernode
from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.federation import check_site_name
from ctflow_fed.files import read_json, sha256_of

__all__ = ["KIT", "take_part"]

KIT = "kit.json"
"""The site's name and the server's address, as the coordinator wrote them."""


def take_part(
    kit: Path, store: Path, port: int, say: Callable[[str], None], *, dry_run: bool
) -> NoReturn:
    """Take part with a store until a signal; the audit log must be whole.

    ``say`` gets each line that is for the person at the site, ``port`` is that of the
    SuperNode on loopback. Raises ``CTFlowError`` where it cannot start.
    """
    kit, store = kit.resolve(), store.resolve()
    name, address = _read_kit(kit)
    if any(each in f"{store}{kit}" for each in "\"'\\"):
        raise SettingsError(
            "expected a store and a kit whose paths have no quote or backslash; rename "
            "the folder"
        )
    LatentStore.open(store)
    policy, audit = read_policy(kit / POLICY), AuditLog(kit)
    audit.verify()
    reason = f"{POLICY} {sha256_of(kit / POLICY)}{', dry run' if dry_run else ''}"
    audit.append(Entry(event="start", reason=reason))
    say(f"{name} takes part; {POLICY} decides, audit.jsonl tells")
    site = Site(name, address, kit, store, policy, audit, say, dry_run)
    run_supernode(site, port)


def _read_kit(kit: Path) -> tuple[str, str]:
    try:
        values = read_json(kit / KIT)
        return check_site_name(values["site"]), str(values["server"])
    except (OSError, KeyError, TypeError, ValueError):
        raise PackageError(
            "expected the folder of a site's kit, got another; unpack the kit that "
            "the coordinator has sent"
        ) from None
