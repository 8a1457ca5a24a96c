"""The table of reports, as hospitals and CT-RATE save it."""

import csv
import datetime
import json
import zipfile

import openpyxl
import pytest

from ctflow_fed.ct.labels import FINDINGS
from ctflow_fed.ct.report_table import read_reports
from ctflow_fed.errors import ReportTableError

COLUMNS = ("study", "findings", "impression", "patient")
ROWS = [
    ("a", "Emphysema, mild.", "No nodule.", "P1"),
    ("7", 'Called "normal";\nno effusion.', "", "P2"),
]


def as_csv(path, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([COLUMNS, *ROWS])


def as_jsonl(path):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_xlsx(path):
    book = openpyxl.Workbook()
    book.active.append(COLUMNS)
    book.active.append(ROWS[0])
    book.active.append((7, *ROWS[1][1:]))  # Excel makes numbers of what looks like one
    book.active.cell(5, 9).value = " "
    book.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("r.csv", as_csv),
        ("r.TSV", lambda path: as_csv(path, "\t")),
        ("r.jsonl", as_jsonl),
        ("r.xlsx", as_xlsx),
    ],
)
def test_a_table_says_the_same_in_every_format(tmp_path, name, write):
    write(tmp_path / name)

    reports = read_reports(tmp_path / name)
    assert [*reports] == ["a", "7"]
    assert reports["a"].text == "Emphysema, mild. No nodule."
    assert reports["7"].text == 'Called "normal";\nno effusion.'
    assert [report.patient for report in reports.values()] == ["P1", "P2"]
    assert reports["a"].labels == {name: int(name == "Emphysema") for name in FINDINGS}


def test_the_table_of_ct_rate_is_read_as_it_is(tmp_path):
    path = tmp_path / "train_reports.csv"
    path.write_text(
        "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n"
        "train_1_a_1.nii.gz,Pneumonia?,With a catheter.,Emphysema.,No effusion.\n"
    )

    reports = read_reports(path)
    assert reports["train_1_a_1"].text == "Emphysema. No effusion."


def test_cells_that_may_tell_the_patient_are_kept_apart_and_never_shown(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(
        "study,report,PatientName,birth date,Accession,Modality,kVp\n"
        "a,Nothing.,Muster^Anna,1950-01-31,A77,CT,120\n"
    )

    report = read_reports(path)["a"]
    assert dict(report.private) == {
        "study": "a",
        "PatientName": "Muster^Anna",
        "birth date": "1950-01-31",
        "Accession": "A77",
    }
    assert "Muster" not in repr(report)
    assert "Nothing" not in repr(report)


def test_a_date_of_excel_is_a_date_of_the_patient(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(("study", "report", "birth date"))
    book.active.append(("a", "Nothing.", datetime.datetime(1950, 1, 31)))
    book.save(tmp_path / "r.xlsx")

    report = read_reports(tmp_path / "r.xlsx")["a"]
    assert ("birth date", "1950-01-31T00:00:00") in report.private


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b'{"study": "a", "report": "x"}\nno json\n'),
        ("r.jsonl", b"[1, 2]\n"),
        ("r.jsonl", b"[" * 100_000),
        ("r.xlsx", b"no workbook"),
        ("r.xlsx", b"PK\x05\x06" + bytes(18)),
        ("r.tsv", b"study\treport\na\t\xff\n"),
    ],
)
def test_a_table_that_is_not_what_its_ending_says_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ReportTableError, match="cannot be read"):
        read_reports(tmp_path / name)


def test_a_workbook_that_unpacks_to_more_than_a_table_is_refused(tmp_path):
    path = tmp_path / "bomb.xlsx"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/workbook.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(600):
            part.write(bytes(2**20))

    with pytest.raises(ReportTableError, match="cannot be read"):
        read_reports(path)
