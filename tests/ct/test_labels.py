"""The reader of labels: sentences a radiologist writes, and 800 real reports."""

from pathlib import Path

import pytest

from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.ct.labels.rules import RULES


@pytest.fixture
def reading(monkeypatch):
    """The benchmark that compares what is read with labels made by hand."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import label_reading

    return label_reading


@pytest.fixture
def ct_rate(shared):
    return shared / "realdata" / "reports" / "ctrate_labeled" / "train.csv"


def stated(report):
    return {finding for finding, label in labels_of(report).items() if label}


def test_every_finding_has_a_label_in_the_order_of_ct_rate():
    assert tuple(labels_of("")) == FINDINGS
    assert set(labels_of("").values()) == {0}


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        ("Pacemaker with its electrodes.", {"Medical material"}),
        ("Calcified plaques in the aortic arch.", {"Arterial wall calcification"}),
        ("The heart is enlarged.", {"Cardiomegaly"}),
        ("Minimal pericardial effusion.", {"Pericardial effusion"}),
        ("Calcification of the LAD.", {"Coronary artery wall calcification"}),
        ("A sliding hiatal hernia is seen.", {"Hiatal hernia"}),
        ("Enlarged mediastinal lymph nodes.", {"Lymphadenopathy"}),
        ("Bullous changes at both apices.", {"Emphysema"}),
        ("Linear atelectasis in the lingula.", {"Atelectasis"}),
        ("A 5 mm nodule in the right upper lobe.", {"Lung nodule"}),
        ("Patchy ground-glass areas.", {"Lung opacity"}),
        ("Pleuroparenchymal sequelae.", {"Pulmonary fibrotic sequela"}),
        ("Bilateral pleural effusion.", {"Pleural effusion"}),
        ("Mosaic attenuation.", {"Mosaic attenuation pattern"}),
        ("The bronchial walls are thickened.", {"Peribronchial thickening"}),
        ("Consolidation with air bronchograms.", {"Consolidation"}),
        ("Cylindrical bronchiectasis.", {"Bronchiectasis"}),
        ("Interlobular septal thickenings.", {"Interlobular septal thickening"}),
    ],
)
def test_each_finding_is_read_where_it_is_stated(report, findings):
    assert stated(report) == findings


@pytest.mark.parametrize(
    "report",
    [
        "No pleural effusion.",
        "Pericardial or pleural effusion was not observed.",
        "No nodule, consolidation or ground-glass opacity was detected.",
        "The lungs are without emphysema.",
        "The heart is not enlarged.",
        "The aorta is of normal calibre without calcification.",
        "There is no evidence of a hiatal hernia",
        "Pericardial effusion - no thickening was detected",
        "Nodules in both lobes of the thyroid.",
        "Calcification of the aortic valve.",
    ],
)
def test_what_is_denied_or_elsewhere_is_not_read(report):
    assert stated(report) == set()


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        ("Right pleural effusion, no consolidation.", {"Pleural effusion"}),
        ("No consolidation, a nodule in the left lower lobe.", {"Lung nodule"}),
        ("No pleural effusion. Pericardial effusion.", {"Pericardial effusion"}),
        ("No nodule is seen and emphysema is present.", {"Emphysema"}),
        ("No effusion but atelectasis.", {"Atelectasis"}),
    ],
)
def test_a_negation_reaches_no_further_than_it_should(report, findings):
    assert stated(report) == findings


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        (
            "Pleural effusion is seen on the left, pericardial effusion was not "
            "observed.",
            {"Pleural effusion"},
        ),
        (
            "Bilateral pleural effusion without pericardial effusion.",
            {"Pleural effusion"},
        ),
        (
            "Minimal pericardial effusion without pleural effusion.",
            {"Pericardial effusion"},
        ),
        (
            "Pleural and pericardial effusion.",
            {"Pleural effusion", "Pericardial effusion"},
        ),
        ("Effusion in the pericardial space.", {"Pericardial effusion"}),
    ],
)
def test_an_effusion_belongs_to_the_space_that_it_is_named_with(report, findings):
    assert stated(report) == findings


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        ("The nodule was not observed in the previous examination.", {"Lung nodule"}),
        ("No significant change in the pleural effusion.", {"Pleural effusion"}),
        ("Nodules without interval change.", {"Lung nodule"}),
        ("The nodules are not increased in size.", {"Lung nodule"}),
        ("Emphysema cannot be excluded.", {"Emphysema"}),
        ("Suspicious for consolidation.", {"Consolidation"}),
        ("In the previous examination, there is a nodule here.", set()),
        (
            "The effusion, which was seen in the previous examination, was not "
            "detected in the current examination.",
            set(),
        ),
        ("The consolidation has resolved.", set()),
        ("Resolution of the pleural effusion.", set()),
        ("Emphysema. Resolved right pleural effusion.", {"Emphysema"}),
        ("The chest tube was removed.", set()),
        ("Bronchiectasis was ruled out.", set()),
        ("A nodule is unlikely.", set()),
    ],
)
def test_what_was_or_may_be_is_told_from_what_is(report, findings):
    assert stated(report) == findings


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        ("Pleura: No effusion. Lymph nodes: normal. Nodules: none.", set()),
        ("Lymph nodes: Enlarged in the mediastinum.", {"Lymphadenopathy"}),
        ("Mediastinal lymph nodes are normal in size.", set()),
        (
            "The aorta is normal in calibre with mild atherosclerotic calcifications.",
            {"Arterial wall calcification"},
        ),
        (
            "1. Emphysema\n2. No nodule\n3. Hiatal hernia",
            {"Emphysema", "Hiatal hernia"},
        ),
        ("No pleural effusion, mild atelectasis at the bases.", {"Atelectasis"}),
        ("No consolidation, pleural effusion, or nodule.", set()),
        ("Subcutaneous emphysema.", set()),
        ("An increase in the cardiothoracic ratio.", {"Cardiomegaly"}),
        ("Linear density of fibrotic sequela.", {"Pulmonary fibrotic sequela"}),
    ],
)
def test_lists_and_structured_reports_are_read_item_by_item(report, findings):
    assert stated(report) == findings


@pytest.mark.parametrize(
    "report",
    [
        "Clinical information: nodule, pleural effusion?\nFindings: Emphysema.",
        "INDICATION: Nodule. TECHNIQUE: CT with a catheter. FINDINGS: Emphysema.",
        "Emphysema.\n\nComparison: CT of 2019 with consolidation.",
        "History: pacemaker\n\nThere is emphysema.",
        "Reason for exam: atelectasis\nLungs: Emphysema.",
        "Comparison: consolidation in 2019. Emphysema is seen.",
    ],
)
def test_sections_on_why_and_how_a_scan_was_made_are_not_read(report):
    assert stated(report) == {"Emphysema"}


def test_no_stem_hides_a_mention_from_its_rule(reading, ct_rate):
    texts = (text.lower() for half in reading.halves(ct_rate) for text in half)
    clauses = {clause for text in texts for clause in text.split(".")}
    for clause in clauses:
        for finding, rule in RULES.items():
            if rule.patterns[0].search(clause):
                assert any(stem in clause for stem in rule.stems.split()), finding


def test_reports_that_no_rule_was_fitted_to_are_read_as_labelled(reading, ct_rate):
    _, unseen = reading.halves(ct_rate)

    found = reading.counts(unseen)
    micro, macro = reading.micro_and_macro(found)
    assert len(unseen) == 392
    assert micro > 0.93  # 0.947
    assert macro > 0.92  # 0.942
    assert min(each.f1 for each in found.values()) > 0.74  # peribronchial thickening
