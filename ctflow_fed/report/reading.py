"""What the numbers of the utility test say, in plain sentences made from them."""

from ctflow_fed.evaluation import Interval, UtilityResult

__all__ = ["number", "reading", "signed", "span", "verdict"]

REFERENCES = {
    "real": "the real studies alone",
    "duplicated": "as many copies of real studies, chosen to balance the labels alike",
}


def number(value: float) -> str:
    """Write an area under a curve."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def span(interval: Interval, *, difference: bool = False) -> str:
    """Write the two ends of an interval."""
    write = signed if difference else number
    return f"{write(interval.low)} to {write(interval.high)}"


def verdict(difference: Interval) -> str:
    """Say in a few words what a difference amounts to."""
    if difference.holds_zero:
        return "within the noise"
    return "a gain" if difference.value > 0 else "a loss"


def reading(utility: UtilityResult) -> tuple[str, ...]:
    """Return sentences on the test itself, on each comparison, and a conclusion."""
    return (
        _on_the_test(utility),
        *(_on_reference(utility, name) for name in REFERENCES),
        _conclusion(utility),
    )


def _on_the_test(utility: UtilityResult) -> str:
    real = utility.arm("real").auroc
    if real.low <= 0.5:
        return (
            "Trained on the real studies alone, the classifier is not clearly better "
            f"than tossing a coin ({number(real.value)}, where a coin scores 0.500): "
            "this test could hardly show a difference of any kind."
        )
    return (
        "Trained on the real studies alone, the classifier reaches a macro AUROC of "
        f"{number(real.value)} on a hospital that it has never seen, where a coin "
        "scores 0.500: there is something to learn and room to improve."
    )


def _on_reference(utility: UtilityResult, name: str) -> str:
    difference = utility.against(name)
    ends = span(difference, difference=True)
    said = (
        f"Against {REFERENCES[name]}, adding synthetic volumes changes the macro AUROC "
        f"by {signed(difference.value)} (95 % interval {ends})"
    )
    if difference.holds_zero:
        return f"{said}. The interval holds zero: the difference is within the noise."
    return (
        f"{said}. The interval does not hold zero: in this run it is "
        f"{verdict(difference)}. {_coverage(utility)}"
    )


def _coverage(utility: UtilityResult) -> str:
    repeats = utility.settings.repeats
    return (
        f"The interval covers the choice of test patients and of {repeats} set"
        f"{'s' if repeats != 1 else ''} of first weights, not the choice of the "
        "training studies or of the synthetic volumes."
    )


def _conclusion(utility: UtilityResult) -> str:
    real, control = (verdict(utility.against(name)) for name in REFERENCES)
    if real == control == "a gain":
        return (
            "Both comparisons agree on a gain: in this run, in a phantom world, the "
            "synthetic volumes did more for the classifier than copies of real ones."
        )
    if "a loss" in (real, control):
        return (
            "At least one comparison shows a loss: nothing in this run speaks for "
            "training a classifier with these synthetic volumes."
        )
    if "a gain" in (real, control):
        return (
            "Only one of the two comparisons shows a gain. A claim for synthetic "
            "volumes needs both: better than the real studies, better than copies."
        )
    return (
        "This run shows neither that the synthetic volumes help nor that they do not. "
        f"With {utility.tested} test studies only large differences can be seen."
    )
