"""What the network is told about a clip."""

from dataclasses import dataclass, fields, replace

import torch

from ctflow_fed.clips import nearest_mm
from ctflow_fed.shapes import Clip, Geometry, Known, Nearest, Time, TokenMask, Tokens

__all__ = ["Conditions", "FrameConditions"]


@dataclass(frozen=True)
class FrameConditions:
    """Our extensions: where the frames lie, which are known, how noisy the context is.

    ``geometry`` comes from `ctflow_fed.clips.clip_geometry`, ``nearest`` from
    `ctflow_fed.clips.nearest_mm`; ``noise_level`` is the share of noise in the context,
    0 to 1.
    """

    geometry: Geometry
    known: Known
    nearest: Nearest
    noise_level: Time

    @classmethod
    def of(
        cls, geometry: Geometry, known: Known, noise_level: Time
    ) -> "FrameConditions":
        """Return the conditions of whole clips, whose frames lie in rising order."""
        return cls(geometry, known, nearest_mm(geometry, known), noise_level)

    def to(self, device: torch.device) -> "FrameConditions":
        """Return the conditions on a device."""
        moved = (getattr(self, each.name).to(device) for each in fields(self))
        return FrameConditions(*moved)


@dataclass(frozen=True)
class Conditions:
    """A context, a report and, unless the network is used as released, its extensions.

    ``context`` has the shape of the noisy clip. A report of no token (a row of
    ``report_mask`` without a True) is no report at all: the learned null token stands
    in for it.
    """

    context: Clip
    report: Tokens
    report_mask: TokenMask
    frames: FrameConditions | None = None

    def to(self, device: torch.device) -> "Conditions":
        """Return the conditions on a device."""
        return Conditions(
            self.context.to(device),
            self.report.to(device),
            self.report_mask.to(device),
            None if self.frames is None else self.frames.to(device),
        )

    def inside(self) -> "Conditions":
        """Return the conditions of the same clip without its first and last frame."""
        frames = self.frames
        if frames is not None:
            frames = replace(
                frames,
                geometry=frames.geometry[:, 1:-1],
                known=frames.known[:, 1:-1],
                nearest=frames.nearest[:, 1:-1],
            )
        return replace(self, context=self.context[:, :, 1:-1], frames=frames)

    def without_report(self) -> "Conditions":
        """Return the same conditions with no report."""
        return replace(self, report_mask=torch.zeros_like(self.report_mask))
