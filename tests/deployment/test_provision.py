"""Keys, certificates and kits of a consortium: whom they admit, who may read them."""

import io
import ssl
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from ctflow_fed.cli.federation import command
from ctflow_fed.deployment.certificates import certified_key, read_identity
from ctflow_fed.deployment.consortium import Consortium, read_consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.errors import MismatchError, PackageError, SettingsError, UpdateError

HOST = "fed.example.org"
FILES = (
    *("ca.crt", "site.key", "site.pem", "kit.json", "site.toml", "start.sh", "README"),
)
LUNG = Consortium("lung", HOST, 8443, ("north", "east"))
TEXT = f'name = "lung"\nhost = "{HOST}"\nport = 8443\nsites = ["north", "east"]\n'


@pytest.fixture(scope="module")
def provided(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("consortium")
    provision(LUNG, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): each.read_bytes() for each in files}


def kit_of(folder: Path, site: str) -> dict[str, tuple[int, bytes]]:
    data = (folder / "kits" / f"{site}.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: (member.mode, archive.extractfile(member).read())
            for member in archive
            if member.isfile()
        }


def fits(folder: Path, site: str) -> bool:
    """Tell whether the key in a site's kit is the one that is to be registered."""
    private = serialization.load_ssh_private_key(
        kit_of(folder, site)[f"{site}/site.key"][1], None
    )
    registered = (folder / "server" / "nodes" / f"{site}.pub").read_bytes()
    return private.public_key() == serialization.load_ssh_public_key(registered)


