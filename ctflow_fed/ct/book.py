"""The book of an intake: what was decided on each entry, in store and account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ctflow_fed.ct.account import StudyAccount, note, read_account
from ctflow_fed.ct.desk import Decision, Entry, IntakeSettings
from ctflow_fed.ct.privacy.key import SiteKey
from ctflow_fed.ct.report_table import Report
from ctflow_fed.ct.scan import is_scan
from ctflow_fed.ct.seen import Seen
from ctflow_fed.ct.store import LatentStore
from ctflow_fed.errors import IncompleteError

__all__ = ["Book", "IntakeAccount", "StudyOutcome"]


@dataclass(frozen=True)
class StudyOutcome:
    """One study of the source and its account.

    ``name`` is that of the source, for the site's own screen; it is never saved.
    ``new`` tells a study that was taken now from one that was in the store before.
    """

    name: str
    account: StudyAccount
    new: bool = False

    @property
    def reason(self) -> str:
        """Why the study was refused or corrected."""
        return self.account.reason


@dataclass(frozen=True)
class IntakeAccount:
    """Every study of a source, in the order of their names."""

    studies: tuple[StudyOutcome, ...]
    reports_without_scan: int

    @property
    def taken(self) -> tuple[StudyOutcome, ...]:
        """The studies that are in the store now."""
        return tuple(study for study in self.studies if not study.account.refused)

    @property
    def refused(self) -> tuple[StudyOutcome, ...]:
        """The studies that are not."""
        return tuple(study for study in self.studies if study.account.refused)


class Book:
    """Enters decisions into the store and the account, one process for all."""

    def __init__(
        self,
        store: LatentStore | None,
        settings: IntakeSettings,
        table: Mapping[str, Report],
        key: SiteKey,
    ) -> None:
        self._store = store
        self._memory = None
        if store is not None:
            self._memory = Seen(store.folder, key, settings, table)
        self._hashed = key.hashed
        self._names = set(table)
        self._known = {} if store is None else read_account(store.folder)
        self._seen: dict[str, Entry] = {}
        self._outcomes: dict[Entry, list[StudyOutcome]] = {}
        self._unwritten: list[StudyAccount] = []

    def has(self, entry: Entry) -> bool:
        """Tell whether an entry needs no look: it is in the store, or as it was."""
        if not is_scan(entry.path):
            return False
        if entry.name in self._seen:
            self._outcomes[entry] = [self._again(entry, entry.name)]
            return True
        self._seen[entry.name] = entry
        study = self._hashed(entry.name)
        if self._store is not None and study in self._store:
            self._outcomes[entry] = [StudyOutcome(entry.name, self._earlier(study))]
            return True
        return self._is_remembered(entry)

    def _is_remembered(self, entry: Entry) -> bool:
        """Take the word of an earlier run on an entry that has not changed since."""
        studies = self._memory.studies(entry) if self._memory else ()
        if not studies or not all(map(self._is_decided, studies)):
            return False
        outcomes = [
            StudyOutcome(self._named.get(study, entry.name), self._earlier(study))
            for study in studies
        ]
        self._seen |= {outcome.name: entry for outcome in outcomes}
        self._outcomes[entry] = outcomes
        return True

    @cached_property
    def _named(self) -> dict[str, str]:
        """The names of the table by the ids of their studies."""
        return {self._hashed(name): name for name in self._names}

    def _is_decided(self, study: str) -> bool:
        known = self._known.get(study)
        return study in (self._store or ()) or (known is not None and known.refused)

    def enter(self, entry: Entry, decisions: Sequence[Decision] | str) -> None:
        """Enter what was decided on an entry, or that its worker was lost."""
        lasting = not isinstance(decisions, str)
        if isinstance(decisions, str):
            decisions = [Decision(entry.name, self._lost(entry, decisions))]
        outcomes = [self._entered(entry, one) for one in decisions]
        self._outcomes[entry] = outcomes
        full = any(outcome.reason == _FULL for outcome in outcomes)
        if lasting and not full and all(decision.lasting for decision in decisions):
            self._remember(entry, outcomes)

    def _remember(self, entry: Entry, outcomes: Sequence[StudyOutcome]) -> None:
        """Note an entry that is not found in the store by its name."""
        studies = tuple(outcome.account.study for outcome in outcomes)
        by_name = (
            studies == (self._hashed(entry.name),) and not outcomes[0].account.refused
        )
        if self._memory is not None and not by_name:
            self._memory.note(entry, studies)

    def closed(self, entries: Sequence[Entry]) -> IntakeAccount:
        """Return the account of all entries, in their order."""
        self._write()
        if self._unwritten:
            raise IncompleteError(
                "expected room on the disk for the account of the studies, found none; "
                "make some and repeat the command"
            )
        studies = [one for entry in entries for one in self._outcomes.get(entry, ())]
        found = {study.name for study in studies}
        return IntakeAccount(tuple(studies), len(self._names - found))

    def _entered(self, entry: Entry, decision: Decision) -> StudyOutcome:
        name, account, record = decision.name, decision.account, decision.record
        owner = self._seen.setdefault(name, entry)
        if owner != entry:
            return self._again(entry, name, account.reason if account.refused else "")
        if record is None and not account.refused and self._store is not None:
            return StudyOutcome(name, self._earlier(account.study))
        try:
            if record is not None and self._store is not None:
                self._store.enter(record)
        except OSError:
            account = StudyAccount(account.study, "refused", _FULL)
        self._note(account)
        return StudyOutcome(name, account, new=not account.refused)

    def _again(self, entry: Entry, name: str, reason: str = "") -> StudyOutcome:
        """Refuse what has the name of a study under an id of its own."""
        study = self._hashed(f"again/{entry.path.name}")
        account = StudyAccount(study, "refused", reason or "another study has its name")
        self._note(account)
        return StudyOutcome(name, account)

    def _lost(self, entry: Entry, said: str) -> StudyAccount:
        reason = (
            f"{said} (a decoder or the memory failed); leave it out, or take fewer "
            "workers"
        )
        return StudyAccount(self._hashed(entry.name), "refused", reason)

    def _earlier(self, study: str) -> StudyAccount:
        return self._known.get(study) or StudyAccount(study, "taken")

    def _note(self, account: StudyAccount) -> None:
        if self._store is not None:
            self._unwritten.append(account)
            self._write()

    def _write(self) -> None:
        """Write what is not yet in the account; on a full disk it waits for room."""
        while self._unwritten and self._store is not None:
            try:
                note(self._store.folder, self._unwritten[0])
            except OSError:
                return
            self._unwritten.pop(0)


_FULL = (
    "expected room on the disk of the store, found none; make some and repeat the "
    "command"
)
