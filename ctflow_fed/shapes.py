"""The axes of every array, named once.

The same word is the same length wherever it stands in one signature. Under pytest the
annotations are checked; in production they cost nothing.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int16
from torch import Tensor

HU = Int16[np.ndarray, "slices rows cols"]
"""A volume in Hounsfield units, canonical order (see `ctflow_fed.ct.volume`)."""

VoxelMask = Bool[np.ndarray, "slices rows cols"]
"""Which voxels of a volume belong to something."""

Affine = Float64[np.ndarray, "4 4"]
"""Voxel index -> RAS millimetres."""

Slices = Float[Tensor, "slices rows cols"]
"""Slices in Hounsfield units, as the codec takes and gives them."""

Latents = Float[Tensor, "slices channels height width"]
"""The latents of consecutive slices."""

Latent = Float[Tensor, "1 channels height width"]
"""The latent of one slice."""

Volumes = Float[Tensor, "volumes channels slices height width"]
"""The latents of whole volumes of one length, their slices in the place of frames."""

Clip = Float[Tensor, "batch channels frames height width"]
"""A batch of clips, as the network takes them; a frame is the latent of one slice."""

Time = Float[Tensor, " batch"]
"""The time of each clip on its path: 1 is noise, 0 is data."""

ClipTime = Float[Tensor, "batch #channels #frames 1 1"]
"""The time of each channel and frame of each clip, or one for all of them."""

TimeGrid = Float[Tensor, " times"]
"""The times that a solver stops at, from 1 to 0."""

Tokens = Float[Tensor, "batch tokens features"]
"""Report tokens."""

TokenMask = Bool[Tensor, "batch tokens"]
"""Which report tokens are real; the others are padding."""

KnownFrames = Bool[Tensor, " frames"]
"""Which frames of one clip are known."""

KnownSlices = Bool[Tensor, " slices"]
"""Which slices of a volume are known."""

Known = Bool[Tensor, "batch frames"]
"""Which frames of each clip are known."""

Nearest = Float[Tensor, "batch frames 2"]
"""Millimetres from each frame to the nearest known one below it and above it; infinite
where there is none, zero for a known frame."""

Geometry = Float[Tensor, "batch frames quantities"]
"""Where each frame lies in its volume (see `ctflow_fed.clips`)."""

Hidden = Float[Tensor, "batch pairs places hidden"]
"""What flows through the network: one row of its width for each patch.

A patch covers a pair of frames at one place.
"""

HiddenTokens = Float[Tensor, "batch tokens hidden"]
"""Report tokens in the width of the network."""
