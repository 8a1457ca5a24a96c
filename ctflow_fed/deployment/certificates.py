"""Keys and certificates of a federation: X.509 for its server, EC keys for its sites.

All keys are on the curve P-384, which Flower takes for the authentication of nodes.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctflow_fed.errors import PackageError, UpdateError
from ctflow_fed.files import write_private

__all__ = [
    "authority_certificate",
    "certificate_serves",
    "certified_key",
    "fingerprint",
    "identity_text",
    "is_current",
    "load_key",
    "new_key",
    "node_key_text",
    "node_public_text",
    "read_identity",
    "server_certificate",
    "site_certificate",
    "write_key",
]

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
RENEWAL_DAYS = 30
SKEW = datetime.timedelta(hours=1)  # clocks that are behind ours

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP384R1())


def write_key(path: Path, key: Key) -> None:
    """Write a private key as PEM."""
    write_private(path, _key_text(key))


def load_key(path: Path) -> Key:
    """Read a private key that `write_key` wrote."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Key):
        raise PackageError(f"{path.name} is not a private key of ours; restore it")
    return key


def identity_text(key: Key, certificate: bytes) -> bytes:
    """Return a key and its certificate as PEM, as a TLS client reads both."""
    return _key_text(key) + certificate


def node_key_text(key: Key) -> bytes:
    """Return the private key of a node as OpenSSH and Flower write it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def node_public_text(key: Key) -> bytes:
    """Return the public key of a node as `flwr supernode register` reads it."""
    return key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )


def authority_certificate(key: Key, name: str) -> bytes:
    """Return the certificate of the authority, signed by itself, as PEM."""
    subject = _subject(f"{name} authority")
    builder = (
        _certificate(key, subject, subject, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _signed(builder, key)


def server_certificate(key: Key, host: str, authority: Key, issuer: bytes) -> bytes:
    """Return a certificate for ``host`` and for loopback, as PEM.

    ``issuer`` is the certificate of the authority.
    """
    names: list[x509.GeneralName] = [
        _general_name(each) for each in dict.fromkeys((host, "localhost", "127.0.0.1"))
    ]
    parent = x509.load_pem_x509_certificate(issuer).subject
    builder = (
        _certificate(key, _subject(host), parent, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
    )
    return _signed(builder, authority)


def site_certificate(key: Key, site: str, authority: Key, issuer: bytes) -> bytes:
    """Return a certificate by which nginx knows a site, as PEM.

    It is valid as long as the server lists it; ``issuer`` is the certificate of the
    authority, which it does not outlive.
    """
    parent = x509.load_pem_x509_certificate(issuer)
    left = parent.not_valid_after_utc - _now()
    builder = (
        _certificate(key, _subject(site), parent.subject, left.days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    )
    return _signed(builder, authority)


def certified_key(site: str, pem: bytes, authority: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a certificate of ``authority`` says is that of a site.

    Raises ``UpdateError`` for a certificate of another authority, another site, another
    time or for another use: whoever is not the authority cannot invent a site.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        use = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise _uncertified(site) from None
    key = certificate.public_key()
    if (
        certificate.subject != _subject(site)
        or ExtendedKeyUsageOID.CLIENT_AUTH not in use.value
        or not is_current(pem)
        or not isinstance(key, ec.EllipticCurvePublicKey)
    ):
        raise _uncertified(site)
    return key


def read_identity(path: Path) -> tuple[Key, bytes]:
    """Read the key and the certificate that `identity_text` wrote."""
    key, content = load_key(path), path.read_bytes()
    begin = content.find(b"-----BEGIN CERTIFICATE-----")
    if begin < 0:
        raise PackageError(f"{path.name} has no certificate; ask for a new kit")
    return key, content[begin:]


def fingerprint(pem: bytes) -> str:
    """Return the SHA-1 of a certificate, by which nginx knows it.

    It need not withstand collisions: the certificate must be of our authority as well.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.fingerprint(hashes.SHA1()).hex()


def certificate_serves(pem: bytes, key: Key, host: str, issuer: bytes) -> bool:
    """Tell whether a certificate is of this key, host and authority, for a month."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(issuer))
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = certificate.not_valid_after_utc - _now()
    return (
        certificate.public_key() == key.public_key()
        and _general_name(host) in names
        and left > datetime.timedelta(days=RENEWAL_DAYS)
    )


def is_current(pem: bytes) -> bool:
    """Tell whether a certificate is valid by the clock of this host."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return False
    return certificate.not_valid_before_utc <= _now() <= certificate.not_valid_after_utc


def _key_text(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _uncertified(site: str) -> UpdateError:
    return UpdateError(
        f"expected a certificate of the consortium's authority for {site}, got another "
        "one or none; do not trust the server before you know why"
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(
    key: Key, subject: x509.Name, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - SKEW)
        .not_valid_after(_now() + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: Key) -> bytes:
    certificate = builder.sign(key, hashes.SHA384())
    return certificate.public_bytes(serialization.Encoding.PEM)
