"""Whether a synthetic volume repeats a scan that its generator was trained on.

A site makes a private index of its scans; whoever draws volumes there asks it and sees
likenesses, never scans.
"""

from ctflow_fed.copies.index import CopyCheck, CopyIndex
from ctflow_fed.copies.picture import Picture, picture_of

__all__ = ["CopyCheck", "CopyIndex", "Picture", "picture_of"]
