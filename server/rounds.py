"""A federated job from its first round to its last, told in order."""

import json
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.app import MessageType, RecordDict
from flwr.serverapp import Grid

from ctflow_fed.errors import CTFlowError, IncompleteError, InputError
from ctflow_fed.federation import (
    SPENT,
    Board,
    FederationSettings,
    Job,
    Reporter,
    RoundRecord,
    open_job,
    outliers,
    playing,
    shares_of,
    weighted_mean,
)
from server.exchange import Answers, Exchange
from server.secure import SecureTraining, train_secretly
from server.sites import Roster
from server.strategy import CheckedUpdate, Sorted, Spending, Traffic, loss_in, update_in

__all__ = ["play_job"]

log = logging.getLogger(__name__)


def play_job(grid: Grid, settings: FederationSettings) -> None:
    """Play the rounds that are left and write the model; do nothing when it is done.

    A job that was killed goes on after its last finished round and ends with the
    weights of an unbroken one.
    """
    folder = Path(settings.out)
    with playing(folder):
        reporter = Reporter(folder)
        reporter.ask("wait", 0, ())
        try:
            _play(grid, settings, reporter)
        except Exception as error:
            known = isinstance(error, CTFlowError)
            reporter.end(
                str(error) if known else f"an unexpected {type(error).__name__}"
            )
            raise


def _play(grid: Grid, settings: FederationSettings, reporter: Reporter) -> None:
    job = open_job(settings)
    if job.is_finished:
        log.info("all rounds are done already")
        return
    if not job.is_played:
        keys = Path(settings.nodes) if settings.nodes else None
        private = settings.is_private
        roster = Roster(grid, settings.sites, keys, private=private)
        least = settings.min_sites if job.ledger.rounds else None
        roster.wait(settings.wait_seconds, _barred(job), least)
        job.check_sites(list(roster.facts.values()))
        with job.alone():
            _play_rounds(Exchange(grid, roster, job, reporter), job)
    job.publish()


def _play_rounds(exchange: Exchange, job: Job) -> None:
    """Play round after round, each from the loss that the last one ended with."""
    traffic = Traffic()
    if job.ledger.rounds:
        loss = job.ledger.records[-1].loss_after
    else:
        loss, told = _global_loss(exchange, job, 0)
        traffic = told.traffic
    with closing(Board(job.ledger)) as board:
        while not job.is_played:
            record = _play_round(exchange, job, loss, traffic)
            job.commit(record, list(exchange.roster.facts.values()))
            board.add(record)
            _log(record)
            loss, traffic = record.loss_after, Traffic()


def _log(record: RoundRecord) -> None:
    values = record.to_json()
    text = " ".join(f"{key}={json.dumps(values[key])}" for key in values)
    log.info("%s", text, extra={"record": record})


def _play_round(
    exchange: Exchange, job: Job, loss_before: float, traffic: Traffic
) -> RoundRecord:
    """Train at the sites, average what they send, evaluate the average at the sites.

    ``traffic`` is what has travelled before. A round in which the sites find out that
    the privacy budgets are spent changes no weight, and is the last.
    """
    began, number = time.monotonic(), job.ledger.rounds + 1
    barred = _barred(job)
    training = _train(exchange, job, number, barred)
    trained, mean = training.answers, training.mean
    spending, spent = _spending(trained), _spent(trained)
    results = trained.taken
    if job.is_spent(spent) and len(results) < job.settings.quorum:
        results = {}
    else:
        _check_quorum(job, number, trained, barred)
    slices = {site: exchange.roster.facts[site].weight for site in results}
    shares = shares_of(slices, job.settings.max_share) if results else {}
    if mean is not None:
        job.advance({"mean": mean}, {"mean": 1})
    elif results:
        job.advance({site: result.arrays for site, result in results.items()}, slices)
    unasked = trained.silent | set(barred)
    with job.filing():
        loss_after, told = _global_loss(exchange, job, number, unasked)
    lossless = {site: f"no loss: {why}" for site, why in told.refused.items()}
    contested = exchange.roster.contested()
    traffic += trained.traffic + told.traffic
    return RoundRecord(
        round=number,
        slices=slices,
        moved=_moved(results),
        refused={**contested, **lossless, **trained.refused, **barred},
        strikes=sorted(trained.wrong | told.wrong),
        train_loss_first=_mean(results, shares, lambda result: result.loss_first),
        train_loss_last=_mean(results, shares, lambda result: result.loss_last),
        loss_before=loss_before,
        loss_after=loss_after,
        losses=told.taken,
        seconds=round(time.monotonic() - began, 3),
        sent=traffic.sent,
        received=traffic.received,
        shards=traffic.shards,
        digest=job.digest,
        state=job.state_digest,
        epsilon={site: each.epsilon for site, each in spending.items()},
        spent=sorted(spent),
        attempts=training.attempts,
    )


