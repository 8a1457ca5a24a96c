"""Shards between a site and a real nginx, as hospitals and strangers reach it."""

import io
import shutil
import ssl
import tarfile
import threading
import time
from pathlib import Path

import httpx
import pytest

from ctflow_fed.deployment.consortium import Consortium
from ctflow_fed.deployment.provision import provision
from ctflow_fed.deployment.proxy import admit
from ctflow_fed.deployment.shard_link import ShardLink
from ctflow_fed.errors import IncompleteError, MismatchError, UpdateError
from ctflow_fed.federation.shards import SHARD_BYTES, Shard, write_shards

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed"
)


def unpack(folder: Path, site: str) -> None:
    kit = (folder / "kits" / f"{site}.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(kit)) as archive:
        archive.extractall(folder / "unpacked", filter="data")


class Place:
    """A server's folder, its nginx, and the kits of its sites."""

    def __init__(self, folder: Path, port: int, start) -> None:
        self.folder, self.port, self.start = folder, port, start
        self.server = folder / "server"
        self.down = self.server / "shards" / "down"
        self.consortium = Consortium("lung", "localhost", port, ("north", "east"))
        provision(self.consortium, folder)
        for site in self.consortium.sites:
            unpack(folder, site)
        admit(self.server)
        self.again()

    def kit(self, site: str) -> Path:
        return self.folder / "unpacked" / site

    def link(self, site: str = "north", patience: float = 20.0) -> ShardLink:
        kit = self.kit(site)
        address = f"localhost:{self.port}"
        return ShardLink(address, kit / "ca.crt", kit / "site.pem", patience)

    def client(self, site: str | None) -> httpx.Client:
        """A client that does what it likes, with the certificate of a site or none."""
        context = ssl.create_default_context(cafile=str(self.kit("north") / "ca.crt"))
        if site:
            context.load_cert_chain(self.kit(site) / "site.pem")
        return httpx.Client(verify=context, timeout=20)

    def stop(self) -> None:
        self.nginx.terminate()
        self.nginx.wait(timeout=20)

    def again(self) -> None:
        self.nginx = self.start(self.server, self.port)

    def renew(self) -> None:
        """Take in who is registered now."""
        admit(self.server)
        self.stop()
        self.again()


@pytest.fixture(scope="module")
def place(tmp_path_factory, free_port, start_nginx):
    place = Place(tmp_path_factory.mktemp("consortium"), free_port(), start_nginx)
    yield place
    place.stop()


def test_shards_come_and_go_whole(place, tmp_path):
    content = bytes(range(256)) * 2**13
    shards = write_shards([content], place.down, 2**20)

    with place.link() as link:
        link.fetch(shards, tmp_path)
        link.send(shards, tmp_path, "north")
    assert b"".join((tmp_path / each.digest).read_bytes() for each in shards) == content
    sent = place.server / "shards" / "up" / "north"
    assert b"".join((sent / f"{n:02d}").read_bytes() for n in (0, 1)) == content


def test_a_download_goes_on_where_it_ended(place, tmp_path):
    (shard,) = write_shards([b"a" * 1000], place.down)
    (tmp_path / f".partial-{shard.digest}").write_bytes(b"a" * 600)
    # At the server the first bytes are others now, so that the last alone can come.
    (place.down / shard.digest).write_bytes(b"b" * 600 + b"a" * 400)
    with place.link() as link:
        link.fetch([shard], tmp_path)

    assert (tmp_path / shard.digest).read_bytes() == b"a" * 1000
    assert not (tmp_path / f".partial-{shard.digest}").exists()


@pytest.mark.parametrize("size", [14, 5, 20])
def test_other_bytes_than_were_named_are_refused_and_not_kept(place, tmp_path, size):
    name = "0" * 64
    (place.down / name).write_bytes(b"something else")

    with place.link() as link, pytest.raises(UpdateError, match="digest"):
        link.fetch([Shard(name, size)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_link_that_is_cut_is_waited_for(place, tmp_path):
    shards = write_shards([b"b" * 5000], place.down, 1000)
    with place.link() as link:
        place.stop()
        thread = threading.Thread(target=lambda: (time.sleep(1.0), place.again()))
        thread.start()
        link.fetch(shards, tmp_path)
        thread.join()

    assert all((tmp_path / each.digest).exists() for each in shards)


def test_a_server_that_stays_away_is_given_up_in_a_sentence(place, tmp_path):
    (shard,) = write_shards([b"c" * 5000], place.down)
    place.stop()

    reason = "could not be reached for 1 s"
    with (
        place.link(patience=1.0) as link,
        pytest.raises(IncompleteError, match=reason),
    ):
        link.fetch([shard], tmp_path)
    place.again()


def refused(place, answer: str, site: str, shard: Shard, folder: Path) -> bool:
    """Tell whether a site can neither fetch a shard nor send it as north."""
    with place.link(site) as link:
        with pytest.raises(MismatchError, match=answer):
            link.send([shard], folder, "north")
        with pytest.raises(MismatchError, match=answer):
            link.fetch([shard], folder / "new")
    return True


def test_a_site_writes_into_its_own_places_alone(place, tmp_path):
    shards = write_shards([b"d"], tmp_path)

    with (
        place.link("east") as link,
        pytest.raises(MismatchError, match="got 403"),
    ):
        link.send(shards, tmp_path, "north")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "up/north/00", 405),  # what a site sends nobody reads back
        ("DELETE", "up/north/00", 405),
        ("MKCOL", "up/north/00", 405),
        ("PUT", "up/north/100", 404),
        ("PUT", "up/north/..%2f..%2fdown%2f00", 404),
        ("PUT", f"down/{'a' * 64}", 405),
        ("GET", "down/../../server.key", 404),
        ("GET", "down/..%2f..%2fserver.key", 404),
        ("PUT", f"up/north/{'0' * 2}", 413),
    ],
)
def test_a_site_can_do_nothing_else(place, method: str, path: str, status: int):
    # Dots must reach the server as they are.
    url = httpx.URL(f"https://localhost:{place.port}/").copy_with(
        raw_path=f"/v1/shards/{path}".encode()
    )
    content = bytes(SHARD_BYTES + 1 if status == 413 else 1)

    with place.client("north") as client:
        assert client.request(method, url, content=content).status_code == status


