"""The page: an account of a run, its pictures and its charts in one HTML file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.evaluation import Interval, UtilityResult
from ctflow_fed.files import write_text
from ctflow_fed.report.account import Pair, RunAccount
from ctflow_fed.report.charts import Bar, curve, forest
from ctflow_fed.report.figures import views
from ctflow_fed.report.reading import number, reading, signed, span, verdict
from ctflow_fed.report.rendering import render

__all__ = ["render_page", "write_page"]

ARM_NAMES = {
    "real": "real",
    "duplicated": "real + copies",
    "synthetic_added": "real + synthetic",
}
"""What a reader sees in place of the arms' keys."""

LOSS = "loss of the global model on the sites' studies"

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def write_page(path: Path, account: RunAccount) -> None:
    """Write the page of a run; it needs no other file and no network."""
    text = render_page(account)
    write_text(path, text)


def render_page(account: RunAccount) -> str:
    """Return the page of a run as HTML."""
    return render(
        "page.html.j2",
        filters=FILTERS,
        charts=_charts(account),
        run=account,
        findings=_findings(account),
        pairs=[_pair(pair) for pair in account.pairs],
        arms=_arms(account.utility),
        reading=reading(account.utility),
        verdict=verdict,
        loss_name=LOSS,
    )


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


FILTERS: dict[str, Callable[..., str]] = {
    "count": lambda value: COUNTS.get(value, str(value)),
    "duration": duration,
    "number": number,
    "percent": lambda share: f"{100 * share:.0f} %",
    "signed": signed,
    "span": span,
}


def _charts(account: RunAccount) -> dict[str, str]:
    utility = account.utility
    losses = [account.rounds[0].loss_before, *(r.loss_after for r in account.rounds)]
    arms = [Bar(ARM_NAMES[arm.name], arm.auroc, arm.name) for arm in utility.arms]
    gains = [
        Bar(f"over {ARM_NAMES[each.reference]}", each.difference, each.reference)
        for each in utility.comparisons
    ]
    return {
        "loss": curve(losses, x_title="round", y_title=LOSS),
        "arms": forest(arms, reference=0.5, x_title="macro AUROC (0.5: a coin)"),
        "gains": forest(gains, reference=0.0, x_title="gain of real + synthetic"),
    }


def _findings(account: RunAccount) -> list[dict[str, Any]]:
    """Return a row a finding: its prevalence everywhere and its scores in each arm."""
    scores = {
        (arm.name, row.finding): row
        for arm in account.utility.arms
        for row in arm.findings
    }
    return [
        {
            "name": name,
            "sites": [site.prevalence.get(name, 0.0) for site in account.sites],
            "synthetic": account.synthetic.prevalence.get(name, 0.0),
            "cases": account.utility.cases.get(name),
            "scores": [scores.get((arm, name)) for arm in ARM_NAMES],
        }
        for name in FINDINGS
    ]


def _arms(utility: UtilityResult) -> list[dict[str, Any]]:
    """Return a row an arm; the first has no difference to itself."""
    added: Interval = utility.arm("synthetic_added").auroc
    return [
        {
            "title": ARM_NAMES[arm.name],
            "arm": arm,
            "gain": None if arm.auroc is added else utility.against(arm.name),
        }
        for arm in utility.arms
    ]


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "finding": pair.finding,
        "sides": [
            ("real", "Real (a phantom)", views(pair.real.volume), pair.real),
            (
                "synthetic",
                "Synthetic",
                views(pair.synthetic.volume),
                pair.synthetic,
            ),
        ],
    }
