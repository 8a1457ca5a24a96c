"""A parametric chest CT: a patient by a seed, findings by name, text and masks."""

from ctflow_fed.ct.phantom.plan import Finding, plan_findings
from ctflow_fed.ct.phantom.population import (
    HELD_OUT,
    HOSPITALS,
    PUBLIC,
    Population,
    draw_findings,
)
from ctflow_fed.ct.phantom.report import compose
from ctflow_fed.ct.phantom.scanner import Scanner
from ctflow_fed.ct.phantom.study import PhantomStudy, draw
from ctflow_fed.ct.phantom.writer import write_studies

__all__ = [
    "HELD_OUT",
    "HOSPITALS",
    "PUBLIC",
    "Finding",
    "PhantomStudy",
    "Population",
    "Scanner",
    "compose",
    "draw",
    "draw_findings",
    "plan_findings",
    "write_studies",
]
