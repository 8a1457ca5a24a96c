"""The whole chain on one machine, with phantoms: what the toolkit is for."""

from ctflow_fed.demo.places import Places
from ctflow_fed.demo.run import run_demo
from ctflow_fed.demo.settings import DemoSettings

__all__ = ["DemoSettings", "Places", "run_demo"]
