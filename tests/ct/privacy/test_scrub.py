"""The scrubber: identifiers go, whatever is medical stays."""

import csv

import pytest

from ctflow_fed.ct.privacy.identity import in_cells
from ctflow_fed.ct.privacy.scrub import scrub


@pytest.mark.parametrize(
    ("text", "kind", "left"),
    [
        ("Compared with the CT dated 03.05.2017.", "date", "with the CT dated ___."),
        ("CT of 2017-05-03 is available", "date", "CT of ___ is"),
        ("seen on 05/03/17 again", "date", "seen on ___ again"),
        ("seen on 20170503 again", "date", "seen on ___ again"),
        ("in the scan of 3 May 2017.", "date", "scan of ___."),
        ("in the scan of May 3rd, 2017.", "date", "scan of ___."),
        ("stable since April 2019, was", "date", "since ___, was"),
        ("dictated at 14:35 by phone", "date", "dictated at ___"),
        ("Call +49 (0)89 1234-567.", "phone", "Call ___."),
        ("Phone: 030 123456 now", "phone", "___ now"),
        ("Tel. (555) 123-4567.", "phone", "___."),
        ("pager 4711 today", "phone", "___ today"),
        ("reach me at 555-123-4567.", "phone", "at ___."),
        ("send to a.muster@klinik.de please", "email", "to ___ please"),
        ("Accession No: A-2022/77431.", "number", "___."),
        ("MRN 4711 is known", "number", "___ is known"),
        ("patient ID: 00-123-X9", "number", "___"),
        ("file 77431234 of the archive", "number", "file ___ of"),
        ("CT1234567 was compared", "number", "___ was"),
        ("1.2.840.113619.2.55.3.1 compared", "uid", "___ compared"),
        ("Discussed with Dr. Anna von Muster today", "name", "with ___ today"),
        ("Mr. O'Neill coughs", "name", "___ coughs"),
        ("Prof.Dr.Ay\u015fe KILI\u00c7ARSLAN saw", "name", "___ saw"),
        ("Reported by: Jane Q. Public", "name", "___"),
        ("Electronically signed by John Smith, MD", "name", "Electronically ___"),
        ("Name: MUSTER, ANNA", "name", "___"),
        ("Jane Public, M.D. dictated", "name", "___ dictated"),
        ("lives at 12 Long Hill Road in peace", "address", "___"),
        ("Musterstra\u00dfe 12a, 80331 M\u00fcnchen called", "address", "___ called"),
        ("of 221 Baker Street today", "address", "of ___ today"),
    ],
)
def test_what_tells_the_patient_is_taken_out_by_its_form(text, kind, left):
    scrubbed = scrub(text)

    assert left in scrubbed.text
    assert scrubbed.removed[kind] >= 1


@pytest.mark.parametrize(
    "text",
    [
        "A nodule of 12 mm (previously 9.5 mm) in segment 6.",
        "Lesion of 2 x 3 cm, 12x9x7 mm, 3.5.2 mm, 7.4x5.8 mm.",
        "Compression of T4, Th12 and L5-S1; T1-T2 vertebrae; stage T2N1M0, T1a.",
        "Attenuation of -12 HU to 45 HU, 40-60 %, ratio 1:2, 120 kVp, 1.25 mm slices.",
        "Segments 1+2, S6 and 9/10 of the left lung, series 2, image 170, IM 45.",
        "At 3 o'clock; 4-5 nodules; 2-3 mm; levels 4R and 10L; grade 2/3; 1/3 of it.",
        "Aorta 38.5 mm, pulmonary trunk 29.0 mm, 11.2 mm at its thickest point.",
        "May be compatible with Covid-19 pneumonia, CO-RADS 5; Lung-RADS 4A.",
        "Operated in 2015; a march of nodules; sect 3, mar 2 mm.",
        "MR Thorax, PET CT and Chest X-Ray; Name the lobe; signed off; seen by CT.",
        "The patient: normal. Kerley B lines, Morgagni hernia, Bochdalek hernia.",
        "Heart size 12.5/26 cm; volumes of 1500 ml and 12000 mm3, 500.000 units.",
    ],
)
def test_what_is_medical_stays(text):
    scrubbed = scrub(text)

    assert scrubbed.text == text
    assert not scrubbed.removed


def test_identifiers_of_the_study_go_wherever_they_stand():
    cells = [
        ("PatientName", "M\u00fcller-Brandt^Anna Maria^^Dr."),
        ("patient", "P4711"),
        ("birth date", "1950-01-31"),
        ("hospital", "Klinikum Musterstadt"),
    ]
    text = (
        "ANNA Muller-Brandt (P4711, born 31.01.1950 or 01/31/1950) of Klinikum "
        "Musterstadt: Annamaria's 17 mm nodule in S1."
    )

    scrubbed = scrub(text, in_cells(cells))
    assert scrubbed.text == (
        "___ (___, born ___ or ___) of ___: Annamaria's 17 mm nodule in S1."
    )
    assert scrubbed.removed == {"name": 1, "number": 1, "date": 2, "text": 1}


def test_rare_words_of_a_description_go_where_they_have_a_capital():
    cells = [
        ("StudyDescription", "CT Thorax MUSTER, Anna 31.01.1950 low dose"),
        ("ProtocolName", "Emphysema_O'Neill_routine 77431234"),
        ("SeriesDescription", "Weichteil Lunge 1.5"),
    ]
    text = (
        "Mrs Muster-like thorax; ANNA's emphysema of 31.01.1950. Emphysema, O'Neill "
        "77431234. An annalist, muster, weichteil. Thorax: Routine 1.5 mm."
    )

    scrubbed = scrub(text, in_cells(cells))
    assert scrubbed.text == (
        "Mrs ___-like thorax; ___'s emphysema of ___. Emphysema, ___ "
        "___. An annalist, muster, weichteil. Thorax: Routine 1.5 mm."
    )


def test_a_value_that_tells_nobody_apart_is_no_identifier():
    cells = [("patient", "1"), ("study", "T4"), ("name", "Dr. X"), ("refer", "none")]

    assert in_cells(cells) == frozenset()


def test_identifiers_do_not_show_themselves():
    (identifier,) = in_cells([("patient", "P4711")])

    assert "4711" not in repr(identifier)
    assert "4711" not in repr(in_cells([("patient", "P4711")]))


def test_of_real_reports_dates_and_names_go_and_nothing_else(shared):
    path = shared / "realdata" / "reports" / "ctrate_labeled" / "train.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        texts = {row["report_text"] for row in csv.DictReader(file)}

    removed = {text: scrub(text).removed for text in texts}
    kinds = {kind for counts in removed.values() for kind in counts}
    assert kinds == {"date", "name"}
    assert sum(counts["date"] for counts in removed.values()) > 240
    assert sum(counts["name"] for counts in removed.values()) == 1
