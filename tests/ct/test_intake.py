"""Intake: every study is taken or refused, none is named, nothing is done twice."""

import csv
import stat
import tarfile

import numpy as np
import pytest
import torch

from ctflow_fed.ct.account import StudyAccount, note, read_account
from ctflow_fed.ct.codec import HaarCodec
from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.labels import FINDINGS, labels_of
from ctflow_fed.ct.nifti import read_nifti, write_nifti
from ctflow_fed.ct.policy import STRICT
from ctflow_fed.ct.privacy.key import key_path
from ctflow_fed.ct.report import HashingReportEncoder
from ctflow_fed.ct.report_table import read_reports
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.volume import CTVolume
from ctflow_fed.errors import (
    InputError,
    MismatchError,
    ReportTableError,
    SettingsError,
    StoreError,
)

SMALL = IntakeSettings(image_size=32, policy=STRICT)  # no chest
TEXT = "Wedge-shaped shadowing is noted beside the azygos fissure."


def volume(slices=18, seed=0):
    """A soft ball in air: enough for a scan that nobody looks at."""
    axes = np.ogrid[:slices, :40, :40]
    inside = sum((axis - 15 - seed) ** 2 for axis in axes) < 144
    hu = np.where(inside, 40, -1000).astype(np.int16)
    affine = np.zeros((4, 4))
    affine[:3, :3] = [[0, 0, -1.5], [0, -1.5, 0], [2.5, 0, 0]]
    affine[3, 3] = 1
    return CTVolume(hu, affine)


def write_table(path, rows, columns=("study", "findings", "impression")):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.fixture
def hospital(tmp_path):
    """Three studies that can be taken: two NIfTI files and a nested DICOM series."""
    source = tmp_path / "scans"
    write_nifti(volume(seed=0), source / "MUELLER-ANNA.nii.gz")
    write_nifti(volume(seed=1), source / "SCHMIDT-KARL.nii")
    tags = SeriesTags(patient_id="SYN-1")
    write_series(volume(seed=2), source / "WEBER-PAUL" / "a" / "b", seed=0, tags=tags)
    reports = write_table(
        tmp_path / "reports.csv",
        [
            ["MUELLER-ANNA", TEXT, "Small pleural effusion."],
            ["SCHMIDT-KARL", "No pleural effusion.", ""],
            ["WEBER-PAUL", "", "Emphysema."],
        ],
    )
    return source, reports, tmp_path / "site"


def reasons(account):
    return {study.name: study.reason for study in account.refused}


def test_every_good_study_is_taken_with_its_slices_spacing_and_labels(hospital):
    account = intake(*hospital, SMALL)

    store = LatentStore.open(hospital[2])
    assert [study.name for study in account.taken] == [
        "MUELLER-ANNA",
        "SCHMIDT-KARL",
        "WEBER-PAUL",
    ]
    assert account.refused == ()
    assert {study.account.study for study in account.taken} == {
        record.study_id for record in store.records
    }
    assert {record.slices for record in store.records} == {18}
    for record in store.records:
        assert record.spacing == pytest.approx((2.5, 1.875, 1.875))
        assert record.flags == ("in-plane 40x40 -> 32x32",)


def test_a_study_is_stored_as_its_scan_and_its_report_are_encoded(hospital):
    source, _, out = hospital
    account = intake(*hospital, SMALL)

    store, study_id = LatentStore.open(out), account.taken[0].account.study
    squared = read_nifti(source / "MUELLER-ANNA.nii.gz").squared(32)
    latents = HaarCodec().encode(torch.from_numpy(squared.hu).float())
    tokens = HashingReportEncoder().encode([f"{TEXT} Small pleural effusion."])
    assert torch.equal(store.slices(study_id, 0, 18), latents.half().float())
    assert torch.equal(store.tokens(study_id), tokens.tokens[0].half().float())


