"""Which volumes of a set were found whole before and have not changed since.

The stamp of a volume are the times and the sizes of its two files. ``seen.json`` has
those of all that the manifest lists, each read and found sound when that was written.
Whoever looks for what is missing reads no sidecar whose stamp is there, which on the
disk of a cluster saves minutes; whoever wants to know what is in a set reads them all.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ctflow_fed.files import read_json, write_json

__all__ = ["Stamp", "Stamps"]

Stamp = tuple[int, ...]
"""Nanoseconds and bytes of the sidecar, then of the volume."""

ENDINGS = (".json", ".nii.gz")
BROKEN = (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError)
"""What reading a file raises that is not what we wrote."""


class Stamps:
    """The stamps of a set, as they are and as they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.jsonl"

    def there(self) -> dict[str, Stamp]:
        """Return the stamp of each name that has a sidecar and a volume, now."""
        found: dict[str, dict[str, Stamp]] = {ending: {} for ending in ENDINGS}
        try:
            with os.scandir(self.folder / "volumes") as entries:
                for entry in entries:
                    name, dot, ending = entry.name.partition(".")
                    if dot + ending in found:
                        status = entry.stat(follow_symlinks=False)
                        found[dot + ending][name] = _stamp(status)
        except FileNotFoundError:
            return {}
        sidecars, volumes = (found[ending] for ending in ENDINGS)
        return {
            name: (*stamp, *volumes[name])
            for name, stamp in sidecars.items()
            if name in volumes
        }

    def seen(self) -> dict[str, Stamp]:
        """Return the stamps of what was found whole; of a broken file, none."""
        try:
            value = read_json(self.folder / "seen.json")
            return {name: tuple(stamp) for name, stamp in value["volumes"].items()}
        except BROKEN:
            return {}

    def note(self, volumes: Mapping[str, Stamp]) -> None:
        """Write down what was found whole, and how the manifest looks that lists it."""
        manifest = _stamp(self.manifest.stat())
        value = {"manifest": manifest, "volumes": volumes}
        write_json(self.folder / "seen.json", value)

    def list_is_current(self) -> bool:
        """Tell whether the manifest is as it was written."""
        try:
            value = read_json(self.folder / "seen.json")
            return bool(tuple(value["manifest"]) == _stamp(self.manifest.stat()))
        except BROKEN:
            return False


def _stamp(status: os.stat_result) -> Stamp:
    """Return time and size of a file; of a link or a folder, those of none."""
    if not stat.S_ISREG(status.st_mode):
        return (-1, -1)
    return (status.st_mtime_ns, status.st_size)
