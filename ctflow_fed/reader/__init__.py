"""A reader of findings, trained on real scans: does a volume show what it should?

It shares nothing with the generator, which hears reports through another encoder.
"""

from ctflow_fed.reader.calibration import Calibration
from ctflow_fed.reader.reader import Reader

__all__ = ["Calibration", "Reader"]
