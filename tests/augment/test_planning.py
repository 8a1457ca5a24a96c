import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ctflow_fed.augment import (
    GenerateSettings,
    Plan,
    SynthRequest,
    plan,
    probe,
)
from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.errors import InputError, ReportTableError, SettingsError


def items(*positives: set[str]) -> list[dict]:
    return [
        {"image": f"{number}.nii.gz", "label": [float(n in names) for n in FINDINGS]}
        for number, names in enumerate(positives)
    ]


def test_every_finding_of_the_target_is_shown_exactly_as_often_as_wanted():
    real = items(*[{"Pleural effusion", "Atelectasis", "Cardiomegaly"}] * 20)
    target = {"Pleural effusion": 30, "Atelectasis": 12, "Bronchiectasis": 1}

    made = plan(real, target=target, slices=8)

    assert {name: made.positives()[name] for name in target} == target


def test_two_findings_that_occur_together_share_volumes():
    together = plan(
        items(*[{"Pleural effusion", "Atelectasis"}] * 200, *[set()] * 200),
        target={"Pleural effusion": 100, "Atelectasis": 100},
    )
    apart = plan(target={"Pleural effusion": 100, "Atelectasis": 100})

    assert len(together) < 115
    assert len(apart) == 200


def test_what_one_rare_patient_also_has_is_not_copied():
    rare = {"Bronchiectasis", "Hiatal hernia", "Medical material", "Cardiomegaly"}
    real = items(rare, *[set()] * 99)

    made = plan(real, target={"Bronchiectasis": 200})

    others = made.positives()["Hiatal hernia"]
    assert 0 < others < 0.35 * 200


def test_without_items_a_volume_shows_one_finding():
    made = plan(target={"Lung nodule": 3, "Emphysema": 2})

    assert sorted(each.findings for each in made.requests) == sorted(
        [("Lung nodule",)] * 3 + [("Emphysema",)] * 2
    )


def test_composed_reports_say_what_the_labels_say():
    made = plan(items(set(FINDINGS[2:9])), target=dict.fromkeys(FINDINGS, 2))

    for each in made.requests:
        assert labels_of(each.report) == each.labels


def test_given_reports_are_kept_and_labelled_by_what_they_affirm():
    text = "Bronchiectasis in the left lower lobe. No pleural effusion."

    (request,) = plan(reports=[text]).requests

    assert (request.report, request.source) == (text, "given")
    assert request.findings == ("Bronchiectasis",)


def test_no_report_of_an_item_enters_the_plan():
    real = [{**item, "report": "SECRET 03.02.2020"} for item in items({"Emphysema"})]

    made = plan(real, target={"Emphysema": 5})

    assert not any("SECRET" in each.report for each in made.requests)


def test_the_same_arguments_make_the_same_plan_and_another_seed_another():
    real = items({"Emphysema", "Lung nodule"}, {"Emphysema"})

    first, again = (plan(real, target={"Emphysema": 9}, seed=1) for _ in range(2))
    other = plan(real, target={"Emphysema": 9}, seed=2)

    assert first == again
    assert first.plan_id == again.plan_id != other.plan_id


def test_a_saved_plan_is_the_plan(tmp_path, small_plan):
    small_plan.save(tmp_path / "plan.json")

    assert Plan.load(tmp_path / "plan.json") == small_plan


def test_the_description_counts_what_will_be_drawn(small_plan):
    text = small_plan.describe()

    assert "4 synthetic volumes of 8 slices" in text
    assert "3 composed from labels, 1 given" in text
    assert re.search(r"Bronchiectasis +2$", text)
    assert "effusion on the right" not in text


def imbalance(counts: Counter) -> float:
    """Return how many times a finding's count the largest is, in the mean."""
    shown = [counts[name] for name in FINDINGS if counts[name]]
    return float(np.mean([max(shown) / count for count in shown]))


def shown(real: list[dict]) -> Counter:
    return Counter(
        name
        for item in real
        for name, label in zip(FINDINGS, item["label"], strict=True)
        if label
    )


def test_a_ratio_evens_out_what_the_items_show():
    real = items(
        *[{"Lung nodule", "Emphysema"}] * 60,
        *[{"Emphysema"}] * 30,
        *[{"Bronchiectasis", "Emphysema"}] * 6,
        *[{"Hiatal hernia"}] * 2,
        *[set()] * 2,
    )

    made = plan(real, ratio=1.5)

    before, added = shown(real), Counter(made.positives())
    assert len(made) == 150
    assert imbalance(before + added) < imbalance(before) / 5
    assert set(+added) == set(before)
    assert sum(not each.findings for each in made.requests) > 20


def test_a_ratio_leaves_the_target_as_it_is_and_fills_up_the_rest():
    real = items(*[{"Lung nodule"}] * 30, *[{"Bronchiectasis", "Emphysema"}] * 10)

    made = plan(real, target={"Bronchiectasis": 7}, reports=["Emphysema."], ratio=1)

    assert len(made) == 40
    assert made.positives()["Bronchiectasis"] == 7
    assert plan(real, target={"Bronchiectasis": 70}, ratio=1).positives() == (
        plan(real, target={"Bronchiectasis": 70}).positives()
    )


