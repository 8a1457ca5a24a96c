"""A torch dataset of synthetic volumes that are drawn when they are asked for."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ctflow_fed.augment.item import synthetic_item
from ctflow_fed.augment.planning import Plan
from ctflow_fed.augment.request import SynthRequest
from ctflow_fed.augment.settings import GenerateSettings
from ctflow_fed.augment.store import SynthStore
from ctflow_fed.augment.worker import SynthWorker, load_sampler
from ctflow_fed.errors import IncompleteError
from ctflow_fed.locks import awaited
from ctflow_fed.model import package_folder

__all__ = ["SyntheticCTDataset"]

PAUSE = 0.5  # seconds between two looks at what a run has drawn

_drawing = threading.Lock()
"""The threads of a process share its sampler and its cores."""


class SyntheticCTDataset(Dataset[Any]):
    """The volumes of a plan, each drawn on first access and kept in the folder ``out``.

    ``data`` has the items (those of `extend`) from the start, before anything is drawn:
    for `mix_weights`, or as the ``data`` of another dataset, which then draws what it
    touches. The folder is a `SynthStore`, whose names are hashes of request and
    generator: what another run or `generate` has drawn there is not drawn again, and
    what a `generate` that goes on may draw is waited for.

    It may be shared by the workers of a loader; each loads the model when it first
    needs it, and no volume is drawn twice. With a GPU take MONAI's ``ThreadDataLoader``
    or workers that are spawned, because CUDA does not survive a fork.

    An access raises ``IncompleteError`` where the volume cannot be drawn, or does not
    pass the gate of the settings: to leave such out, `generate` and `extend`.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        model: Path | str,
        out: Path | str,
        settings: GenerateSettings | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.model = package_folder(model)
        self.settings = settings or GenerateSettings()
        self.transform = transform
        self.requests = plan.requests
        origin = load_sampler(self.model, self.settings)[1]
        self.store = SynthStore.create(Path(out), plan, origin)
        self.data = [self._item(request) for request in plan.requests]
        self._worker: SynthWorker | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401  # what the transform gives
        item = self.data[index]
        if item["sample_id"] not in self.store:
            self._draw(self.requests[index])
        item = {**item, "label": item["label"].copy()}
        return item if self.transform is None else self.transform(item)

    def __getstate__(self) -> dict[str, Any]:
        """A spawned worker loads the model itself."""
        return {**self.__dict__, "_worker": None}

    def _item(self, request: SynthRequest) -> dict[str, Any]:
        sample_id = self.store.header.origin.sample_id(request)
        image = self.store.image(sample_id)
        return synthetic_item(sample_id, image, request.labels, request.report)

    def _draw(self, request: SynthRequest) -> None:
        """Draw a volume, unless another process does so: then wait for that."""
        sample_id = self.store.header.origin.sample_id(request)
        while self.store.runs.live() and sample_id not in self.store:
            self._refuse(sample_id)
            time.sleep(PAUSE)  # a run of `generate` will have drawn it
        self._refuse(sample_id)
        lock = self.store.folder / "locks" / sample_id[:2]
        with awaited(lock), _drawing:
            if sample_id in self.store:  # by the one that we waited for
                return
            self._worker = self._worker or SynthWorker(
                self.model, self.store.folder, self.settings
            )
            (reason,) = self._worker([request])
        if reason:
            raise IncompleteError(f"a synthetic volume could not be drawn: {reason}")
        self._refuse(sample_id)

    def _refuse(self, sample_id: str) -> None:
        """Raise the verdict of the gate where it let a volume not pass."""
        if sample_id in self.store.refused:
            refusal = self.store.refused.read(sample_id).refusal
            raise IncompleteError(f"the quality gate refused a volume: {refusal}")
