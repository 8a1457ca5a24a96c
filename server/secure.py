"""A secure round as the server plays it: five steps with the sites, and their mean."""

import logging
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from ctflow_fed.deployment.certificates import certified_key
from ctflow_fed.deployment.site.secure import SECURE
from ctflow_fed.errors import UpdateError
from ctflow_fed.federation import (
    SPENT,
    Arrays,
    FederationSettings,
    Job,
    plus,
    shares_of,
)
from ctflow_fed.federation.secure import (
    SecureServer,
    Terms,
    row_in,
    smallest_threshold,
    to_text,
)
from server.exchange import Answers, Exchange
from server.inquiry import Inquiry
from server.strategy import (
    CheckedUpdate,
    Traffic,
    content_of,
    is_crash,
    masked_in,
    with_numbers,
)

__all__ = ["SecureTraining", "train_secretly"]

log = logging.getLogger(__name__)

BOUND = 16.0
"""No weight moves as far in a round; a step of the grid is then 7e-9 wide."""

STEP_SECONDS = 120.0
"""A step needs no training: a site that is there answers at once."""

SILENT = f"no answer within {STEP_SECONDS:g} s in the steps of a secure round"

Row = Mapping[str, bytes]


@dataclass(frozen=True)
class SecureTraining:
    """What the sites told beside their updates, the mean of these, and the attempts.

    There is no mean where too many sites found that their privacy budgets are spent.
    """

    answers: Answers[CheckedUpdate]
    mean: Arrays | None
    attempts: int


def train_secretly(
    exchange: Exchange, job: Job, without: Collection[str], refused: dict[str, str]
) -> SecureTraining:
    """Train securely with the sites that are there and not in ``without``.

    Where it comes to nothing it is tried once more, with those who are there then but
    for who was wrong or has spent its budget. Why a site is not counted goes to
    ``refused``. Raises ``InputError`` where the second attempt comes to nothing too.
    """
    first = SecureRound(exchange, job, without, refused)
    try:
        return SecureTraining(*first.play(), attempts=1)
    except UpdateError as error:
        if job.is_spent(first.spent):
            return SecureTraining(first.told(), None, attempts=1)
        unfit = {*without, *first.wrong, *first.spent}
        if len(set(job.settings.trainers) - unfit) < job.settings.quorum:
            raise
        log.warning("a secure round is tried again: %s", error)
    refused |= {s: _before(refused[s]) for s in refused.keys() - set(without)}
    now: dict[str, str] = {}
    again = SecureRound(exchange, job, unfit, now)
    try:
        answers, mean = again.play()
    finally:
        refused |= now
    wrong, traffic = answers.wrong | first.wrong, first.traffic + answers.traffic
    answers = replace(answers, refused=refused, wrong=wrong, traffic=traffic)
    return SecureTraining(answers, mean, attempts=2)


def _before(why: str) -> str:
    """Return why a site was not counted in a first attempt; what is spent stays so."""
    return why if why == SPENT else f"in the first attempt: {why}"