def test_studies_of_one_patient_share_a_keyed_hash(hospital):
    _, reports, out = hospital
    rows = [
        ["MUELLER-ANNA", "P-17", TEXT],
        ["SCHMIDT-KARL", " P-17", TEXT],
        ["WEBER-PAUL", "MUELLER-ANNA", TEXT],
    ]
    write_table(reports, rows, ("study", "patient", "report"))
    taken = intake(*hospital, SMALL).taken

    store = LatentStore.open(out)
    patients = {record.study_id: record.patient for record in store.records}
    first, second, third = (patients[study.account.study] for study in taken)
    assert first == second != third
    assert third != taken[0].account.study  # a patient is not taken for a study
    assert sorted(len(each) for each in store.by_patient()) == [1, 2]
    assert "P-17" not in (out / "index.jsonl").read_text()


def test_no_name_and_no_word_of_a_report_is_in_the_store(hospital):
    account = intake(*hospital, SMALL)

    files = [path for path in hospital[2].rglob("*") if path.is_file()]
    names = [study.name.lower() for study in account.taken]
    words = [word for word in TEXT.lower().strip(".").split() if len(word) > 4]
    assert len(files) == 7  # account, edges, index, key, store and three studies
    for path in files:
        content = (
            str(path.relative_to(hospital[2])).encode() + path.read_bytes()
        ).lower()
        for private in [*names, "mueller", "weber", *words, str(hospital[0])]:
            assert private.encode() not in content


def test_the_key_of_the_site_is_for_its_owner_only_and_unlike_any_other(hospital):
    source, reports, out = hospital
    one = intake(source, reports, out, SMALL)
    other = intake(source, reports, out.with_name("other"), SMALL)

    assert stat.S_IMODE(key_path(out).stat().st_mode) == 0o600
    assert key_path(out).parent == out.parent  # no copy of the store has it
    ids = {study.account.study for study in one.taken + other.taken}
    assert len(ids) == 6


def test_a_key_that_is_in_the_store_is_taken_out_and_gives_the_same_ids(hospital):
    first = intake(*hospital, SMALL)
    key_path(hospital[2]).rename(hospital[2] / "site.key")

    second = intake(*hospital, SMALL)
    assert not (hospital[2] / "site.key").exists()
    assert [study.account.study for study in second.taken] == [
        study.account.study for study in first.taken
    ]


def test_what_tells_the_patient_goes_out_of_a_report_before_it_is_encoded(hospital):
    _, reports, out = hospital
    told = "Mueller-Anna, id SYN-1, CT dated 03.05.2017: {} nodule of 12 mm."
    write_table(
        reports,
        [["WEBER-PAUL", "Ada Weber", told.format("Mrs. Weber's")]],
        ("study", "patient name", "report"),
    )
    (study,) = intake(*hospital, SMALL).taken

    left = "Mueller-Anna, id ___, CT dated ___: Mrs. ___'s nodule of 12 mm."
    tokens = HashingReportEncoder().encode([left]).tokens[0]
    stored = LatentStore.open(out).tokens(study.account.study)
    assert torch.equal(stored, tokens.half().float())
    assert study.account.numbers["scrubbed_date"] == 1
    assert study.account.numbers["scrubbed_number"] == 1
    assert study.account.numbers["scrubbed_name"] == 1


def test_the_same_command_reads_no_study_twice(hospital):
    source, reports, out = hospital
    first = intake(source, reports, out, SMALL)
    before = (out / "index.jsonl").read_bytes()
    for path in source.glob("*.nii*"):
        path.write_bytes(b"cannot be read any more")

    second = intake(source, reports, out, SMALL)
    assert [study.new for study in first.taken] == [True, True, True]
    assert [study.new for study in second.taken] == [False, False, False]
    assert (out / "index.jsonl").read_bytes() == before


def test_a_run_that_was_killed_goes_on_where_it_stopped(hospital):
    source, reports, out = hospital
    intake(source, reports, out, SMALL)
    index = out / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-30])

    account = intake(source, reports, out, SMALL)
    assert [study.new for study in account.taken] == [False, False, True]
    assert len(LatentStore.open(out)) == 3


