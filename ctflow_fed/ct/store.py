"""LatentStore: the folder that a site trains from.

    store.json                what every study here has in common
    edges.safetensors         a black and a white slice, the weights of the channels
    index.jsonl               one line a study, written after its tensors are in place
    studies/ID.safetensors    latents float16 [slices, C, h, w], tokens float16 [n, 768]

No report text and no patient identifier is in it; a study has an id of its own.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ctflow_fed.ct.demographics import UNKNOWN, Demographics
from ctflow_fed.ct.record import StoreHeader, StudyRecord
from ctflow_fed.ct.report import TOKEN_FEATURES
from ctflow_fed.errors import MismatchError, StoreError
from ctflow_fed.files import (
    append_json,
    read_json,
    sha256_of,
    write_atomically,
    write_json,
)
from ctflow_fed.shapes import Latents

__all__ = ["LatentStore", "StoreHeader", "StudyRecord"]

SCHEMA = 2
OPEN_STUDIES = 128  # files kept mapped at once: well under every system's limit
RESTORE = "restore it, or take the studies in again into a new folder"


class LatentStore:
    """The studies of one site as latents and report tokens, read slice by slice.

    Made with `LatentStore.create` or `LatentStore.open`. A store has one writer at a
    time and any number of readers; a reader sees the studies that were there when it
    opened. The file of a study is compared with its digest when it is first read.
    """

    def __init__(self, folder: Path, header: StoreHeader) -> None:
        self.folder = folder
        self.header = header
        self._records = _read_index(folder / "index.jsonl")
        self._sorted: tuple[StudyRecord, ...] | None = None
        self._verified: set[str] = set()
        self._study = lru_cache(maxsize=OPEN_STUDIES)(self._open_study)
        self.edges, self.channel_weights = self._read_edges()

    @classmethod
    def create(
        cls,
        folder: Path,
        header: StoreHeader,
        edges: Latents,
        channel_weights: Sequence[float] | None = None,
    ) -> "LatentStore":
        """Make an empty store, or open the one that is there.

        ``edges`` are the latents of a black and of a white slice, what lies below and
        above every volume (`ctflow_fed.clips`); ``channel_weights`` say how much each
        channel matters in training, all the same by default. Raises ``MismatchError``
        when the store that is there has another header.
        """
        value = asdict(StoreHeader.from_json(asdict(header)))
        if not (folder / "store.json").exists():
            weights = torch.tensor(channel_weights or [1.0] * header.channels)
            content = to_bytes({"edges": _halved(edges), "weights": _halved(weights)})
            write_atomically(
                folder / "edges.safetensors", lambda path: path.write_bytes(content)
            )
            write_json(folder / "store.json", {"schema": SCHEMA, **value})
        store = cls.open(folder)
        if store.header != header:
            raise MismatchError(
                "the store that is there was made with another codec, report encoder "
                "or image size; choose a new folder, or the settings that made it"
            )
        return store

    @classmethod
    def open(cls, folder: Path) -> "LatentStore":
        """Open a store; one that is absent or broken raises ``StoreError``."""
        try:
            value = read_json(folder / "store.json")
        except (OSError, ValueError, RecursionError):
            raise StoreError(
                "expected a store of latents, found no readable store.json; "
                "make one with: ctflow intake"
            ) from None
        if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
            raise StoreError(
                f"expected a store of schema {SCHEMA}, found another; "
                "take the studies in again with this version of ctflow"
            )
        return cls(folder, StoreHeader.from_json(value))

    @property
    def records(self) -> tuple[StudyRecord, ...]:
        """Every study, in an order that depends on what they hold.

        Ids depend on the site's secret key; the same scans and reports give the same
        order, and so the same training, under any key.
        """
        if self._sorted is None:
            order = sorted(self._records.values(), key=lambda r: (r.sha256, r.study_id))
            self._sorted = tuple(order)
        return self._sorted

    def by_patient(self) -> tuple["LatentStore", ...]:
        """Return the store of each patient: the same files, fewer studies.

        Raises ``StoreError`` where a study does not name its patient.
        """
        patients: dict[str, list[StudyRecord]] = {}
        for record in self.records:
            patients.setdefault(record.patient, []).append(record)
        if "" in patients:
            raise StoreError(
                f"expected the patient of each study, {len(patients[''])} of "
                f"{len(self)} have none; add a column patient to the table of reports "
                "and take the studies in again into a new folder"
            )
        return tuple(self._only(records) for records in patients.values())

    def _only(self, records: Sequence[StudyRecord]) -> "LatentStore":
        part = copy.copy(self)
        part._records = {record.study_id: record for record in records}
        part._sorted = tuple(records)
        return part

    def __contains__(self, study_id: str) -> bool:
        return study_id in self._records

    def __len__(self) -> int:
        return len(self._records)

    def put(
        self,
        study_id: str,
        latents: Latents,
        tokens: Float[Tensor, "tokens features"],
        *,
        spacing: tuple[float, float, float],
        labels: dict[str, int],
        flags: tuple[str, ...] = (),
        patient: str = "",
        demographics: Demographics = UNKNOWN,
    ) -> StudyRecord:
        """Add one study: its tensors first, then its line in the index.

        To put the same study twice changes nothing. Another study under an id that is
        taken raises ``StoreError``, as does what does not fit the header or float16.
        """
        record = self.write(
            study_id,
            latents,
            tokens,
            spacing=spacing,
            labels=labels,
            flags=flags,
            patient=patient,
            demographics=demographics,
        )
        return self.enter(record)

    def write(
        self,
        study_id: str,
        latents: Latents,
        tokens: Float[Tensor, "tokens features"],
        *,
        spacing: tuple[float, float, float],
        labels: dict[str, int],
        flags: tuple[str, ...] = (),
        patient: str = "",
        demographics: Demographics = UNKNOWN,
    ) -> StudyRecord:
        """Write the tensors of a study, which is in the store once its record is.

        Any number of processes may do so, each for studies of its own.
        """
        self._check_shapes(list(latents.shape), list(tokens.shape))
        content = to_bytes({"latents": _halved(latents), "tokens": _halved(tokens)})
        record = StudyRecord.from_json(
            {
                "study_id": study_id,
                "slices": len(latents),
                "spacing": spacing,
                "labels": labels,
                "flags": flags,
                "sha256": hashlib.sha256(content).hexdigest(),
                "patient": patient,
                **asdict(demographics),
            }
        )
        if self._records.get(study_id, record) != record:
            raise StoreError("another study has this id already; choose a new id")
        write_atomically(self._path(study_id), lambda path: path.write_bytes(content))
        return record

    def enter(self, record: StudyRecord) -> StudyRecord:
        """Enter the record of a study that was written into the index."""
        if record.study_id in self._records:
            return self._records[record.study_id]
        append_json(self.folder / "index.jsonl", asdict(record))
        self._records[record.study_id] = record
        self._sorted = None
        return record

    def slices(self, study_id: str, start: int, stop: int) -> Latents:
        """Read the latents of slices ``start`` up to ``stop`` as float32."""
        count = self._record(study_id).slices
        if not 0 <= start < stop <= count:
            raise StoreError(
                f"expected slices between 0 and {count}, got {start} up to {stop}"
            )
        latents: Tensor = self._study(study_id).get_slice("latents")[start:stop]
        return _as_floats(latents)

    def tokens(self, study_id: str) -> Float[Tensor, "tokens features"]:
        """Read the report tokens of a study as float32."""
        self._record(study_id)
        tokens: Tensor = self._study(study_id).get_tensor("tokens")
        return _as_floats(tokens)

    def _record(self, study_id: str) -> StudyRecord:
        if study_id not in self._records:
            raise StoreError("the store has no study of this id; see its index.jsonl")
        return self._records[study_id]

    def _path(self, study_id: str) -> Path:
        return self.folder / "studies" / f"{study_id}.safetensors"

    def _open_study(self, study_id: str) -> Any:  # noqa: ANN401 - safetensors is not typed
        """Map the file of a study, once its digest and its shapes are as recorded."""
        path, record = self._path(study_id), self._records[study_id]
        try:
            if study_id not in self._verified and sha256_of(path) != record.sha256:
                raise StoreError(f"a study is not the one that was taken in; {RESTORE}")
            study: Any = safe_open(path, framework="pt")
            found = {name: study.get_slice(name) for name in sorted(study.keys())}
        except (OSError, SafetensorError):
            raise StoreError(
                f"a study is absent or no safetensors; {RESTORE}"
            ) from None
        if list(found) != ["latents", "tokens"] or any(
            part.get_dtype() != "F16" for part in found.values()
        ):
            raise StoreError(f"a study needs float16 latents and tokens; {RESTORE}")
        self._check_shapes(*(part.get_shape() for part in found.values()))
        if found["latents"].get_shape()[0] != record.slices:
            raise StoreError(f"a study has more or fewer slices than noted; {RESTORE}")
        self._verified.add(study_id)
        return study

    def _read_edges(self) -> tuple[Latents, Float[Tensor, " channels"]]:
        """Read the black and the white slice, and the weights of the channels."""
        try:
            with safe_open(self.folder / "edges.safetensors", framework="pt") as file:
                edges: Tensor = file.get_tensor("edges")
                weights: Tensor = file.get_tensor("weights")
        except (OSError, SafetensorError):
            raise StoreError(
                f"edges.safetensors of a store is absent or broken; {RESTORE}"
            ) from None
        header = self.header
        if edges.shape != (2, header.channels, header.height, header.width):
            raise StoreError("the edges of a store must be two slices of its latents")
        if weights.shape != (header.channels,) or not (weights > 0).all():
            raise StoreError("a store must have one positive weight for each channel")
        return _as_floats(edges), _as_floats(weights)

    def _check_shapes(self, latents: list[int], tokens: list[int]) -> None:
        """Refuse what is not ``[slices, C, h, w]`` and ``[n, 768]``, or is empty."""
        header = self.header
        expected = [header.channels, header.height, header.width]
        if latents[1:] != expected or latents[0] < 1:
            raise StoreError(
                f"expected latents of one slice or more, each {expected}, got {latents}"
            )
        if tokens[1:] != [TOKEN_FEATURES] or tokens[0] < 1:
            raise StoreError(
                f"expected one report token or more, each [{TOKEN_FEATURES}], "
                f"got {tokens}"
            )


def _halved(values: Tensor) -> Tensor:
    halves = values.detach().cpu().to(torch.float16).contiguous()
    _as_floats(halves)
    return halves


def _as_floats(halves: Tensor) -> Tensor:
    """Return float16 as float32, once all of it is found to be finite."""
    values = halves.float()
    # The sum of float16 numbers cannot overflow float32, and is 30 times as fast as
    # to look at each of them.
    if not torch.isfinite(values.sum()):
        raise StoreError(
            "a study holds numbers that are not finite or too large for float16; "
            "take it in again with a codec and an encoder that fit"
        )
    return values


def _read_index(path: Path) -> dict[str, StudyRecord]:
    """Read the index; a last line that a kill has torn does not count."""
    if not path.exists():
        return {}
    records: dict[str, StudyRecord] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = StudyRecord.from_json(json.loads(line))
        except (ValueError, RecursionError, StoreError):
            raise StoreError(
                f"index.jsonl has a line that is no study; {RESTORE}"
            ) from None
        if record.study_id in records:
            raise StoreError(f"index.jsonl names a study twice; {RESTORE}")
        records[record.study_id] = record
    return records
