"""Which bundles a site runs."""

import base64
import hashlib

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctflow_fed.cli.site import command
from ctflow_fed.deployment.site.approval import approve, check_approved
from ctflow_fed.deployment.site.audit import AuditLog
from ctflow_fed.deployment.site.policy import SITE_TOML
from ctflow_fed.errors import PackageError, UpdateError

BUNDLE = b"a bundle"
DIGEST = hashlib.sha256(BUNDLE).hexdigest()


@pytest.fixture
def kit(tmp_path):
    (tmp_path / "site.toml").write_text(SITE_TOML)
    return tmp_path


@pytest.fixture
def key(kit):
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signers = f'signers = ["{base64.b64encode(public).decode()}"]'
    (kit / "site.toml").write_text(SITE_TOML.replace("signers = []", signers))
    return key


def test_a_bundle_runs_when_it_was_approved_and_until_its_line_is_taken_out(kit):
    with pytest.raises(UpdateError, match="not approved"):
        check_approved(kit, DIGEST)

    assert approve(kit, BUNDLE, None) == DIGEST
    check_approved(kit, DIGEST)
    (kit / "approved").write_text("")
    with pytest.raises(UpdateError, match="not approved"):
        check_approved(kit, DIGEST)


def test_with_signers_only_what_one_of_them_has_signed_is_approved(kit, key):
    forged = Ed25519PrivateKey.generate().sign(BUNDLE)
    for signature in (None, b"", forged, key.sign(b"another bundle")):
        with pytest.raises(PackageError, match=r"site\.toml, signers"):
            approve(kit, BUNDLE, signature)
        assert not (kit / "approved").exists()

    approve(kit, BUNDLE, key.sign(BUNDLE))
    check_approved(kit, DIGEST)
    decisions = [each.decision for _, each in AuditLog(kit).entries()]
    assert decisions == ["refused"] * 4 + ["allowed"]


def test_the_commands_approve_a_file_and_verify_the_log(kit, key):
    (kit / "x.fab").write_bytes(BUNDLE)
    (kit / "x.fab.sig").write_bytes(key.sign(BUNDLE))

    done = CliRunner().invoke(
        command, ["approve", "--kit", str(kit), str(kit / "x.fab")]
    )
    told = CliRunner().invoke(command, ["audit", "--kit", str(kit), "--verify"])
    assert done.output == f"approved: {DIGEST}\n"
    assert told.output.startswith("1 lines, whole, head ")