def test_bad_studies_are_refused_with_a_reason_and_the_others_taken(hospital):
    source, reports, out = hospital
    write_nifti(volume(slices=15), source / "short.nii.gz")
    write_nifti(volume(), source / "unreported.nii.gz")
    write_nifti(volume(), source / "empty-text.nii.gz")
    write_nifti(volume(), source / "SCHMIDT-KARL.nii.gz")
    (source / "broken.nii.gz").write_bytes(b"no scan")
    (source / "nothing").mkdir()
    rows = [["MUELLER-ANNA", TEXT, ""], ["SCHMIDT-KARL", TEXT, ""]]
    rows += [
        ["WEBER-PAUL", TEXT, ""],
        ["short", "x", ""],
        ["broken", "x", ""],
        ["nothing", "x", ""],
    ]
    rows += [["empty-text", " ", ""], ["never scanned", "x", ""]]
    write_table(reports, rows)

    account = intake(source, reports, out, SMALL)
    assert len(account.taken) == 3
    assert account.reports_without_scan == 1
    why = reasons(account)
    assert "16 slices or more, got 15" in why["short"]
    assert "no row" in why["unreported"]
    assert why["empty-text"] == "its report is empty"
    assert "another study" in why["SCHMIDT-KARL"]
    assert "NIfTI" in why["broken"]
    assert "DICOM" in why["nothing"]


def test_what_is_neither_a_study_nor_a_table_is_refused_by_its_own_line(hospital):
    source, reports, out = hospital
    reports = reports.rename(source / "reports.dat")
    for name in ("scan.dat", "SCHMIDT-KARL", "phantom.json", "old.csv", "notes.txt"):
        (source / name).write_text("no scan")
    (source / "round").symlink_to("round")

    account = intake(source, reports, out, SMALL)
    assert len(account.taken) == 3
    expected = ("scan.dat", "SCHMIDT-KARL", "round")
    reason = "neither a folder nor a volume that can be read"
    assert reasons(account) == dict.fromkeys(expected, reason)


def test_a_folder_with_one_nifti_file_is_a_study_and_with_two_is_none(hospital):
    source, reports, out = hospital
    (source / "WEBER-PAUL" / "extra.nii.gz").write_bytes(b"DICOM goes before it")
    for name in ("MUELLER-ANNA.nii.gz", "SCHMIDT-KARL.nii"):
        scan, folder = source / name, source / name.split(".")[0]
        folder.mkdir()
        scan.rename(folder / f"ct{''.join(scan.suffixes)}")
    write_nifti(volume(), source / "SCHMIDT-KARL" / "deeper" / "mask.nii.gz")

    account = intake(source, reports, out, SMALL)
    assert [study.name for study in account.taken] == ["MUELLER-ANNA", "WEBER-PAUL"]
    sentence = "name the files in the table"
    assert sentence in reasons(account)["SCHMIDT-KARL"]


def test_a_scan_that_outgrows_the_memory_costs_itself_alone(hospital):
    source, reports, out = hospital
    flat = np.diag([2.5, 99.0, 0.011, 1.0])[[2, 1, 0, 3]]
    endless = CTVolume(np.full((20, 4000, 2), -1000, np.int16), flat)
    write_nifti(endless, source / "MUELLER-ANNA.nii.gz")

    account = intake(source, reports, out, SMALL)
    assert len(account.taken) == 2
    assert "fits the reader and the memory" in reasons(account)["MUELLER-ANNA"]


def test_the_account_is_kept_and_the_last_word_on_a_study_counts(hospital):
    source, reports, out = hospital
    (source / "MUELLER-ANNA.nii.gz").write_bytes(b"no scan")
    first = intake(source, reports, out, SMALL)
    write_nifti(volume(seed=0), source / "MUELLER-ANNA.nii.gz")

    second = intake(source, reports, out, SMALL)
    kept = read_account(out)
    assert first.studies[0].account.verdict == "refused"
    assert kept == {study.account.study: study.account for study in second.studies}
    assert {account.verdict for account in kept.values()} == {"taken"}
    assert {account.numbers["slices"] for account in kept.values()} == {18}


