"""A federated job from its first round to its last, told in order."""

import json
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from typing import Generic, TypeVar

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ctflow_fed.errors import IncompleteError
from ctflow_fed.federation import (
    FederationSettings,
    Job,
    RoundRecord,
    SiteResult,
    arrays_of,
    federated_average,
    load_arrays,
    open_job,
    weighted_mean,
)
from ctflow_fed.weights import weights_digest
from server.sites import Roster, ask
from server.strategy import loss_in, order_content, sort_replies, update_in

__all__ = ["play_job"]

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answers(Generic[T]):
    """What the sites said, why others did not, who was silent, how many were asked."""

    taken: dict[str, T]
    refused: dict[str, str]
    silent: frozenset[str]
    asked: int


def play_job(grid: Grid, settings: FederationSettings) -> None:
    """Play the rounds that are left and write the model; do nothing when it is done.

    A job that was killed goes on after its last finished round and ends with the
    weights of an unbroken one.
    """
    job = open_job(settings)
    if job.is_finished:
        log.info("all %d rounds are done already", settings.rounds)
        return
    if job.ledger.rounds < settings.rounds:
        roster = Roster(grid, settings.sites)
        roster.wait(settings.wait_seconds)
        job.check_sites(list(roster.facts.values()))
        _play_rounds(grid, roster, job)
    job.ledger.publish()


def _play_rounds(grid: Grid, roster: Roster, job: Job) -> None:
    """Play round after round, each from the loss that the last one ended with."""
    done, rounds = job.ledger.rounds, job.settings.rounds
    if done:
        loss = job.ledger.records[-1].loss_after
    else:
        loss, _ = _global_loss(grid, roster, job, 0)
    for number in range(done + 1, rounds + 1):
        record = _play_round(grid, roster, job, number, loss)
        job.commit(record, list(roster.facts.values()))
        loss = record.loss_after
        values = asdict(record)
        text = " ".join(f"{key}={json.dumps(values[key])}" for key in values)
        log.info("%s", text, extra={"record": record})


def _play_round(
    grid: Grid, roster: Roster, job: Job, number: int, loss_before: float
) -> RoundRecord:
    """Train at the sites, average what they send, evaluate the average at the sites."""
    began = time.monotonic()
    start = arrays_of(job.network)
    trained = _exchange(
        grid, roster, job, number, MessageType.TRAIN, partial(update_in, start=start)
    )
    results = trained.taken
    if not results:
        raise _nothing_came(number, trained.refused)
    slices = {site: result.slices for site, result in results.items()}
    average = federated_average(
        {site: result.arrays for site, result in results.items()}, slices
    )
    load_arrays(job.network, average)
    loss_after, told = _global_loss(grid, roster, job, number, trained.silent)
    lossless = {site: f"no loss: {why}" for site, why in told.refused.items()}
    size = sum(value.nbytes for value in start.values())
    return RoundRecord(
        round=number,
        slices=slices,
        refused={**lossless, **trained.refused},
        train_loss_first=_mean(results, slices, lambda result: result.loss_first),
        train_loss_last=_mean(results, slices, lambda result: result.loss_last),
        loss_before=loss_before,
        loss_after=loss_after,
        seconds=round(time.monotonic() - began, 3),
        bytes=size * (trained.asked + told.asked + len(results)),
        digest=weights_digest(job.network.state_dict()),
    )


def _global_loss(
    grid: Grid, roster: Roster, job: Job, number: int, without: Collection[str] = ()
) -> tuple[float, _Answers[float]]:
    """Return the loss of the global model over the sites, and what each of them said.

    The sites ``without`` are not asked: who was silent just now would be so again.
    """
    told = _exchange(grid, roster, job, number, MessageType.EVALUATE, loss_in, without)
    if not told.taken:
        raise _nothing_came(number, told.refused)
    slices = {site: roster.facts[site].slices for site in told.taken}
    return weighted_mean(told.taken, slices), told


def _exchange(
    grid: Grid,
    roster: Roster,
    job: Job,
    number: int,
    kind: str,
    read: Callable[[RecordDict], T],
    without: Collection[str] = (),
) -> _Answers[T]:
    """Send the global model to every site but those ``without``; hear what they say."""
    seconds = job.settings.round_seconds
    content = order_content(job.order(number), arrays_of(job.network))
    nodes = {s: node for s, node in roster.refresh().items() if s not in without}
    messages = {
        site: Message(content, node, kind, ttl=seconds + 60, group_id=str(number))
        for site, node in nodes.items()
    }
    replies = ask(grid, messages, seconds)
    slices = {site: facts.slices for site, facts in roster.facts.items()}
    taken, refused = sort_replies(replies, slices, read)
    silent = frozenset(nodes) - set(replies)
    refused |= {site: roster.why_silent(site, seconds) for site in silent}
    absent = set(job.settings.sites) - set(nodes) - set(without)
    refused |= {site: roster.why_absent(site) for site in absent}
    return _Answers(taken, refused, silent, len(nodes))


def _mean(
    results: dict[str, SiteResult],
    slices: dict[str, int],
    loss: Callable[[SiteResult], float],
) -> float:
    return weighted_mean({site: loss(each) for site, each in results.items()}, slices)


def _nothing_came(number: int, refused: dict[str, str]) -> IncompleteError:
    reasons = "; ".join(f"{site}: {refused[site]}" for site in sorted(refused))
    what = f"round {number}" if number else "the first evaluation"
    return IncompleteError(
        f"{what} got nothing usable from any site ({reasons}); the same "
        "command goes on after the last finished round"
    )
