"""The audit: nothing of a patient is in a store, and a planted leak is found."""

import base64
import csv
import hashlib
import json
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from ctflow_fed.cli import cli
from ctflow_fed.ct.dicom import SeriesTags, write_series
from ctflow_fed.ct.intake import IntakeSettings, intake
from ctflow_fed.ct.nifti import write_nifti
from ctflow_fed.ct.policy import STRICT
from ctflow_fed.ct.privacy.audit import audit
from ctflow_fed.ct.privacy.headers import header_identifiers
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.ct.tables import Tables
from ctflow_fed.ct.volume import CTVolume

SMALL = IntakeSettings(image_size=32, policy=STRICT)  # no chest

FAMILIES = (
    "M\u00fcller",
    "Kowalczyk",
    "Oyelaran",
    "Saarinen",
    "Fitzgerald",
    "Yamamoto",
)
GIVEN = ("Annegret", "Bogdan", "Chidinma", "Ville", "Deirdre", "Hiroshi")


def volume(seed):
    axes = np.ogrid[:16, :24, :24]
    inside = sum((axis - 8 - seed % 5) ** 2 for axis in axes) < 49
    affine = np.zeros((4, 4))
    affine[:3, :3] = [[0, 0, -1.5], [0, -1.5, 0], [2.5, 0, 0]]
    affine[3, 3] = 1
    return CTVolume(np.where(inside, 40, -1000).astype(np.int16), affine)


def patient(number):
    family, given = FAMILIES[number % 6], GIVEN[number // 6 % 6]
    return {
        "family": f"{family}{'abcdefgh'[number % 8]}",
        "given": given,
        "id": f"PAT{730000 + number}",
        "accession": f"{99120000 + 7 * number}",
        "born": f"19{30 + number % 60}{1 + number % 12:02d}{1 + number % 28:02d}",
        "referrer": f"Quackenbush{'abcdefgh'[number % 8]}",
        "friend": f"Brzezinski{'abcdefgh'[number % 8]}",
        "secret": f"Locker {number} behind door Q{5000 + number}",
    }


def plant(path, who):
    """Put a patient into a header: standard, private and nested elements."""
    dataset = dcmread(path)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"{who['family']}^{who['given']}"
    dataset.PatientID = who["id"]
    dataset.AccessionNumber = who["accession"]
    dataset.PatientBirthDate = who["born"]
    dataset.StudyDescription = f"CT Thorax {who['friend']} {who['born']}"
    dataset.SeriesDescription = "Lung window, low dose"
    dataset.ProtocolName = f"{who['friend'].upper()}_ROUTINE"
    block = dataset.private_block(0x0009, "HOSPITAL", create=True)
    block.add_new(0x01, "LO", who["secret"])
    item = Dataset()
    item.ReferringPhysicianName = f"{who['referrer']}^Zebulon"
    dataset.RequestAttributesSequence = Sequence([item])
    dataset.save_as(path)


def hospital(folder, count):
    """Studies whose patients stand in headers, names of files, table and reports."""
    rows = []
    for number in range(count):
        who = patient(number)
        name = f"{who['family']}_{who['given']}_{number}"
        tags = SeriesTags(patient_id=f"SYN-{number}")
        if number % 2:
            write_nifti(volume(number), folder / "scans" / f"{name}.nii.gz")
        else:
            write_series(
                volume(number), folder / "scans" / name, seed=number, tags=tags
            )
            for path in (folder / "scans" / name).iterdir():
                plant(path, who)
        born = f"{who['born'][6:]}.{who['born'][4:6]}.{who['born'][:4]}"
        text = (
            f"{who['given']} {who['family']} (born {born}, {who['id']}) was sent by "
            f"Dr. {who['referrer']}, to tell {who['friend']}. A nodule of "
            f"{number + 3} mm is seen near the azygos arch."
        )
        rows.append([name, f"{who['family']}, {who['given']}", who["id"], text])
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["study", "patient name", "patient", "report"], *rows])
    return folder / "scans", folder / "reports.csv", folder / "site"


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    places = hospital(tmp_path_factory.mktemp("hospital"), 4)
    assert len(intake(*places, SMALL).taken) == 4
    return places


def searched(taken, *places):
    source, reports, _ = taken
    return audit(source, Tables(reports), places)


def test_a_store_holds_nothing_that_tells_a_patient(taken):
    found = searched(taken, taken[2])

    assert found.hits == 0
    assert found.leaking == 0
    assert found.headers == 2 + 2 * 16
    assert found.files == 8
    kinds = {"name", "number", "date", "word", "other", "sentence", "digest", "uid"}
    assert kinds <= set(found.searched)


WHO = patient(2)


