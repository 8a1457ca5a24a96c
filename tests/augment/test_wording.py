import csv
import re
from pathlib import Path

import pytest

from ctflow_fed.augment import plan
from ctflow_fed.augment.wording import Wording
from ctflow_fed.ct.labels import FINDINGS, labels_of

NORMAL = "Trachea is open. No pleural effusion is seen. Bone structures are intact."
REPORTS = [
    f"Trachea is open. {told} No pleural effusion is seen. Bone structures are intact."
    for told in (
        "A nodule of 5 mm is seen in the left upper lobe.",
        "A nodule of 9 mm is seen in the right lower lobe.",
        "Emphysema is seen in both upper lobes.",
        "Mild emphysema is seen. Operated by Dr. Smith on 03.02.2020 in Springfield.",
        "There is a nodule and emphysema. The dog of the patient barks.",
    )
]


def sentences_of(text: str) -> set[str]:
    return set(re.split(r"(?<=[.])\s+", text))


@pytest.mark.parametrize("seed", range(30))
def test_sentences_of_reports_say_what_is_wanted_in_their_usual_order(seed):
    text, source = Wording(REPORTS).compose(("Emphysema", "Lung nodule"), seed)

    told = {name for name, label in labels_of(text).items() if label}
    assert source == "sentences"
    assert told == {"Emphysema", "Lung nodule"}
    assert sentences_of(text) <= set.union(*map(sentences_of, REPORTS))
    if "Trachea" in text:
        assert text.startswith("Trachea is open.")


def test_no_report_comes_back_whole():
    reports = [*REPORTS, NORMAL, NORMAL + " "]
    wording = Wording(reports)

    for seed in range(60):
        for findings in ((), ("Lung nodule",), ("Emphysema", "Lung nodule")):
            assert wording.compose(findings, seed)[0] not in reports


def test_what_tells_of_a_person_or_is_said_by_one_alone_stays_out():
    wording = Wording(REPORTS)

    texts = [wording.compose(("Emphysema",), seed)[0] for seed in range(60)]
    assert not any("Smith" in text or "dog" in text for text in texts)
    assert len(set(texts)) > 3


def test_a_report_that_occurs_twice_makes_nothing_of_it_common():
    twice = [*REPORTS, REPORTS[4].upper()]

    texts = [Wording(twice).compose(("Emphysema",), seed)[0] for seed in range(60)]
    assert not any("dog" in text.lower() for text in texts)


def test_what_the_reports_cannot_state_the_grammar_does():
    text, source = Wording(REPORTS).compose(("Hiatal hernia",), 0)

    assert source == "template"
    assert [name for name, label in labels_of(text).items() if label] == [
        "Hiatal hernia"
    ]


def test_composed_of_real_reports_a_plan_says_what_its_labels_say():
    path = Path(__file__).parents[3] / "shared/realdata/reports/ctrate_labeled"
    if not path.exists():
        pytest.skip("the real reports are not on this machine: no ../shared")
    with (path / "train.csv").open() as file:
        rows = list(csv.DictReader(file))[:250]
    real = [
        {"label": [float(row[name]) for name in FINDINGS], "report": row["report_text"]}
        for row in rows
    ]

    made = plan(real, ratio=0.4, sentences="items", seed=1)

    texts = {row["report_text"] for row in rows}
    by_source = [each.source for each in made.requests]
    assert by_source.count("sentences") > 0.8 * len(made)
    assert all(labels_of(each.report) == each.labels for each in made.requests)
    assert not any(each.report in texts for each in made.requests)
    assert "sentences of real reports" in made.describe()
