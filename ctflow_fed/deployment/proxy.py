"""The reverse proxy before a SuperLink: the one door that is open to the outside.

Flower asks who a site is, but not who starts a run or lists nodes. So only the calls of
sites go through, and those only as plain words: a path that nginx and the SuperLink
could read differently goes nowhere. A site takes a 500 for the end, and waits after a
503.

Weights that are too large for Flower's messages lie in files (`shard_link`). A site
shows nginx its certificate, reads what the server hands out, and writes a hundred files
of 64 MiB at most, where nobody but the server reads them.

What is refused is in ``refused.log``: when, from where, with what status and what
certificate, and what was asked for.
"""

import os
import pwd
import re
from contextlib import suppress
from pathlib import Path

from ctflow_fed.deployment.certificates import fingerprint
from ctflow_fed.deployment.registry import registered
from ctflow_fed.errors import PackageError, SettingsError
from ctflow_fed.files import write_text

__all__ = [
    "LARGEST_LOG",
    "REFUSALS",
    "SUPERLINK_PORT",
    "admit",
    "nginx_config",
    "nginx_user",
    "ports_in",
    "turn_over",
]

SUPERLINK_PORT = 8000  # on loopback
REFUSALS = "refused.log"
LARGEST_LOG = 64 * 2**20
"""Bytes of a log of refusals; the one before is kept."""

USERS = ("www-data", "nginx", "nobody")  # as whom nginx serves that root has started
PORTS = re.compile(r"listen (\d+) ssl;.* https://127\.0\.0\.1:(\d+);", re.DOTALL)

CONFIG = """\
# Made by `ctflow federation provision`; every path is relative to this folder.
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  map $status $refused {{ default 0; ~^4 1; }}
  log_format refused '$time_iso8601 $remote_addr $status $ssl_client_verify "$request"';
  access_log {refusals} refused if=$refused;
  server_tokens off;
  client_body_temp_path nginx/body;
  proxy_temp_path nginx/proxy;
  fastcgi_temp_path nginx/fastcgi;
  uwsgi_temp_path nginx/uwsgi;
  scgi_temp_path nginx/scgi;
  map $ssl_client_fingerprint $site {{ default ""; include nginx/sites.map; }}
  server {{
    listen {port} ssl;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_client_certificate ca.crt;
    ssl_verify_client optional;
    client_max_body_size 64m;  # a shard; Flower sends arrays in chunks of 5 MiB
    location / {{ return 404; }}
    location ~ ^/v1/fleet/[a-z-]+$ {{
      if ($request_uri !~ ^/v1/fleet/[a-z-]+$) {{ return 404; }}
      if ($request_method != POST) {{ return 405; }}
      proxy_pass https://127.0.0.1:{superlink};
      proxy_ssl_trusted_certificate ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_intercept_errors on;
      error_page 500 =503 @wait;
    }}
    location @wait {{ return 503; }}
    location ~ "^/v1/shards/down/(?<name>[0-9a-f]{{64}})$" {{
      if ($site = "") {{ return 403; }}
      if ($request_method != GET) {{ return 405; }}
      alias shards/down/$name;
    }}
    location ~ ^/v1/shards/up/(?<owner>[A-Za-z0-9_-]+)/(?<name>[0-9][0-9])$ {{
      if ($site != $owner) {{ return 403; }}
      if ($request_method != PUT) {{ return 405; }}
      alias shards/up/$owner/$name;
      dav_methods PUT;
      dav_access user:rw;
    }}
  }}
}}
"""


def nginx_config(port: int, superlink: int = SUPERLINK_PORT) -> str:
    """Return nginx's configuration, to lie beside the server's certificate.

    ``port`` is open to the outside, ``superlink`` is that of the SuperLink on loopback.
    """
    return CONFIG.format(port=port, superlink=superlink, refusals=REFUSALS)


def nginx_user() -> pwd.struct_passwd | None:
    """Return the user as whom nginx is to serve where we are root; None elsewhere.

    Raises ``SettingsError`` where there is none that may do less than root.
    """
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise SettingsError(
        f"expected a user {', '.join(USERS[:-1])} or {USERS[-1]} as whom nginx serves "
        "the outside, found none; start the server as a user of its own"
    )


def admit(server: Path) -> None:
    """Write for nginx whose certificate is whose, without the revoked.

    Where we are root, its user may go through the server's folder, which it cannot
    list, read what is offered, and write what comes; all else there stays root's.
    """
    nodes, lines, user = server / "nodes", [], nginx_user()
    for site in registered(nodes):
        place = server / "shards" / "up" / site
        place.mkdir(parents=True, exist_ok=True)
        if user is not None:
            os.chown(place, user.pw_uid, user.pw_gid)
        print_of = fingerprint((nodes / f"{site}.crt").read_bytes())
        lines.append(f"{print_of} {site};\n")
    for way in ("down", "up"):
        (server / "shards" / way).mkdir(parents=True, exist_ok=True)
    write_text(server / "nginx" / "sites.map", "".join(lines))
    if user is not None:
        for part in (".", "nginx", "shards", "shards/down", "shards/up"):
            os.chown(server / part, -1, user.pw_gid)
            (server / part).chmod(0o710)


def turn_over(server: Path) -> bool:
    """Put a log of refusals that is full aside; nginx must be told to open a new one.

    Tell whether that was done.
    """
    path = server / REFUSALS
    if not path.exists() or path.stat().st_size < LARGEST_LOG:
        return False
    path.replace(server / f"{REFUSALS}.1")
    return True


def ports_in(config: str) -> tuple[int, int]:
    """Return what `nginx_config` was given: the port outside and the SuperLink's."""
    found = PORTS.search(config)
    if found is None:
        raise PackageError("nginx.conf is not what provision wrote; provision again")
    return int(found[1]), int(found[2])
