"""The one place where messages pass between a SuperNode and its server, gated.

Flower gives a SuperNode eight functions that speak with the server: `FLOWER` are the
versions whose functions these are. Here a question is pulled whole and checked before
the SuperNode sees it, and an answer is held back until all of it is there, checked and
written anew. What is refused is answered with the reason; the SuperNode never sees it.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.run import Run

from ctflow_fed.deployment.site.amounts import passes, spent
from ctflow_fed.deployment.site.audit import Entry
from ctflow_fed.deployment.site.exchange import Answer, Flower, Question
from ctflow_fed.deployment.site.gate import (
    KINDS,
    check_order,
    check_size,
    clean_records,
    read_order,
)
from ctflow_fed.deployment.site.objects import (
    Dispatch,
    dispatch_of,
    masked_record,
    objects_of,
    read_content,
)
from ctflow_fed.deployment.site.secure import SECURE
from ctflow_fed.deployment.site.site import Site
from ctflow_fed.deployment.site.update import Update, check_private, checked_update
from ctflow_fed.errors import CTFlowError, UpdateError
from ctflow_fed.federation import manifest_of, shards_named

__all__ = ["GatedConnection"]

SOON_SECONDS, IDLE_SECONDS = 0.2, 3.0
"""The shortest pause before it is asked again for a question, and Flower's own."""

ERROR_TEXT = "the site could not answer; its own log has more"

log = logging.getLogger(__name__)


