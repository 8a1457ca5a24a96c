"""What in headers, names of files and tables may tell who a patient is."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

from ctflow_fed.ct.privacy.vocabulary import ordinary_words

__all__ = [
    "DESCRIBING",
    "Identifier",
    "Kind",
    "in_cells",
    "of_date",
    "of_description",
    "of_name",
    "of_text",
]

Kind = Literal[
    "name", "date", "number", "uid", "text", "sentence", "digest", "word", "other"
]
"""``other`` is a value of a header that need not tell anything; ``word`` a rare one of
a description, which may be a name.
"""

DESCRIBING = re.compile(
    r"Description$|ProtocolName|Comments?$|Reason|History", re.IGNORECASE
)
"""Elements and columns of free text: people type names and dates into them."""

LONG_NUMBER = 6
"""Characters from which a number in a free text is one of a kind."""

RARE_WORD = 4
"""Letters from which a word of a description is looked at."""

SHORTEST = 3
"""Characters: what is shorter cannot be told from chance."""

LEVEL = 5
"""What is shorter and has few digits may be medical: S17, Th12."""

DATE = re.compile(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})(?!\d)")
DAY_FIRST = re.compile(r"(\d{1,2})[-./](\d{1,2})[-./](\d{4})$")
UID = re.compile(r"[0-2](?:\.\d+){5,}")
NAME_PART = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
PERSON = re.compile(
    r"name|physician|doctor|radiolog|refer|operator|signed|author", re.IGNORECASE
)
TITLES = frozenset(
    {"dr", "prof", "med", "mr", "mrs", "ms", "md", "phd", "dipl", "ing", "herr", "frau"}
    | {"jr", "sr", "von", "van", "der", "den", "del", "dos", "patient", "test", "none"}
    | {"anonymous", "anonymized", "anonymised", "unknown", "null"}
)
"""What stands beside names and tells nobody apart."""


@dataclass(frozen=True)
class Identifier:
    """A value that may tell who a patient is, in lower case; it is never shown."""

    kind: Kind
    text: str

    def __repr__(self) -> str:
        return f"Identifier({self.kind})"


def of_name(value: str) -> Iterator[Identifier]:
    """Yield a person's name and its parts, with and without their accents."""
    parts = NAME_PART.findall(value)
    for spelt in (_plain, _folded):
        words = [word for part in parts if (word := spelt(part)) not in TITLES]
        told = [word for word in words if len(word) >= SHORTEST]
        pairs = [
            between.join(pair)
            for pair in (words[:2], words[1::-1])
            for between in (" ", "^", ", ", "_", "-")
            if len(pair) == 2
        ]
        yield from (Identifier("name", word) for word in (*pairs, *told))


def of_date(value: str) -> Iterator[Identifier]:
    """Yield a date in the ways that people write it; nothing for what is none."""
    found, day_first = DATE.match(value.strip()), DAY_FIRST.match(value.strip())
    if found:
        year, month, day = map(int, found.groups())
    elif day_first:
        day, month, year = map(int, day_first.groups())
    else:
        return
    try:
        written = date(year, month, day)
    except ValueError:
        return
    for form in ("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y"):
        yield Identifier("date", written.strftime(form))
    for form in ("%d-%m-%Y", "%m/%d/%Y", "%d %B %Y", "%B %d, %Y", "%d %b %Y"):
        yield Identifier("date", written.strftime(form).lower())


def of_text(value: str) -> Iterator[Identifier]:
    """Yield a value of an unknown kind, as what it looks like."""
    text = " ".join(_plain(value).split())
    if UID.fullmatch(text):
        yield Identifier("uid", text)
        return
    yield from of_date(text)
    if len(text) >= SHORTEST and re.search(r"[^\W_]", text) and text not in TITLES:
        number = re.search(r"\d", text) is not None and " " not in text
        if number and len(text) < LEVEL and len(re.findall(r"\d", text)) < SHORTEST:
            return
        yield Identifier("number" if number else "text", text)


def of_description(value: str) -> Iterator[Identifier]:
    """Yield what a free text may tell: dates, long numbers, UIDs and rare words."""
    for part in re.split(r"[\s,;_()]+", value):
        for each in of_text(part):
            long = each.kind == "number" and len(each.text) >= LONG_NUMBER
            if long or each.kind in {"date", "uid"}:
                yield each
    for word in map(_plain, NAME_PART.findall(value)):
        parts = set(re.split(r"['\u2019-]", word))
        if len(word) >= RARE_WORD and not parts <= ordinary_words() | TITLES:
            yield from (Identifier("word", each) for each in {word, _folded(word)})


def in_cells(cells: Iterable[tuple[str, str]]) -> frozenset[Identifier]:
    """Return the identifiers of cells of a table, each with the name of its column."""
    found: set[Identifier] = set()
    for column, value in cells:
        if DESCRIBING.search(column):
            found.update(of_description(value))
            continue
        person = PERSON.search(column) and not re.search(r"\d", value)
        found.update(of_name(value) if person else of_text(value))
    return frozenset(found)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip(" \0").lower()


def _folded(text: str) -> str:
    """Write a text without accents, as headers do that know ASCII alone."""
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in letters if not unicodedata.combining(char))
