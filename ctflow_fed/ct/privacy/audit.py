"""Searches a store and logs for whatever tells who the patients of a source are.

What is searched for: names of persons, ids, dates and texts of every header of the
source, private and nested ones too; the rare words of descriptions, which people type
names into; names of its files and folders; the cells of the tables that may tell a
patient, and every sentence of a report; digests of ids that are not keyed; and whatever
has the form of a UID.
"""

import base64
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ctflow_fed.ct.privacy.headers import header_identifiers
from ctflow_fed.ct.privacy.identity import Identifier, in_cells, of_name, of_text
from ctflow_fed.ct.privacy.vocabulary import own_words
from ctflow_fed.ct.report import sentences_of
from ctflow_fed.ct.tables import Tables
from ctflow_fed.errors import MissingExtraError

__all__ = ["Audit", "audit"]

SENTENCE = 25
"""Characters from which a sentence of a report is searched for."""

PART_OF_NAME = 5
"""Letters from which a part of a file's name may be a person's."""

SURE = 8
"""Characters that chance does not write, wherever they stand."""

UID = re.compile(rb"(?<![\d.])[0-2](?:\.\d+){5,}")
PICTURE = re.compile(rb"base64,([A-Za-z0-9+/=]+)")
MEASURE = re.compile(r"[+-]?(?:\d{,4}|\d*\.\d*)")
HASHES = (hashlib.md5, hashlib.sha1, hashlib.sha256)
DIGEST = 16
"""The digits of a digest that are searched for."""


@dataclass(frozen=True)
class Audit:
    """What was searched for, where, and what was found: numbers alone.

    ``searched`` and ``found`` count identifiers and their occurrences by kind;
    ``unsearched`` are those that a store holds without a leak: short numbers, and words
    of this software, such as "chest" in a private element.
    """

    headers: int
    searched: Counter[str]
    unsearched: int
    files: int
    bytes: int
    found: Counter[str]
    leaking: int

    @property
    def hits(self) -> int:
        """How many times an identifier was found."""
        return self.found.total()


def audit(source: Path, tables: Tables, places: Iterable[Path]) -> Audit:
    """Search ``places`` (a store, folders of logs) for all that identifies ``source``.

    Raises ``ReportTableError`` for a table that cannot be read and
    ``MissingExtraError`` where pyahocorasick is not installed.
    """
    searched_files = sorted({path for place in places for path in _files(place)})
    own = set(map(os.path.realpath, searched_files))
    headers = [path for path in _files(source) if os.path.realpath(path) not in own]
    needles = _in_source(source, headers) | _in_tables(tables)
    ours = {each for each in needles if _may_be_ours(each)}
    search = _searcher(needles - ours)
    found: Counter[str] = Counter()
    leaking = size = 0
    for path in tqdm(searched_files, desc="search", unit="file", disable=None):
        content = path.read_bytes()
        hits = search(os.fsencode(path.name), False)
        for text, is_payload in _parts(path, content):
            hits += search(text, is_payload)
        found += hits
        leaking += bool(hits)
        size += len(content)
    return Audit(
        headers=len(headers),
        searched=Counter(each.kind for each in needles - ours),
        unsearched=len(ours),
        files=len(searched_files),
        bytes=size,
        found=found,
        leaking=leaking,
    )


def _files(place: Path) -> Iterator[Path]:
    """Yield every file below a place, hidden and linked ones too, or the place."""
    if place.is_file():
        yield place
    seen: set[str] = set()
    for parent, folders, names in os.walk(place, followlinks=True):
        folders[:] = [each for each in folders if _is_new(Path(parent, each), seen)]
        paths = (Path(parent, name) for name in sorted(names))
        yield from (path for path in paths if path.is_file())


def _is_new(folder: Path, seen: set[str]) -> bool:
    """Whether a folder was not walked yet: links may lead round in a circle."""
    path = os.path.realpath(folder)
    if path in seen:
        return False
    seen.add(path)
    return True


