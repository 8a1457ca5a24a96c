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
from ctflow_fed.report.page import render_page, write_page

__all__ = [
    "Pair",
    "Picture",
    "RoundAccount",
    "RunAccount",
    "SiteAccount",
    "StageAccount",
    "SynthAccount",
    "render_page",
    "write_page",
]