class SecureRound:
    """One attempt at a round in which the server learns a mean and no update.

    It is played with the sites that are there and not in ``without``. What a site says
    in the way of a step goes to `SecureServer` under the name that its connection
    gives; why a site is not counted goes to ``refused``, whose answer was wrong to
    ``wrong``.
    """

    def __init__(
        self,
        exchange: Exchange,
        job: Job,
        without: Collection[str],
        refused: dict[str, str],
    ) -> None:
        self._exchange, self._without = exchange, without
        number, self._start = job.ledger.rounds + 1, job.state.weights
        sites = exchange.present(without)
        self._order = job.order(number, self._start, len(sites))
        weights = {site: exchange.roster.facts[site].weight for site in sites}
        self._terms = Terms(
            order=self._order.digest,
            attempt=secrets.randbits(60),
            shares=shares_of(weights, job.settings.max_share),
            manifest=job.part.manifest,
            bound=BOUND,
            threshold=job.settings.threshold or smallest_threshold(len(sites)),
        )
        authority = _authority(job.settings).read_bytes()
        identify = partial(certified_key, authority=authority)
        self._server = SecureServer(self._terms, identify)
        self.refused = refused
        self.wrong: set[str] = set()
        self.traffic = Traffic()

    @property
    def spent(self) -> set[str]:
        """The sites that have said that their privacy budgets are spent."""
        return {site for site, why in self.refused.items() if why == SPENT}

    def told(self) -> Answers[CheckedUpdate]:
        """Return what is known where nothing came of it."""
        wrong = frozenset(self.wrong)
        return Answers({}, self.refused, wrong, frozenset(), self.traffic)

    def play(self) -> tuple[Answers[CheckedUpdate], Arrays]:
        """Return what the sites in the sum told, and the mean of their weights.

        Raises ``UpdateError`` where too few are left, or the masks do not come off.
        """
        server = self._server
        empty: Row = {}
        sites = dict.fromkeys(self._terms.sites, empty)
        keys = server.advertised(self._step("advertise", sites, server.check_keys))
        sealed = self._step("share", dict.fromkeys(keys, keys), server.check_row)
        answers = self._train(server.relayed(sealed))
        survivors = list(server.close())
        asked = dict.fromkeys(survivors, survivors)
        words = self._step("confirm", asked, lambda site, row: None)
        agreed = server.agreed({s: row.get("word", b"") for s, row in words.items()})
        shares = self._step(
            "reveal", dict.fromkeys(agreed, agreed), server.check_shares
        )
        weights = plus(self._start, server.unmask(shares))
        wrong = frozenset(self.wrong)
        return replace(answers, refused=self.refused, wrong=wrong), weights

    def _train(self, inbox: Mapping[str, Row]) -> Answers[CheckedUpdate]:
        """Let the sites train, and add up what comes of it."""
        bodies = {site: self._question(row) for site, row in inbox.items()}
        kind, start = MessageType.TRAIN, self._start
        told = self._exchange.ask(
            self._order, start, kind, self._add, self._without, bodies
        )
        for site, reason in told.refused.items():
            self.refused.setdefault(site, reason)
        self.wrong |= told.wrong
        self.traffic = told.traffic
        return told

    def _add(self, content: RecordDict, site: str) -> CheckedUpdate:
        """Add what a site has masked to the sum, and return what it told beside it."""
        told = with_numbers(content, {}, math.nan, self._order.privacy)
        self._server.add(site, masked_in(content, self._terms.manifest))
        return told

    def _step(
        self,
        step: str,
        bodies: Mapping[str, object],
        check: Callable[[str, Row], object],
    ) -> dict[str, Row]:
        """Take a step with each site of ``bodies``; return what the check lets pass."""
        questions = {site: self._question(each, step) for site, each in bodies.items()}
        number = str(self._order.round_number)

        def write(site: str, node: int, reply: Message | None) -> Message | None:
            if reply is not None and not is_crash(reply):
                return None
            content = RecordDict({"secure": ConfigRecord({**questions[site]})})
            seconds = STEP_SECONDS + 60
            return Message(content, node, SECURE, ttl=seconds, group_id=number)

        nodes = self._exchange.present(())
        grid, roster = self._exchange.grid, self._exchange.roster
        inquiry = Inquiry(grid, roster, write, on_answer=lambda _: None)
        there = {site: nodes[site] for site in questions if site in nodes}
        replies = inquiry.answers(there, STEP_SECONDS, grace=0.0, least=0)
        self.refused |= {s: SILENT for s in questions if s not in replies}
        told: dict[str, Row] = {}
        for site, reply in replies.items():
            try:
                content = content_of(reply)
            except UpdateError as error:
                self.refused[site] = str(error)
                continue
            try:
                row = _row_in(content)
                check(site, row)
                told[site] = row
            except UpdateError as error:
                self._refuse(site, error)
        return told

    def _refuse(self, site: str, error: UpdateError) -> None:
        """Leave out a site whose answer was wrong."""
        self.refused[site] = str(error)
        self.wrong.add(site)

    def _question(self, body: object, step: str = "") -> dict[str, str]:
        said = {"step": step, "body": to_text(body)}
        return {**said, "terms": self._terms.to_text()}


def _authority(settings: FederationSettings) -> Path:
    """Return the certificate by which the sites of a job know one another."""
    if settings.nodes:
        return Path(settings.nodes).parent / "ca.crt"
    return Path(settings.out) / "sites" / "ca.crt"


def _row_in(content: RecordDict) -> Row:
    record = content.get("secure")
    body: Any = record.get("body") if isinstance(record, ConfigRecord) else None
    return row_in(body)
