"""The reverse proxy before a SuperLink: the one door that is open to the outside.

Flower asks who a site is, but not who starts a run or lists nodes. So only the calls of
sites go through, and those only as plain words: a path that nginx and the SuperLink
could read differently goes nowhere. A site takes a 500 for the end, and waits after a
503.
"""

import re

from ctflow_fed.errors import PackageError

__all__ = ["SUPERLINK_PORT", "nginx_config", "ports_in"]

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
  server {{
    listen {port} ssl;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size 64m;  # Flower sends arrays in chunks of 5 MiB
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
  }}
}}
"""


def nginx_config(port: int, superlink: int = SUPERLINK_PORT) -> str:
    """Return nginx's configuration, to lie beside the server's certificate.

    ``port`` is open to the outside, ``superlink`` is that of the SuperLink on loopback.
    """
    return CONFIG.format(port=port, superlink=superlink)


def ports_in(config: str) -> tuple[int, int]:
    """Return what `nginx_config` was given: the port outside and the SuperLink's."""
    found = PORTS.search(config)
    if found is None:
        raise PackageError("nginx.conf is not what provision wrote; provision again")
    return int(found[1]), int(found[2])
