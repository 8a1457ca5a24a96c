"""The 18 findings of CT-RATE, and a reader that finds them in a report."""

from ctflow_fed.ct.labels.reading import labels_of, mentioned_in
from ctflow_fed.ct.labels.rules import FINDINGS

__all__ = ["FINDINGS", "labels_of", "mentioned_in"]