def _train(
    exchange: Exchange, job: Job, number: int, barred: Mapping[str, str]
) -> SecureTraining:
    """Return what the sites trained, and the mean of it where that is all there is."""
    without, refused = {*barred, *job.settings.held_out}, dict(barred)
    if not job.settings.secure_aggregation:
        answers = _train_openly(exchange, job, number, without)
        return SecureTraining(answers, None, attempts=1)
    try:
        return train_secretly(exchange, job, without, refused)
    except InputError as error:
        raise _ended(number, f"could not be summed: {error}", refused) from None


def _train_openly(
    exchange: Exchange, job: Job, number: int, barred: Collection[str]
) -> Answers[CheckedUpdate]:
    """Return what the sites trained from the weights, without what moved too far."""
    start = job.state.weights
    read = partial(
        update_in,
        start=start,
        length=job.part.length(start),
        precision=job.settings.precision,
        depot=job.depot,
        privacy=job.settings.privacy(),
    )
    order = job.order(number, start, len(exchange.present(barred)))
    answers = exchange.ask(order, start, MessageType.TRAIN, read, barred)
    moved = _moved(answers.taken)
    earlier = [far for record in job.ledger.records for far in record.moved.values()]
    out = outliers(moved, earlier)
    idle = {
        site: SPENT
        for site, each in answers.taken.items()
        if each.spending is not None and not each.spending.steps
    }
    return replace(
        answers,
        taken={s: each for s, each in answers.taken.items() if s not in {*out, *idle}},
        refused={**answers.refused, **out, **idle},
        wrong=answers.wrong | set(out),
    )


def _moved(results: Mapping[str, CheckedUpdate]) -> dict[str, float]:
    """Return how far each update went; of those in a secure sum nobody knows."""
    moved = {site: result.moved for site, result in results.items()}
    return {site: far for site, far in moved.items() if not math.isnan(far)}


def _spending(trained: Sorted[CheckedUpdate]) -> dict[str, Spending]:
    """Return what each site that has trained privately has spent."""
    return {s: each.spending for s, each in trained.taken.items() if each.spending}


def _spent(trained: Sorted[CheckedUpdate]) -> set[str]:
    """Return the sites that cannot take another private step."""
    idle = {site for site, why in trained.refused.items() if why == SPENT}
    return idle | {s for s, each in _spending(trained).items() if each.is_spent}


def _global_loss(
    exchange: Exchange, job: Job, number: int, without: Collection[str] = ()
) -> tuple[float, Answers[float]]:
    """Return the loss of the global model over the sites, and what each of them said.

    Where sites are held out it is theirs, nan where none of them has told it. The sites
    ``without`` are not asked: who was silent just now would be so again. In a private
    job nobody is asked.
    """
    if job.settings.is_private:
        return math.nan, Answers({}, {}, frozenset(), frozenset(), Traffic())
    model, facts = job.state.model, exchange.roster.facts
    order = job.order(number, model, len(exchange.present(without)))

    def read(content: RecordDict, _: str) -> float:
        return loss_in(content)

    told = exchange.ask(order, model, MessageType.EVALUATE, read, without)
    if not told.taken:
        raise _ended(number, "got nothing usable from any site", told.refused)
    judges = set(job.settings.held_out) or set(told.taken)
    losses = {site: loss for site, loss in told.taken.items() if site in judges}
    if not losses:
        return math.nan, told
    slices = {site: facts[site].weight for site in losses}
    return weighted_mean(losses, shares_of(slices, job.settings.max_share)), told


def _mean(
    results: Mapping[str, CheckedUpdate],
    shares: Mapping[str, float],
    loss: Callable[[CheckedUpdate], float],
) -> float:
    if not results:
        return math.nan
    return weighted_mean({site: loss(each) for site, each in results.items()}, shares)


def _barred(job: Job) -> dict[str, str]:
    """Return who is asked no more and why; too few others end the job for now."""
    barred = {**job.ledger.quarantined(), **job.ledger.spent}
    if len(set(job.settings.trainers) - set(barred)) < job.settings.quorum:
        raise _ended(job.ledger.rounds + 1, "has too few sites left", barred)
    return barred


def _check_quorum(
    job: Job, number: int, trained: Sorted[CheckedUpdate], barred: Mapping[str, str]
) -> None:
    """End the job for now where fewer sites than it asks for sent a usable update."""
    usable, least = len(trained.taken), job.settings.quorum
    refused = {**trained.refused, **barred}
    if not usable:
        raise _ended(number, "got nothing usable from any site", refused)
    if usable < least:
        what = f"got usable updates from {usable} sites of at least {least}"
        raise _ended(number, f"{what} and was not averaged", refused)


def _ended(number: int, what: str, refused: Mapping[str, str]) -> IncompleteError:
    reasons = "; ".join(f"{site}: {refused[site]}" for site in sorted(refused))
    which = f"round {number}" if number else "the first evaluation"
    return IncompleteError(
        f"{which} {what} ({reasons}); the same "
        "command goes on after the last finished round"
    )
