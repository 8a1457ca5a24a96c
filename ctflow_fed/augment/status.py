"""How far a set of synthetic volumes is."""

from dataclasses import dataclass

__all__ = ["StoreStatus"]


@dataclass(frozen=True)
class StoreStatus:
    """How far a set is: ``done`` of ``planned`` volumes, and what is wrong with it.

    ``damaged`` volumes have a sidecar that does not fit them; ``failed`` are those that
    the last run could not make and that are still missing; ``refused`` those that the
    quality gate did not let pass; ``spent`` those that a stream has taken;
    ``positives`` counts what is done by finding. ``runs`` processes fill the set at the
    moment, which have made ``hourly`` volumes an hour since the first of them began.
    """

    planned: int
    done: int
    damaged: int
    failed: int
    refused: int
    spent: int
    bytes: int
    positives: dict[str, int]
    runs: int = 0
    hourly: float | None = None

    @property
    def left(self) -> int:
        """How many volumes are still to be drawn."""
        return self.planned - self.done - self.refused - self.spent

    @property
    def hours_left(self) -> float | None:
        """How long it takes at this rate; None where that is not known."""
        return self.left / self.hourly if self.hourly else None