class GatedConnection:
    """The functions of a connection, with the site's gate in each of them."""

    def __init__(self, flower: Flower, site: Site) -> None:
        self._flower, self._site = flower, site
        self._question: Question | None = None
        self._answer: Answer | None = None
        self._answered = -math.inf
        self._lock = threading.Lock()
        self._runs: dict[int, tuple[Run, Fab, str]] = {}

    def functions(self) -> Flower:
        """Return the functions that the SuperNode uses in place of Flower's."""
        return Flower(
            self._flower.node_id,
            self.receive,
            self.send,
            lambda run_id: self._run(run_id)[0],
            lambda _, run_id: self._run(run_id)[1],
            self.pull_object,
            self.push_object,
            self._flower.confirm_message_received,
        )

    def receive(self) -> tuple[Message, ObjectTree] | None:
        """Return a question that may pass; answer or refuse others here.

        After an answer the next question comes soon: a pause is a tenth of what has
        been waited, until it is as long as Flower's.
        """
        while True:
            received = self._flower.receive()
            if received is None:
                waited = time.monotonic() - self._answered
                pause = max(SOON_SECONDS, waited / 10)
                if pause > IDLE_SECONDS:
                    return None
                time.sleep(pause)
            elif self._lets_in(*received):
                return received

    def _lets_in(self, message: Message, tree: ObjectTree) -> bool:
        """Tell whether a question is for the SuperNode; answer it otherwise."""
        self._question = question = Question(message, "")
        reason = ""
        try:
            self._admit(question, tree)
        except CTFlowError as error:
            reason = str(error)
        self._record("in", question, reason)
        is_step = message.metadata.message_type == SECURE
        if not (reason or is_step):
            return True
        self._flower.confirm_message_received(
            message.metadata.run_id, message.metadata.message_id
        )
        if reason:
            self._refuse(question, reason)
        else:
            self._take_step(question)
        self._question = None
        return False

    def _take_step(self, question: Question) -> None:
        """Answer a step of a secure round; the SuperNode never sees it."""
        try:
            values = self._site.desk.answer(question.secure)
        except CTFlowError as error:
            self._record("out", question, str(error))
            self._refuse(question, str(error))
            return
        reply = Message(RecordDict(), reply_to=question.message)
        dispatch = dispatch_of(reply, {"secure": ConfigRecord({**values})})
        self._record("out", question, dispatch=dispatch)
        self._deliver(dispatch, 0.0)

    def pull_object(self, _: int, identity: str) -> bytes:
        """Return an object of the question, which is here already."""
        if self._question is None:
            raise RuntimeError("an object was asked for without a question")
        return self._question.objects[identity]

    def send(
        self, message: Message, tree: ObjectTree, seconds: float
    ) -> tuple[set[str], str]:
        """Hold an answer back and ask for all of its objects."""
        wanted = {each.object_id for each in iterate_object_tree(tree)}
        root = tree.object_id
        self._answer = Answer(root, message.has_error(), seconds, set(wanted))
        return wanted, ""

    def push_object(self, _: int, __: str, identity: str, content: bytes) -> None:
        """Take an object of the answer; the last one lets the answer go."""
        with self._lock:
            answer = self._answer
            if answer is None or identity not in answer.missing:
                raise RuntimeError("an object came that is of no answer")
            answer.missing.discard(identity)
            answer.objects[identity] = content
            if not answer.missing:
                self._answer = None
                self._release(answer)

    def _run(self, run_id: int) -> tuple[Run, Fab, str]:
        """Return a run and its bundle as the server gives them, once, with its digest.

        The bundle that is checked is the one that is installed.
        """
        if run_id not in self._runs:
            run = self._flower.get_run(run_id)
            fab = self._flower.get_fab(run.fab_hash, run_id)
            digest = hashlib.sha256(fab.content).hexdigest()
            self._runs = {run_id: (run, fab, digest)}
        return self._runs[run_id]

    def _admit(self, question: Question, tree: ObjectTree) -> None:
        """Check the bundle first, then all that came; raise ``CTFlowError``."""
        run_id = question.message.metadata.run_id
        run, fab, question.bundle = self._run(run_id)
        if not (run.fab_hash == fab.hash_str == question.bundle):
            raise UpdateError("the app bundle is not the one that the run names")
        self._site.check_bundle(question.bundle)
        kind = question.message.metadata.message_type
        if kind not in {*KINDS, SECURE}:
            raise UpdateError(f"expected a message of {', '.join(KINDS)}, got another")
        question.objects = self._pull(run_id, tree)
        if kind == "query":
            return
        content = read_content(tree.object_id, question.objects)
        question.secure = content.records.get("secure", {})
        if kind == SECURE:
            return
        question.order = order = read_order(content.records.get("order"))
        holdings = self._site.holdings()
        used = replace(
            spent(self._site.past(), question.bundle),
            epsilon=self._site.spent_beside(order),
        )
        policy, now = self._site.policy, datetime.now().time()  # the site's
        check_order(policy, kind, order, used, holdings, now)
        question.shards = shards_named(content.records)
        check_size(policy, question.bytes)
        self._site.fetch(question.shards)

    def _pull(self, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        """Pull the objects of a question, and stop where they are too many bytes."""
        size = 0

        def pull(identity: str) -> bytes:
            nonlocal size
            content = self._flower.pull_object(run_id, identity)
            with self._lock:
                size += len(content)
            check_size(self._site.policy, size)
            return content

        wanted = dict.fromkeys(each.object_id for each in iterate_object_tree(tree))
        return pull_objects(list(wanted), pull)

    def _release(self, answer: Answer) -> None:
        """Let an answer go as it may leave, or say in its place why not."""
        question = self._question
        if question is None:
            raise RuntimeError("an answer came without a question")
        try:
            dispatch = self._dispatch(question, answer)
            check_size(self._site.policy, dispatch.bytes)
            self._record("out", question, dispatch=dispatch)
            self._site.send(dispatch.shards)
        except CTFlowError as error:
            self._record("out", question, str(error))
            self._refuse(question, str(error), answer.seconds)
        else:
            self._deliver(dispatch, answer.seconds)
        finally:
            self._question = None
            self._site.clear()

    def _dispatch(self, question: Question, answer: Answer) -> Dispatch:
        message = question.message
        if answer.has_error:
            code = self._error_code(answer)
            return dispatch_of(Message(Error(code, ERROR_TEXT), reply_to=message), {})
        kind = message.metadata.message_type
        content = read_content(answer.root, answer.objects)
        if set(content.arrays) - ({"arrays"} if kind == "train" else set()):
            raise UpdateError("the answer holds arrays that an answer does not have")
        privacy = question.order.privacy if question.order else None
        private = kind == "train" and privacy is not None
        policy = self._site.policy
        records = clean_records(policy, kind, content.records, private=private)
        shards = shards_named(records)
        update = checked_update(self._site, question, content, shards)
        if private and "metrics" in records:
            check_private(self._site, question, records)
        if self._site.dry_run:
            self._site.show(kind, records)
            if update is not None:
                manifest = manifest_of(update.sent)
                self._site.show_arrays(manifest, update.order.precision)
            raise UpdateError("dry run: the answer is shown at the site, not sent")
        arrays, objects = content.array_objects, answer.objects
        if update is not None and update.order.secure:
            if shards:
                raise UpdateError("a secure update must come with its message")
            arrays, objects = self._masked(question, update)
        return dispatch_of(
            Message(RecordDict(), reply_to=message),
            {name: _record(name, values) for name, values in records.items()},
            arrays,
            objects,
            shards,
        )

    def _masked(
        self, question: Question, update: Update
    ) -> tuple[dict[str, str], dict[str, bytes]]:
        """Return a masked update in place of one that may leave in a sum only."""
        order, start, trained = update
        masked = self._site.desk.mask(question.secure, order, trained, start)
        objects = objects_of(record := masked_record(masked))
        return {"arrays": record.object_id}, objects

    def _error_code(self, answer: Answer) -> int:
        message = Message.inflate(answer.objects[answer.root])
        return int(message.error.code)

    def _refuse(self, question: Question, reason: str, seconds: float = 0.0) -> None:
        """Answer with a refusal in place of what was asked."""
        values = ConfigRecord({"site": self._site.name, "reason": reason})
        reply = Message(RecordDict(), reply_to=question.message)
        self._deliver(dispatch_of(reply, {"refusal": values}), seconds)

    def _deliver(self, dispatch: Dispatch, seconds: float) -> None:
        """Send a reply and those of its objects that the server does not have."""
        wanted, session = self._flower.send(dispatch.message, dispatch.tree, seconds)
        run_id = dispatch.message.metadata.run_id
        for identity, content in dispatch.objects.items():
            if identity in wanted:
                self._flower.push_object(run_id, session, identity, content)
        self._answered = time.monotonic()

    def _record(
        self,
        event: str,
        question: Question,
        reason: str = "",
        dispatch: Dispatch | None = None,
    ) -> None:
        """Write to the audit log what came or leaves, before it does."""
        order, message = question.order, question.message
        trains = order is not None and message.metadata.message_type == "train"
        entry = Entry(
            event=event,
            decision="refused" if reason else "allowed",
            reason=reason,
            kind=str(message.metadata.message_type)[:40],
            round=order.round_number if order else 0,
            bundle=question.bundle,
            digest=dispatch.tree.object_id if dispatch else message.metadata.message_id,
            bytes=dispatch.bytes if dispatch else question.bytes,
            passes=passes(order, self._site.holdings()) if order and trains else 0.0,
        )
        self._site.audit.append(entry)
        log.info("%s %s: %s %s", entry.kind, event, entry.decision, reason)


def _record(name: str, values: Mapping[str, Any]) -> ConfigRecord | MetricRecord:
    kind = MetricRecord if name == "metrics" else ConfigRecord
    return kind(dict(values))