def test_who_shows_no_certificate_gets_and_writes_nothing(place):
    (shard,) = write_shards([b"e"], place.down)
    base = f"https://localhost:{place.port}/v1/shards"

    with place.client(None) as client:
        assert client.get(f"{base}/down/{shard.digest}").status_code == 403
        assert client.put(f"{base}/up/north/02", content=b"x").status_code == 403
        assert client.put(f"{base}/up//02", content=b"x").status_code == 404


def test_a_certificate_of_another_authority_is_refused(place, tmp_path):
    (shard,) = write_shards([b"f"], place.down)
    provision(place.consortium, tmp_path)
    unpack(tmp_path, "north")
    theirs = tmp_path / "unpacked" / "north" / "site.pem"
    ours = place.kit("north") / "ca.crt"

    with (
        ShardLink(f"localhost:{place.port}", ours, theirs) as foreign,
        pytest.raises(MismatchError, match="got 400"),
    ):
        foreign.fetch([shard], tmp_path / "inbox")


def test_who_was_revoked_or_got_a_new_kit_is_refused_with_the_old_one(place, tmp_path):
    (shard,) = write_shards([b"g"], place.down)
    write_shards([b"g"], tmp_path)
    provision(place.consortium, place.folder, reissue=["north"])
    place.renew()

    assert refused(place, "got 403", "north", shard, tmp_path)
    unpack(place.folder, "north")
    with place.link() as link:
        link.fetch([shard], tmp_path / "new")
        link.send([shard], tmp_path, "north")
    (tmp_path / "new" / shard.digest).unlink()

    provision(place.consortium, place.folder, revoke=["north"])
    place.renew()
    assert refused(place, "got 403", "north", shard, tmp_path)
