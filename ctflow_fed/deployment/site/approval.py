"""Which app bundles a site runs: those whose SHA-256 a person there has approved.

approved     one digest a line; a line that is taken out withdraws the approval
"""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ctflow_fed.deployment.site.audit import AuditLog, Entry
from ctflow_fed.deployment.site.policy import POLICY, read_policy
from ctflow_fed.errors import PackageError, UpdateError
from ctflow_fed.files import write_text

__all__ = ["APPROVED", "approve", "check_approved"]

APPROVED = "approved"
SIGNATURE_BYTES = 64


def approve(kit: Path, bundle: bytes, signature: bytes | None) -> str:
    """Approve a bundle at a site and return its digest; it is in the audit log.

    Where site.toml names signers, ``signature`` must be that of one of them over the
    bundle's bytes, as `openssl pkeyutl -sign -rawin` writes it. Approving again grants
    rounds and epochs anew. Raises ``PackageError``.
    """
    policy = read_policy(kit / POLICY)
    digest = hashlib.sha256(bundle).hexdigest()
    log = AuditLog(kit)
    if policy.signers and not _is_signed(bundle, signature, policy.signers):
        reason = f"{POLICY}, signers: the bundle is not signed by any of them"
        log.append(
            Entry(event="approve", decision="refused", reason=reason, bundle=digest)
        )
        raise PackageError(
            f"{reason}; put the signature beside it, with .sig after its name"
        )
    lines = dict.fromkeys([*_approved(kit), digest])
    write_text(kit / APPROVED, "".join(f"{each}\n" for each in lines))
    log.append(Entry(event="approve", bundle=digest))
    return digest


def check_approved(kit: Path, digest: str) -> None:
    """Refuse a bundle that was not approved, or no longer is."""
    if digest not in _approved(kit):
        raise UpdateError(
            "the app bundle is not approved at this site; its audit log has the digest"
        )


def _approved(kit: Path) -> list[str]:
    path = kit / APPROVED
    return path.read_text("utf-8").split() if path.exists() else []


def _is_signed(
    bundle: bytes, signature: bytes | None, signers: tuple[str, ...]
) -> bool:
    if signature is None or len(signature) != SIGNATURE_BYTES:
        return False
    return any(_verifies(bundle, signature, signer) for signer in signers)


def _verifies(bundle: bytes, signature: bytes, signer: str) -> bool:
    try:
        key = load_der_public_key(base64.b64decode(signer))
        if not isinstance(key, Ed25519PublicKey):
            return False
        key.verify(signature, bundle)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
