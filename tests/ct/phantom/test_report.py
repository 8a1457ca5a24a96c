"""The text says what is drawn and denies what is not."""

import pytest

from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.ct.phantom import HELD_OUT, compose, draw_findings, plan_findings
from ctflow_fed.ct.phantom.phrases import ABSENT, IMPRESSIONS, PRESENT
from ctflow_fed.errors import SettingsError


def test_a_report_names_the_side_and_the_size_of_a_nodule_as_drawn():
    for seed in range(20):
        (nodule,) = plan_findings(["Lung nodule"], seed)
        findings, impression = compose({"Lung nodule": 1}, seed)
        place = f"the {nodule.lobe} lobe of the {nodule.side} lung"
        assert f"{nodule.size_mm:.0f}" in findings
        assert place in findings.lower()
        assert place in impression


def test_a_report_names_both_sides_of_a_bilateral_effusion():
    both = next(
        seed
        for seed in range(50)
        if plan_findings(["Pleural effusion"], seed)[0].side == "both"
    )
    _, impression = compose({"Pleural effusion": 1}, both)
    assert impression.startswith("Bilateral pleural effusions")


@pytest.mark.parametrize("name", FINDINGS)
def test_an_absent_finding_is_denied(name):
    findings, impression = compose({}, 3)
    assert sum(sentence in findings for sentence in ABSENT[name]) == 1
    assert "ormal" in impression or "No acute" in impression


def test_labels_can_be_read_back_from_the_text():
    for seed in range(60):
        present = draw_findings(seed, HELD_OUT)
        labels = {name: int(name in present) for name in FINDINGS}
        assert labels_of(" ".join(compose(labels, seed))) == labels


def test_the_wording_depends_on_the_seed():
    texts = {compose({"Lung nodule": 1}, seed)[0] for seed in range(10)}
    assert len(texts) == 10


def test_a_label_of_zero_is_the_same_as_none():
    assert compose({"Emphysema": 0}, 1) == compose({}, 1)


def test_every_kind_of_every_finding_has_phrases():
    for seed in range(30):
        for finding in plan_findings(FINDINGS, seed):
            names = {finding.name, f"{finding.name}: {finding.kind}"}
            assert names & set(PRESENT)
            assert names & set(IMPRESSIONS)


def test_no_placeholder_is_left_in_a_text():
    text = " ".join(compose(dict.fromkeys(FINDINGS, 1), 12))
    assert "{" not in text
    assert "  " not in text


def test_an_unknown_label_is_refused():
    with pytest.raises(SettingsError, match="18 of CT-RATE"):
        compose({"Fracture": 1}, 0)
