"""Who takes part in a federation, and where its server is reached."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ctflow_fed.errors import SettingsError
from ctflow_fed.federation import check_site_name

__all__ = ["Consortium", "read_consortium"]

HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
KEYS = {"name", "host", "port", "sites"}


@dataclass(frozen=True)
class Consortium:
    """A federation: ``host`` and ``port`` are where the sites reach its server."""

    name: str
    host: str
    port: int
    sites: tuple[str, ...]

    def __post_init__(self) -> None:
        check_site_name(self.name)
        if HOST.fullmatch(self.host) is None:
            raise SettingsError(
                "expected a host name or an IPv4 address as `host`, got something else"
            )
        if not 1 <= self.port <= 65535:
            raise SettingsError("expected a port between 1 and 65535 as `port`")
        if not self.sites:
            raise SettingsError("expected at least one name in `sites`, got none")
        lowered = {check_site_name(site).lower() for site in self.sites}
        if len(lowered) != len(self.sites):
            raise SettingsError(
                "expected every name in `sites` once, whatever its capitals; "
                "rename a site"
            )


def read_consortium(path: Path) -> Consortium:
    """Read a consortium.toml, which must have exactly our keys."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        raise SettingsError(
            "the description of the consortium is no TOML; server/README.md has one"
        ) from None
    if set(values) != KEYS:
        raise SettingsError(
            f"expected exactly the keys {', '.join(sorted(KEYS))} in the description "
            "of the consortium; server/README.md has an example"
        )
    sites = values["sites"]
    if not isinstance(sites, list) or any(type(each) is not str for each in sites):
        raise SettingsError("expected a list of names as `sites`")
    if any(type(values[key]) is not str for key in ("name", "host")):
        raise SettingsError("expected texts as `name` and `host`")
    if type(values["port"]) is not int:
        raise SettingsError("expected a whole number as `port`")
    return Consortium(**{**values, "sites": tuple(sites)})