def test_a_torn_line_of_the_account_does_not_count(hospital):
    out = hospital[2]
    intake(*hospital, SMALL)
    file = out / "account.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert len(read_account(out)) == 2

    note(out, StudyAccount("0" * 32, "refused", "no scan"))
    assert len(read_account(out)) == 3


@pytest.mark.parametrize(
    "line", ["{}", "[", '{"study": "a", "verdict": "?", "reason": "", "numbers": {}}']
)
def test_an_account_that_was_changed_by_hand_is_refused(tmp_path, line):
    (tmp_path / "account.jsonl").write_text(line + "\n")

    with pytest.raises(StoreError, match=r"account\.jsonl"):
        read_account(tmp_path)


def test_label_columns_go_before_what_the_text_says(hospital):
    source, reports, out = hospital
    row = ["MUELLER-ANNA", "Emphysema.", *("1" if i == 3 else "0" for i in range(18))]
    write_table(reports, [row], ("study", "report", *FINDINGS))

    account = intake(source, reports, out, SMALL)
    (record,) = LatentStore.open(out).records
    assert len(account.refused) == 2
    assert [name for name, label in record.labels.items() if label] == [FINDINGS[3]]


def test_without_label_columns_labels_are_read_from_the_text(hospital):
    account = intake(*hospital, SMALL)

    labels = {record.study_id: record.labels for record in _records(hospital[2])}
    expected = labels_of(f"{TEXT} Small pleural effusion.")
    assert labels[account.taken[0].account.study] == expected
    assert expected["Pleural effusion"] == 1


def _records(folder):
    return LatentStore.open(folder).records


def test_another_image_size_does_not_go_into_the_same_store(hospital):
    intake(*hospital, SMALL)

    with pytest.raises(MismatchError, match="image size"):
        intake(*hospital, IntakeSettings(image_size=64))


def test_a_store_with_studies_whose_key_is_lost_takes_no_more(hospital):
    intake(*hospital, SMALL)
    key_path(hospital[2]).unlink()

    with pytest.raises(StoreError, match=r"its name and \.key"):
        intake(*hospital, SMALL)


@pytest.mark.parametrize("size", [0, 8, 36, 2048])
def test_an_image_size_that_the_network_cannot_take_is_refused(hospital, size):
    with pytest.raises(SettingsError, match="image size"):
        intake(*hospital, IntakeSettings(image_size=size))


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(SettingsError, match="choose cpu"):
        IntakeSettings(device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_encodes_what_the_cpu_does(hospital):
    source, reports, out = hospital
    on_gpu = IntakeSettings(image_size=32, policy=STRICT, device="cuda")
    one = intake(source, reports, out, SMALL)
    two = intake(source, reports, out.with_name("two"), on_gpu)

    stores = LatentStore.open(out), LatentStore.open(out.with_name("two"))
    for study, other in zip(one.taken, two.taken, strict=True):
        cpu, gpu = (
            store.slices(each.account.study, 0, 18)
            for store, each in zip(stores, (study, other), strict=True)
        )
        assert torch.allclose(cpu, gpu, atol=2e-3)


def test_a_source_without_studies_is_refused(hospital, tmp_path):
    (tmp_path / "nothing").mkdir()

    with pytest.raises(InputError, match="found none"):
        intake(tmp_path / "nothing", *hospital[1:], SMALL)


def test_a_store_inside_the_source_is_no_study(hospital):
    source, reports, _ = hospital

    intake(source, reports, source / "site", SMALL)
    account = intake(source, reports, source / "site", SMALL)
    assert account.refused == ()


def test_names_are_compared_as_they_are_read_not_as_they_are_coded(tmp_path):
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    write_nifti(volume(), tmp_path / "scans" / f"{decomposed}.nii.gz")
    reports = write_table(tmp_path / "reports.csv", [[composed, TEXT, ""]])

    account = intake(tmp_path / "scans", reports, tmp_path / "site", SMALL)
    assert len(account.taken) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a column study"),
        (b"name,findings\na,b\n", "a column study"),
        (b"study;findings\na;b\n", "commas"),
        (b"study,text\na,b\n", "one of findings, impression, report"),
        (b"study,findings,findings\na,b,c\n", "a name twice"),
        (b"study,findings,Emphysema\na,b,1\n", "all 18 label columns"),
        (b"study,findings\na,b\nc,d\na,e\n", "line 4"),
        (b"study,findings\na,\xe4\n", "UTF-8"),
        (b'study,findings\na,"b\n', "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path, content, reason
):
    path = tmp_path / "reports.csv"
    path.write_bytes(content)

    with pytest.raises(ReportTableError, match=reason):
        read_reports(path)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ReportTableError, match="cannot be read"):
        read_reports(tmp_path / "reports.csv")


