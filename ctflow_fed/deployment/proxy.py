"""The reverse proxy before a SuperLink: the one door that is open to the outside.

Flower asks who a site is, but not who starts a run or lists nodes. So only the calls of
sites go through, and those only as plain words: a path that nginx and the SuperLink
could read differently goes nowhere. A site takes a 500 for the end, and waits after a
503.

Weights that are too large for Flower's messages lie in files (`shard_link`). A site
shows nginx its certificate, reads what the server hands out, and writes a hundred files
of 64 MiB at most, where nobody but the server reads them.
"""

import re
from pathlib import Path

from ctflow_fed.deployment.certificates import fingerprint
from ctflow_fed.deployment.registry import registered
from ctflow_fed.errors import PackageError
from ctflow_fed.files import write_text

__all__ = ["SUPERLINK_PORT", "admit", "nginx_config", "ports_in"]

SUPERLINK_PORT = 8000  # on loopback
PORTS = re.compile(r"listen (\d+) ssl;.* https://127\.0\.0\.1:(\d+);", re.DOTALL)

CONFIG = """\
# Made by `ctflow federation provision`; every path is relative to this folder.
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
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
    return CONFIG.format(port=port, superlink=superlink)


def admit(server: Path) -> None:
    """Write for nginx whose certificate is whose, without the revoked."""
    nodes, lines = server / "nodes", []
    for site in registered(nodes):
        (server / "shards" / "up" / site).mkdir(parents=True, exist_ok=True)
        print_of = fingerprint((nodes / f"{site}.crt").read_bytes())
        lines.append(f"{print_of} {site};\n")
    (server / "shards" / "down").mkdir(parents=True, exist_ok=True)
    write_text(server / "nginx" / "sites.map", "".join(lines))


def ports_in(config: str) -> tuple[int, int]:
    """Return what `nginx_config` was given: the port outside and the SuperLink's."""
    found = PORTS.search(config)
    if found is None:
        raise PackageError("nginx.conf is not what provision wrote; provision again")
    return int(found[1]), int(found[2])
