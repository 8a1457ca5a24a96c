"""Drawing volumes from reports."""

from ctflow_fed.sampling.settings import SampleSettings
from ctflow_fed.sampling.volume import VolumeRequest, VolumeSampler

__all__ = ["SampleSettings", "VolumeRequest", "VolumeSampler"]