def _in_source(source: Path, paths: list[Path]) -> set[Identifier]:
    """Collect what the headers and the names of the source tell."""
    found: set[Identifier] = set()
    names: set[str] = set()
    for path in tqdm(paths, desc="headers", unit="file", disable=None):
        found |= header_identifiers(path)
        names |= {part for part in path.relative_to(source).parts if part != path.name}
        names.add(path.name)
        names.add(path.name.removesuffix(".gz").rpartition(".")[0])
    for name in names:
        parts = {each for each in of_name(name) if len(each.text) >= PART_OF_NAME}
        found |= set(of_text(name)) | parts | _digests(name)
    return found


def _in_tables(tables: Tables) -> set[Identifier]:
    """Collect what the tables tell: private cells, and the sentences of reports."""
    found: set[Identifier] = set()
    for report in tables.read().values():
        found |= in_cells(report.private)
        for _, value in report.private:
            found |= _digests(value)
        sentences = (each.strip() for each in sentences_of(report.text))
        found |= {
            Identifier("sentence", each) for each in sentences if len(each) >= SENTENCE
        }
    return found


def _digests(value: str) -> set[Identifier]:
    """Return digests that anybody could make of a value, who guesses it."""
    spellings = {value, value.lower(), value.upper()}
    return {
        Identifier("digest", make(spelling.encode()).hexdigest()[:DIGEST])
        for spelling in spellings
        for make in HASHES
    }


def _may_be_ours(identifier: Identifier) -> bool:
    """Whether a store may hold it without a leak: a measure, or words of ours alone."""
    if identifier.kind == "sentence":
        return False
    words = set(re.findall(r"[^\W_]+", identifier.text))
    return bool(MEASURE.fullmatch(identifier.text)) or words <= own_words()


def _parts(path: Path, content: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the texts of a file, and what is numbers or a picture as a payload."""
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(content[:8], "little")
        yield content[8:end], False
        yield content[end:], True
        return
    for match in PICTURE.finditer(content):
        yield base64.b64decode(match[1] + b"==", validate=False), True
    yield PICTURE.sub(b"", content), False


def _searcher(
    identifiers: set[Identifier],
) -> Callable[[bytes, bool], Counter[str]]:
    """Return what counts identifiers in bytes, by their kind."""
    automaton: Any = _ahocorasick().Automaton()
    for identifier in identifiers:
        for spelling in _spellings(identifier.text):
            automaton.add_word(spelling, (identifier.kind, spelling))
    automaton.make_automaton()

    def search(content: bytes, is_payload: bool) -> Counter[str]:
        text = content.lower().decode("latin-1")
        found = Counter({"uid": len(UID.findall(content))})
        # A Latin-1 character is a byte: what is found stands where it ends.
        for end, (kind, spelling) in automaton.iter(text) if len(automaton) else ():
            sure = len(spelling) >= SURE
            if not is_payload and (spelling.isdecimal() or not sure):
                sure = _stands_alone(text, end, len(spelling))
            found[kind] += sure
        return +found

    return search


def _stands_alone(text: str, end: int, length: int) -> bool:
    """Whether a word is not a part of a longer word, number or digest."""
    start = end + 1 - length
    before, after = text[max(0, start - 2) : start], text[end + 1 : end + 3]
    in_word = before[-1:].isalnum() or after[:1].isalnum()
    in_number = re.fullmatch(r"\d\.", before) or re.match(r"\.\d", after)
    return not in_word and not in_number


def _spellings(text: str) -> set[str]:
    """Return a text as bytes may hold it: UTF-8, Latin-1, or escaped in JSON."""
    if text.isascii():
        return {text}
    # Only ASCII is lowered in what is searched.
    cases = {
        each for case in (text, text.title(), text.upper()) for each in _forms(case)
    }
    coded = {each.encode().decode("latin-1") for each in cases}
    latin = {each for each in cases if max(each) <= "\u00ff"}
    escaped = {json.dumps(each)[1:-1] for each in cases}
    return {_lowered(each) for each in coded | latin | escaped}


def _forms(text: str) -> set[str]:
    return {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}


def _lowered(text: str) -> str:
    return text.encode("latin-1").lower().decode("latin-1")


def _ahocorasick() -> Any:  # noqa: ANN401 - not typed
    try:
        import ahocorasick
    except ImportError:
        raise MissingExtraError("pyahocorasick", "intake") from None
    return ahocorasick
