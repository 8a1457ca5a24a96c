"""Where Flower is entered: what must be as the gate knows it, and the dead nodes."""

import importlib
import inspect
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.supernode.fleet_http_connection import http_request_response

    from ctflow_fed.deployment.site.connection import Flower
    from ctflow_fed.deployment.site.supernode import PatientClient, check_seam


def test_the_pinned_flower_is_entered_where_the_gate_stands():
    check_seam()

    source = inspect.getsource(http_request_response)
    _, given = source.split("yield (")
    names = given.split(")")[0].replace("node.node_id", "node_id").split(",")
    assert [name.strip() for name in names if name.strip()] == list(Flower._fields)
    internal = importlib.import_module("flwr.supernode.start_client_internal")
    assert internal.http_request_response is http_request_response


class Failing(BaseHTTPRequestHandler):
    """Answer 500 to whatever comes."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words):
        """Say nothing."""


def test_a_server_that_fails_is_to_flower_a_connection_to_be_tried_again():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    client = PatientClient.from_server_address(address, True, None, interceptors=[])

    with pytest.raises(httpx.TransportError):
        client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
    client.close()
    server.shutdown()
    server.server_close()
