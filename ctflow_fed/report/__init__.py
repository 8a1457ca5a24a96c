"""One HTML page that explains a run to whoever opens it."""

from ctflow_fed.report.account import (
    Pair,
    Picture,
    RoundAccount,
    RunAccount,
    SiteAccount,
    StageAccount,
    SynthAccount,
)
from ctflow_fed.report.overview import write_overview
from ctflow_fed.report.page import render_page, write_page
from ctflow_fed.report.viewer import Shown, show, volumes_in

__all__ = [
    "Pair",
    "Picture",
    "RoundAccount",
    "RunAccount",
    "Shown",
    "SiteAccount",
    "StageAccount",
    "SynthAccount",
    "render_page",
    "show",
    "volumes_in",
    "write_overview",
    "write_page",
]
