"""DICOM CT series: read without the risk of misreading, and written as synthetic."""

from ctflow_fed.ct.dicom.series import read_series
from ctflow_fed.ct.dicom.write import SeriesTags, write_series

__all__ = ["SeriesTags", "read_series", "write_series"]
