"""The demo from its first stage to its page."""

from collections.abc import Callable
from pathlib import Path

from ctflow_fed.demo.account import account_of, summary_of
from ctflow_fed.demo.chain import (
    compare_classifiers,
    draw_volumes,
    take_in,
    train_together,
    write_scans,
)
from ctflow_fed.demo.journal import Journal
from ctflow_fed.demo.places import Places
from ctflow_fed.demo.settings import DemoSettings
from ctflow_fed.files import write_json
from ctflow_fed.report import write_page

__all__ = ["run_demo"]


def run_demo(out: Path, settings: DemoSettings, say: Callable[[str], None]) -> Places:
    """Run the demo in ``out``, or go on with the one that is there.

    ``say`` is told of every stage. Raises `MismatchError` when ``out`` holds a demo of
    other settings.
    """
    places = Places(out)
    journal = Journal(out, settings.identity, say)
    stages: dict[str, tuple[str, Callable[[], object]]] = {
        "scans": (
            "Hospitals write their scans",
            lambda: write_scans(places, settings),
        ),
        "intake": (
            "Each hospital takes its studies in",
            lambda: take_in(places, settings),
        ),
        "federation": (
            "The hospitals train one generator",
            lambda: train_together(places, settings, say),
        ),
        "synthetic": (
            "Synthetic volumes are drawn",
            lambda: draw_volumes(places, settings),
        ),
        "classifiers": (
            "Classifiers are trained and tested",
            lambda: compare_classifiers(places, settings),
        ),
    }
    for number, (key, (title, work)) in enumerate(stages.items(), start=1):
        journal.stage(key, title, work, step=f"{number}/{len(stages)}")
    account = account_of(places, settings, journal)
    write_json(places.summary, summary_of(account))
    write_page(places.page, account)
    return places
