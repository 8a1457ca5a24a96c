"""Flower's client for a SuperNode, which takes a broken link for what it is.

Flower's own goes on as a dead node, ends, or loses an order, where the server fails,
the link breaks in the middle of a call, or the SuperNode was killed and is back soon.
"""

import os
import sys
import time
from typing import Any, NoReturn

import httpx
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.supernode.fleet_http_client import FleetHttpClient

__all__ = ["PatientClient", "end_process"]

SEEN_TO_BE_GONE = 90.0
"""Seconds after which a server has noticed that a SuperNode was killed, and more."""

AGAIN_SECONDS = 3.0


class PatientClient(FleetHttpClient):
    """Flower's client, with neither of its ways to go on as a dead node.

    After a 500 it tries again, as after a 503: Flower's own would end the loop or the
    heartbeat and leave the process alive. After a 401 the process ends with code 1.

    A server hands an order out once. Where the link broke before the answer to a call
    for orders came, one may be lost: the node leaves and comes back, at which the
    server asks again.
    """

    _activation: Any = None
    _may_have_lost = False

    def ActivateNode(self, request: Any) -> Any:  # noqa: ANN401, N802  # as Flower's
        """Enter, after waiting until the server knows that an earlier self has gone."""
        self._activation = request
        end = time.monotonic() + SEEN_TO_BE_GONE
        while True:
            try:
                return super().ActivateNode(request)
            except httpx.HTTPStatusError as error:
                if not _is_in_that_state(error) or time.monotonic() > end:
                    raise
            time.sleep(AGAIN_SECONDS)

    def PullMessages(self, request: Any) -> Any:  # noqa: ANN401, N802  # as Flower's
        """Call for orders; leave and come back first where one may be lost."""
        if self._may_have_lost:
            self._leave_and_come_back(request.node.node_id)
            self._may_have_lost = False
        try:
            return super().PullMessages(request)
        except httpx.TransportError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            self._may_have_lost = not never_sent
            raise

    def _leave_and_come_back(self, node: int) -> None:
        """Let the server see this node as one that was started again.

        It may know already that the node is gone, or have heard a heartbeat since.
        """
        leave = DeactivateNodeRequest(node_id=node)
        for call, request in (
            (self.DeactivateNode, leave),
            (super().ActivateNode, self._activation),
        ):
            try:
                call(request)
            except httpx.HTTPStatusError as error:
                if not _is_in_that_state(error):
                    raise

    def _unary_unary(self, **words: Any) -> Any:  # noqa: ANN401  # as Flower's
        try:
            return super()._unary_unary(**words)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                end_process(
                    "the server does not accept this site: its key is not registered, "
                    "or this host's clock is wrong; keep it with NTP"
                )
            if error.response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                raise httpx.RemoteProtocolError("the server failed") from None
            raise
        except httpx.TransportError as error:
            if "certificate" in str(error).lower():
                raise
            # Flower gives up at whatever names SSL, be it a link that broke.
            raise type(error)("the link to the server broke") from None


def _is_in_that_state(error: httpx.HTTPStatusError) -> bool:
    """Tell whether a node is up, or down, to the server already."""
    return error.response.status_code == httpx.codes.PRECONDITION_FAILED


def end_process(why: str) -> NoReturn:
    """End at once, whatever threads are left, so that a service manager starts anew.

    The ClientApp's processes watch this one and follow.
    """
    sys.stderr.write(f"error: {why}\n")
    sys.stderr.flush()
    os._exit(1)