@pytest.mark.parametrize(
    ("real", "arguments", "sentence"),
    [
        ([], {"target": {"Emphysema": 1}}, "got an empty one"),
        (None, {"ratio": 1}, "none are given"),
        (items(set()), {"ratio": 0}, "above 0"),
        (items(set()), {"ratio": float("nan")}, "above 0"),
        (items(set()), {"ratio": 10_000}, "1000 at most"),
        (items(set()), {"ratio": 1, "sentences": "items"}, "no item has a 'report'"),
    ],
)
def test_a_datalist_that_is_not_enough_is_refused(real, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        plan(real, **arguments)


def test_a_report_of_an_excluded_item_is_refused_and_not_quoted():
    text = "Mild emphysema in the left upper lobe."
    test_items = [{"report": "MILD  emphysema in the left\nupper lobe."}, {"image": 1}]

    with pytest.raises(ReportTableError, match="got 1; take them out") as refusal:
        plan(reports=[text, "Another one."], exclude=test_items)

    assert "emphysema" not in str(refusal.value).lower()
    with pytest.raises(ReportTableError, match="to compare with"):
        plan(reports=[text], exclude=[{"image": "a.nii"}])
    with pytest.raises(ReportTableError, match="excluded item"):
        plan(
            [{**items(set())[0], "report": text}],
            ratio=1,
            sentences="items",
            exclude=test_items,
        )


@pytest.mark.parametrize(
    ("age_band", "sex", "words"),
    [
        ("60-69", "F", "Female patient, 60-69 years. "),
        ("90+", None, "Patient, 90+ years. "),
        (None, "M", "Male patient. "),
    ],
)
def test_a_composed_report_begins_with_its_patient(age_band, sex, words):
    target = {"Emphysema": 2}
    made = plan(target=target, reports=["Nodule."], age_band=age_band, sex=sex)
    plain = plan(target=target, reports=["Nodule."])

    texts = [each.report for each in made.requests]
    assert texts == [
        each.report if each.source == "given" else words + each.report
        for each in plain.requests
    ]
    assert made.positives() == plain.positives()


@pytest.mark.parametrize(
    "words",
    [{"age_band": "64"}, {"age_band": "5"}, {"sex": "X"}, {"sentences": "mine"}],
)
def test_words_on_a_patient_that_are_none_are_refused(words):
    with pytest.raises(SettingsError, match="choose one of them"):
        plan(target={"Emphysema": 1}, **words)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "at least one request"),
        ({"target": {"Broncho": 1}}, "known are: Medical material"),
        ({"target": {"Emphysema": 0}}, "1 to 1000000"),
        ({"target": {"Emphysema": 1}, "slices": 0}, "1 to 2048 slices, got 0"),
        ({"target": {"Emphysema": 1}, "slice_mm": 0.0}, "between 0.1 and 20"),
        ({"target": {"Emphysema": 1}, "slice_mm": float("nan")}, "0.1 and 20"),
        ({"reports": [" "]}, "1 to 20000 characters"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(SettingsError, match=sentence):
        plan(**arguments)


def test_a_label_of_another_length_is_refused():
    with pytest.raises(Exception, match="'label' of 18 numbers"):
        plan([{"image": "a.nii", "label": np.zeros(14)}], target={"Emphysema": 1})


def test_equal_requests_have_equal_ids_and_other_requests_others():
    request = SynthRequest("Emphysema.", ("Emphysema",), seed=1, slices=8)
    same = SynthRequest("Emphysema.", ("Emphysema",), seed=1, slices=8)
    thinner = SynthRequest("Emphysema.", ("Emphysema",), 1, 8, slice_mm=1.0)

    assert request.request_id == same.request_id != thinner.request_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "ctflow-fed plan 1", "requests": [{}]}',
        '{"format": "ctflow-fed plan 1", "requests": [[1]]}',
        '{"format": "ctflow-fed plan 1", "requests": [{"report": "x", "findings": '
        '["../x"], "seed": 1, "slices": 8, "slice_mm": null, "source": "given"}]}',
        '{"format": "ctflow-fed plan 1", "requests": [{"report": "x", "findings": '
        '[[]], "seed": 1, "slices": 8, "slice_mm": NaN, "source": "given"}]}',
        '{"format": "ctflow-fed plan 1", "requests": [{"report": "x", "findings": '
        '[], "seed": 1, "slices": true, "slice_mm": null, "source": "given"}]}',
        '{"format": "ctflow-fed plan 1", "requests": [{"report": "x", "findings": '
        '[], "seed": 1, "slices": 8, "slice_mm": 1, "source": "stolen"}]}',
        '{"format": "ctflow-fed plan 1", "requests": [{"report": "x", "findings": '
        f'[], "seed": 1, "slices": 8, "slice_mm": {10**400}, "source": "given"}}]}}',
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)

    with pytest.raises(SettingsError):
        Plan.load(tmp_path / "plan.json")


def test_a_plan_tells_what_a_volume_that_was_drawn_makes_of_it(model):
    made = plan(target={"Emphysema": 90}, slices=8)

    cost = probe(made, model=model, settings=GenerateSettings(steps=1))

    assert (cost.slices, cost.device) == (8, "cpu")
    assert 0 < cost.bytes < 8 * 32 * 32 * 2
    told = replace(cost, seconds=60.0, bytes=10**8)
    assert "about 90.0 minutes of one device and 9.0 GB of disk" in made.describe(told)
    assert "a volume of 8 slices drawn here on cpu in 60.0 s" in made.describe(told)