def shake_hands(server: Path, authority: Path, host: str) -> None:
    """Let a client that trusts one authority meet the server; raise what it finds."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(server / "server.crt", server / "server.key")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(authority)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there, server_hostname=host)
    other = served.wrap_bio(there, back, server_side=True)
    for side in (client, other, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_a_kit_holds_what_a_site_needs_and_its_key_is_for_its_user_alone(provided):
    kit = kit_of(provided, "north")

    expected = {f"north/{name}" for name in FILES}
    assert set(kit) == expected
    assert kit["north/site.key"][0] == kit["north/site.pem"][0] == 0o600
    assert kit["north/ca.crt"][1] == (provided / "server" / "ca.crt").read_bytes()
    assert fits(provided, "north")
    assert fits(provided, "east")
    assert kit_of(provided, "east")["east/site.key"] != kit["north/site.key"]


def test_private_files_are_readable_by_their_user_alone(provided):
    private = ["authority/ca.key", "server/server.key", "kits/north.tar.gz"]

    assert [(provided / each).stat().st_mode & 0o777 for each in private] == [0o600] * 3


def test_no_private_key_of_a_site_stays_outside_its_kit(provided):
    plain = [name for name in contents(provided) if not name.startswith("kits/")]

    holders = [n for n in plain if b"PRIVATE KEY" in (provided / n).read_bytes()]
    assert sorted(holders) == ["authority/ca.key", "server/server.key"]


@pytest.mark.parametrize("host", [HOST, "localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_authority_alone_accepts_the_server(provided, host):
    shake_hands(provided / "server", provided / "server" / "ca.crt", host)


def test_a_client_refuses_another_host_and_another_authority(provided, tmp_path):
    provision(LUNG, tmp_path)

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(provided / "server", provided / "server" / "ca.crt", "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(provided / "server", tmp_path / "server" / "ca.crt", HOST)


def test_the_same_call_changes_nothing_even_when_kits_were_handed_over(tmp_path):
    provision(LUNG, tmp_path)
    (tmp_path / "kits" / "north.tar.gz").unlink()
    before = contents(tmp_path)

    done = provision(LUNG, tmp_path)
    assert (done.issued, done.revoked, done.server) == ((), (), False)
    assert contents(tmp_path) == before


def test_a_kit_issued_anew_has_a_new_key_and_leaves_the_others_alone(tmp_path):
    provision(LUNG, tmp_path)
    before = contents(tmp_path)

    provision(LUNG, tmp_path, reissue=["north"])
    after = contents(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    nodes = {"server/nodes/north.pub", "server/nodes/north.crt"}
    assert changed == {"kits/north.tar.gz", *nodes}
    assert fits(tmp_path, "north")


def test_a_revoked_site_stays_out_until_it_is_issued_anew(tmp_path):
    provision(LUNG, tmp_path)
    nodes = tmp_path / "server" / "nodes"

    provision(LUNG, tmp_path, revoke=["east"])
    assert provision(LUNG, tmp_path).issued == ()
    assert sorted(each.name for each in nodes.iterdir()) == [
        "east.revoked",
        "north.crt",
        "north.pub",
    ]
    assert not (tmp_path / "kits" / "east.tar.gz").exists()

    provision(LUNG, tmp_path, reissue=["east"])
    assert {each.name for each in nodes.iterdir()} == {
        f"{site}.{end}" for site in ("east", "north") for end in ("crt", "pub")
    }


def test_a_call_that_ends_at_any_write_is_finished_by_the_same_call(
    tmp_path, monkeypatch
):
    replace, left = Path.replace, [0]

    def ending(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", ending)
    writes = 0
    while True:
        folder, left[0] = tmp_path / str(writes), writes
        try:
            provision(LUNG, folder)
            break
        except KeyboardInterrupt:
            left[0] = 100
            provision(LUNG, folder)
        assert (fits(folder, "north"), fits(folder, "east")) == (True, True)
        shake_hands(folder / "server", folder / "server" / "ca.crt", HOST)
        writes += 1
    assert writes == 1 + 2 + 4 + 2 * 3  # address, authority, server, three for a site


def test_a_damaged_certificate_is_made_anew_and_a_damaged_key_refused(tmp_path):
    provision(LUNG, tmp_path)
    (tmp_path / "server" / "server.crt").write_text("damaged")

    assert provision(LUNG, tmp_path).server
    shake_hands(tmp_path / "server", tmp_path / "server" / "ca.crt", HOST)
    (tmp_path / "server" / "server.key").write_text("damaged")
    with pytest.raises(PackageError, match=r"server\.key"):
        provision(LUNG, tmp_path)


def test_another_address_is_refused_and_nothing_lost(tmp_path):
    provision(LUNG, tmp_path)
    before = contents(tmp_path)

    with pytest.raises(MismatchError, match="another host or port"):
        provision(Consortium("lung", HOST, 443, ("north", "east")), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "chosen",
    [
        {"reissue": ["west"]},
        {"revoke": ["../x"]},
        {"reissue": ["east"], "revoke": ["east"]},
    ],
)
def test_sites_that_cannot_be_issued_or_revoked_are_refused(tmp_path, chosen):
    with pytest.raises(SettingsError):
        provision(LUNG, tmp_path / "new", **chosen)

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (HOST, "fed.example.org; rm -rf /"),
        (HOST, "$(id)"),
        ("8443", "0"),
        ("8443", "true"),
        ("port = 8443", ""),
        ("port = 8443", "port = 8443\nsecret = 1"),
        ('["north", "east"]', "[]"),
        ('["north", "east"]', '"north"'),
        ('["north", "east"]', '["north", "North"]'),
        ('["north", "east"]', '["../north"]'),
        ('["north", "east"]', "[1]"),
        ('name = "lung"', "name = lung"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path, old, new):
    path = tmp_path / "consortium.toml"
    path.write_text(TEXT)
    assert read_consortium(path) == LUNG
    path.write_text(TEXT.replace(old, new))

    with pytest.raises(SettingsError):
        read_consortium(path)


def test_the_command_says_what_is_new(tmp_path):
    (tmp_path / "consortium.toml").write_text(TEXT)
    words = ["provision", str(tmp_path / "consortium.toml"), "--out"]

    first = CliRunner().invoke(command, [*words, str(tmp_path / "out")])
    again = CliRunner().invoke(command, [*words, str(tmp_path / "out")])
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "north: new kit" in first.output
    assert "east: new kit" in first.output
    assert again.output == "nothing was left to do\n"


def test_a_site_is_known_by_a_certificate_of_the_authority_and_by_no_other(tmp_path):
    folder, forged = tmp_path / "lung", tmp_path / "forged"
    provision(LUNG, folder)
    provision(LUNG, forged)
    authority = (folder / "authority" / "ca.crt").read_bytes()
    north = kit_of(folder, "north")["north/site.pem"][1]
    path = tmp_path / "site.pem"
    path.write_bytes(north)
    key, certificate = read_identity(path)

    assert certified_key("north", certificate, authority) == key.public_key()
    nodes, server = forged / "server" / "nodes", folder / "server"
    for site, pem in (
        ("east", certificate),
        ("north", (nodes / "north.crt").read_bytes()),  # of another authority
        ("localhost", (server / "server.crt").read_bytes()),
        (HOST, (server / "server.crt").read_bytes()),  # which is no site's
        ("north", b"none"),
    ):
        with pytest.raises(UpdateError, match="certificate of the consortium"):
            certified_key(site, pem, authority)
