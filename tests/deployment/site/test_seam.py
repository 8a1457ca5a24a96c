"""Where Flower is entered: what must be as the gate knows it, and the dead nodes."""

import importlib
import inspect
import threading
import warnings
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Flower imports warns about click 9
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        PullMessagesRequest,
        PullMessagesResponse,
    )
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.fleet_http_connection import http_request_response
    from flwr.supernode.nodestate import NodeStateFactory

    from ctflow_fed.deployment.site.exchange import Flower
    from ctflow_fed.deployment.site.patient_client import PatientClient
    from ctflow_fed.deployment.site.supernode import check_seam, wait_for_programs


def test_the_pinned_flower_is_entered_where_the_gate_stands():
    check_seam()

    source = inspect.getsource(http_request_response)
    _, given = source.split("yield (")
    names = given.split(")")[0].replace("node.node_id", "node_id").split(",")
    assert [name.strip() for name in names if name.strip()] == list(Flower._fields)
    internal = importlib.import_module("flwr.supernode.start_client_internal")
    assert internal.http_request_response is http_request_response


class Scripted(BaseHTTPRequestHandler):
    """Answer each call as the script says: a status, or a link that breaks (None)."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.heard.append(self.path.rsplit("/", 1)[-1])
        status = self.server.script.pop(0)
        if status is None:
            return
        content = PullMessagesResponse().SerializeToString()
        self.send_response(status)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture
def scripted(monkeypatch):
    """A function: a server that answers by a script, and our client for it."""
    monkeypatch.setattr("ctflow_fed.deployment.site.patient_client.AGAIN_SECONDS", 0.01)
    with ExitStack() as stack:

        def start(*script):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
            server.script, server.heard = list(script), []
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"127.0.0.1:{server.server_port}"
            client = PatientClient.from_server_address(
                address, True, None, interceptors=[]
            )
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            stack.callback(client.close)
            return server, client

        yield start


def test_a_server_that_fails_is_to_flower_a_connection_to_be_tried_again(scripted):
    _, client = scripted(500)

    with pytest.raises(httpx.TransportError):
        client.SendNodeHeartbeat(SendNodeHeartbeatRequest())


def test_a_node_that_may_have_lost_an_order_leaves_and_comes_back(scripted):
    server, client = scripted(200, 200, None, 412, 200, 200, 200)
    client.ActivateNode(ActivateNodeRequest())
    client.PullMessages(PullMessagesRequest())
    with pytest.raises(httpx.TransportError):
        client.PullMessages(PullMessagesRequest())
    client.PullMessages(PullMessagesRequest())
    client.PullMessages(PullMessagesRequest())

    assert server.heard == [
        *("activate-node", "pull-messages", "pull-messages"),
        *("deactivate-node", "activate-node", "pull-messages", "pull-messages"),
    ]


def test_a_call_that_never_reached_the_server_has_lost_no_order(scripted):
    server, client = scripted()
    server.shutdown()
    server.server_close()
    with pytest.raises(httpx.ConnectError):
        client.PullMessages(PullMessagesRequest())

    assert not client._may_have_lost


def test_a_node_that_was_killed_waits_until_the_server_knows(scripted):
    server, client = scripted(412, 412, 200)
    client.ActivateNode(ActivateNodeRequest())

    assert server.heard == ["activate-node"] * 3


@pytest.fixture
def nodes(monkeypatch):
    """A SuperNode's memory of its programs, and a function that lets time pass."""
    tasks = importlib.import_module("flwr.supercore.corestate.in_memory_corestate")
    for name in ("HEARTBEAT_DEFAULT_INTERVAL", "HEARTBEAT_PATIENCE", "now"):
        monkeypatch.setattr(tasks, name, getattr(tasks, name))  # put back at the end
    wait_for_programs()
    state = NodeStateFactory(ObjectStoreFactory()).state()

    def later(seconds):
        tasks.now = lambda now=tasks.now: now() + timedelta(seconds=seconds)

    return state, later


def test_a_program_may_take_minutes_to_start_and_keeps_its_order(nodes):
    state, later = nodes
    token = state.claim_task(state.create_task(TaskType.CLIENT_APP, 1))
    later(280)

    assert state.get_task_by_token(token) is not None
    later(40)
    assert state.get_task_by_token(token) is None


def test_a_program_that_died_at_work_is_missed_within_a_minute(nodes):
    state, later = nodes
    identity = state.create_task(TaskType.CLIENT_APP, 1)
    token = state.claim_task(identity)
    state.activate_task(identity)
    later(50)
    assert state.acknowledge_task_heartbeat(identity)
    later(50)
    assert state.get_task_by_token(token) is not None
    later(20)

    assert state.get_task_by_token(token) is None