def test_a_row_that_cannot_be_used_costs_its_study_alone(tmp_path):
    rows = [
        ["long", "x" * 20_001, *18 * ["0"]],
        ["label", "x", *17 * ["0"], "2"],
        ["ragged", "x"],
        ["comma", "x", " y", *18 * ["0"]],
        ["good", "x", *18 * [" 1 "]],
    ]
    path = write_table(tmp_path / "r.csv", rows, ("study", "report", *FINDINGS))

    reports = read_reports(path)
    assert "20000 characters" in reports["long"].problem
    assert "neither 0 nor 1" in reports["label"].problem
    assert "neither 0 nor 1" in reports["ragged"].problem
    assert "quote texts that hold commas" in reports["comma"].problem
    assert reports["good"].labels == dict.fromkeys(FINDINGS, 1)


def test_a_row_with_an_unquoted_comma_is_a_problem_and_never_cut(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("study,findings\na,No nodule, but emphysema.\nb,Nothing.\n")

    reports = read_reports(path)
    assert reports["a"].problem.startswith("its row has more fields than the table")
    assert reports["a"].text == ""
    assert reports["b"].problem == ""


def test_blank_rows_are_skipped_and_a_nameless_one_is_a_problem(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("study,findings\na,x\n,\n , \n,,,\n,lost\n,lost too\n\nb,y\n")

    reports = read_reports(path)
    assert [name for name in reports if not reports[name].problem] == ["a", "b"]
    nameless = [report for report in reports.values() if report.problem]
    assert [report.problem for report in nameless] == 2 * ["its row names no study"]


@pytest.mark.slow
def test_two_real_studies_are_taken_with_real_reports(shared, tmp_path):
    volumes = shared / "realdata" / "volumes"
    source = tmp_path / "scans"
    with tarfile.open(volumes / "lung1_001" / "dicom.tar.xz") as archive:
        archive.extractall(source / "lung1", filter="data")
    scan = volumes / "lidc_0314_ds2" / "ct_binned2x2x2.nii.gz"
    (source / "lidc.nii.gz").symlink_to(scan)
    table = shared / "realdata" / "reports" / "ctrate_labeled" / "train.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        texts = [row["report_text"] for row in csv.DictReader(file)][:2]
    rows = [["lung1", texts[0]], ["lidc", texts[1]]]
    reports = write_table(tmp_path / "reports.csv", rows, ("study", "report"))

    account = intake(source, reports, tmp_path / "site", IntakeSettings(image_size=64))
    records = {record.study_id: record for record in _records(tmp_path / "site")}
    lidc, lung1 = (records[study.account.study] for study in account.taken)
    assert (lung1.slices, lidc.slices) == (134, 137)
    assert lung1.spacing == pytest.approx((3.0, 500 / 64, 500 / 64), abs=1e-3)
    assert lidc.spacing == pytest.approx((2.0, 400 / 64, 400 / 64), abs=1e-3)
    assert lung1.labels == labels_of(texts[0])