@pytest.mark.parametrize(
    ("kind", "leak"),
    [
        ("name", f"x{WHO['family']}y"),
        ("name", WHO["family"].upper()),
        ("name", json.dumps(WHO["family"])),
        ("name", "zebulon"),
        ("name", patient(1)["given"]),
        ("number", WHO["id"]),
        ("number", f"({WHO['accession']})"),
        ("date", "03.03.1932"),
        ("date", "1932-03-03"),
        ("word", f"CT of {WHO['friend']}"),
        ("other", WHO["secret"]),
        ("sentence", "A nodule of 5 mm is seen near the azygos arch"),
        ("digest", hashlib.sha256(WHO["id"].encode()).hexdigest()),
        ("digest", hashlib.md5(WHO["id"].encode()).hexdigest()),
        ("uid", "1.2.826.0.1.3680043.8.498.1234567"),
    ],
)
def test_a_planted_leak_is_found_whatever_it_is(taken, tmp_path, kind, leak):
    (tmp_path / "run.log").write_text(f'{{"note": {leak}}}\n', encoding="utf-8")

    found = searched(taken, tmp_path)
    assert found.found[kind] >= 1
    assert found.leaking == 1


def test_a_leak_is_found_in_names_of_files_tensors_and_pictures(taken, tmp_path):
    name = f"{WHO['family']} {WHO['given']}".encode()
    picture = base64.b64encode(bytes(99) + name).decode()
    (tmp_path / f"{WHO['id']}.log").write_text("nothing")
    (tmp_path / "page.html").write_text(f'<img src="data:image/png;base64,{picture}">')
    header = json.dumps({"__metadata__": {"id": WHO["id"]}}).encode()
    size = len(header).to_bytes(8, "little")
    (tmp_path / "a.safetensors").write_bytes(size + header + bytes(64))
    (tmp_path / "b.safetensors").write_bytes(
        size + header.replace(b"PAT", b"XYZ") + name
    )

    assert searched(taken, tmp_path).leaking == 4


def test_numbers_and_words_that_tell_nobody_apart_are_no_leak(taken, tmp_path):
    digits = hashlib.sha256(b"digits").hexdigest()
    (tmp_path / "run.log").write_text(
        f'{{"slices": 16, "mm": 2.5, "sha256": "{digits}", "finding": "Lung nodule"}}\n'
    )

    assert searched(taken, tmp_path).hits == 0


def test_a_header_of_metaimage_is_read_as_far_as_its_text_goes(tmp_path):
    header = "NDims = 3\nPatientName = Oyelaran^Chidinma\nID = PAT730001\n"
    path = tmp_path / "scan.mha"
    path.write_bytes(header.encode() + b"ElementDataFile = LOCAL\n" + bytes(range(256)))

    told = {each.text for each in header_identifiers(path)}
    assert {"oyelaran", "chidinma", "pat730001"} <= told


def test_links_into_circles_end(taken, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "round").symlink_to(tmp_path)

    assert searched(taken, tmp_path).files == 0


def test_what_every_scanner_writes_into_descriptions_is_no_leak(taken, tmp_path):
    (tmp_path / "run.log").write_text("CT thorax routine: lung window at low dose\n")

    assert searched(taken, tmp_path).hits == 0


@pytest.mark.slow
def test_two_hundred_studies_with_planted_patients_leave_no_trace(tmp_path):
    source, reports, out = hospital(tmp_path, 200)
    (tmp_path / "logs").mkdir()
    command = ["intake", source, "--reports", reports, "--out", out]
    command = [*map(str, command), "--image-size", "32", "--region", "any"]
    command += ["--synthetic", "accept"]
    audit_too = [*command, "--audit", "--logs", str(tmp_path / "logs")]
    done = CliRunner().invoke(cli, command)
    (tmp_path / "logs" / "progress.log").write_text(done.stderr)

    clean = CliRunner().invoke(cli, audit_too)
    (tmp_path / "logs" / "screen.log").write_text(done.stdout)  # it names the studies
    leaking = CliRunner().invoke(cli, audit_too)
    assert len(LatentStore.open(out)) == 200
    assert (clean.exit_code, leaking.exit_code) == (0, 1)
    assert " 0 found" in clean.stdout
    assert "Kowalczyk" not in leaking.output


@pytest.mark.slow
def test_no_real_case_leaves_a_trace(shared, tmp_path):
    source, out = tmp_path / "scans", tmp_path / "site"
    source.mkdir()
    for folder in sorted((shared / "realdata" / "awkward").iterdir()):
        (source / folder.name).symlink_to(folder)
    for path in (shared / "realdata" / "volumes").rglob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(source / path.parent.name, filter="data")
    for path in (shared / "realdata" / "volumes").rglob("*.nii.gz"):
        (source / f"{path.parent.name}-{path.name}").symlink_to(path)
    rows = [
        [path.name, "A nodule of 5 mm near the azygos."] for path in source.iterdir()
    ]
    reports = tmp_path / "reports.csv"
    with reports.open("w", newline="") as file:
        csv.writer(file).writerows([["study", "report"], *rows])

    taken = intake(source, reports, out, SMALL).taken
    found = audit(source, Tables(reports), [out])
    assert taken
    assert found.headers > 300
    assert found.hits == 0
