"""Takes out of a report what may tell who the patient is, and leaves what is medical.

Rules and the identifiers of the study do it; a recogniser of names that would have to
be downloaded is not used. What is taken out is written ``___``, as in MIMIC-CXR.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from ctflow_fed.ct.privacy.identity import Identifier

__all__ = ["Scrubbed", "scrub"]

BLANK = "___"

# The parts of dates.
YEAR = r"(?:19|20)\d\d"
DAY = r"(?:0?[1-9]|[12]\d|3[01])"
DAYTH = rf"{DAY}(?:st|nd|rd|th)"
IN_YEAR = r"(?:0?[1-9]|1[0-2])"
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
NO_SIZE = r"(?!\s*(?:x\b|mm|cm|ml|hu\b|%))"

# The parts of names; their capitals tell "reported by Anna" from "reported by phone".
LETTER = r"[A-Z\u00c0-\u00de\u0130\u015e\u011e]"
NAME = rf"{LETTER}[\w\u0131]*(?:['\u2019-]{LETTER}?\w+)*"
PERSON = (
    rf"{NAME}(?:,? (?:(?:von|van|de|der|den|el|al|bin) )*(?:[A-Z]\.|{NAME})){{0,3}}"
)
TITLE = (
    r"(?:(?:(?:Assoc|Assist|Asst|Do\u00e7|Uzm|Op)\. ?)*"
    r"\b(?:Prof|Dr|DR|Mr|Mrs|Ms|Miss|Herr|Frau)\b\.?\s*(?:med\.\s*)?)+"
)
SIGNED = (
    r"\b(?:[Rr]eported|[Ss]igned|[Dd]ictated|[Vv]erified|[Aa]pproved|[Tt]ranscribed"
    r"|[Rr]eviewed|[Rr]eferred)(?: electronically)? by ?:? *"
)
LABELLED = (
    r"\b(?:(?:[Ff]ull |[Ff]irst |[Ll]ast |[Ss]ur)?[Nn]ame|[Pp]atient|[Rr]adiologist"
    r"|[Pp]hysician|[Dd]octor)(?: name)? ?: *"
)

NUMBERED = (
    r"\b(?:accession|mrn|ssn|(?:patient|case|file|chart|record|protocol|study|exam"
    r"|report|insurance|passport|archive|registration|hospital|admission)"
    r"(?:'s)? ?(?:id|no|nr|number|#)|id)\b(?: (?:no|nr|number))?\.?[\s:#=]*(?:is )?"
)
CODE = r"[A-Z]{0,6}[-/_ ]?\d[\dA-Z/_.-]*\d"

TELEPHONE = (
    r"\b(?:tel(?:ephone)?|phone|mobile|cell|fax|pager|ext(?:ension)?)\b"
    r"(?: (?:no|number|nr))?[.:]?\s*[+(]?"
)

STREET = (
    r"(?:Street|St\.|Road|Rd\b|Avenue|Ave\b|Lane|Drive|Boulevard|Blvd|Court|Square)"
)
STRASSE = r"(?:stra(?:ss|\u00df)e|str\.|weg|platz|gasse|allee)"
TOWN = rf"(?:,? \d{{4,5}} {LETTER}[\w-]+)?"

RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, flags))
    for kind, pattern, flags in (
        ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://\S+|\bwww\.\S+", 0),
        ("uid", r"\b[0-2](?:\.\d+){5,}\b", 0),
        (
            "date",
            rf"\b(?:{YEAR}([-./]){IN_YEAR}\1{DAY}"
            rf"|{DAY}([-./]){DAY}\2(?:{YEAR}|\d\d)"
            rf"|{YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
            rf"|(?:(?:{DAY}|{DAYTH})\.? (?:of )?)?{MONTH},? {YEAR}"
            rf"|{MONTH} (?:{DAYTH}|{DAY})(?:,? {YEAR})?|{DAYTH} (?:of )?{MONTH}"
            rf"|(?<=dated ){DAY}(?:[./]{IN_YEAR}|\.? {MONTH})|{IN_YEAR}[./]{YEAR}"
            rf")\b{NO_SIZE}",
            re.IGNORECASE,
        ),
        (
            "date",
            r"\b(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?\b(?: ?[ap]\.?m\b\.?| ?h\b)?",
            re.IGNORECASE,
        ),
        (
            "phone",
            rf"(?:{TELEPHONE}|\+|(?<!\w)\((?=\d{{3}}\)))\d[\d ()/.-]{{2,}}\d"
            r"|\b\d{3}[-.]\d{3}[-.]\d{4}\b"
            r"|\b0\d{2,4}[ /-]\d{3,4}(?:[ -]?\d{2,4}){1,2}\b",
            re.IGNORECASE,
        ),
        ("number", NUMBERED + CODE, re.IGNORECASE),
        (
            "number",
            r"\b(?:[A-Z]{1,6}[-_/]?)?\d{6,}(?:[-/]\d+)*\b|\b\d{3}-\d\d-\d{4}\b",
            0,
        ),
        (
            "name",
            rf"(?:{TITLE}|{LABELLED}|{SIGNED}){PERSON}"
            rf"|{PERSON},? (?:M\.?D\.?|FRCR|Ph\.?D\.?)(?!\w)",
            0,
        ),
        (
            "address",
            rf"\b\d{{1,5}}[a-z]? (?:[A-Z][\w.'-]+ ){{1,3}}{STREET}"
            rf"|\b{LETTER}[\w.-]*{STRASSE} \d{{1,4}}[a-z]?\b{TOWN}"
            r"|\b(?:[Aa]ddress ?:|[Ll]ives at|[Rr]esiding at) ?[^.;\n]+",
            0,
        ),
    )
)
"""What is taken out, in this order."""


@dataclass(frozen=True)
class Scrubbed:
    """A report without identifiers, and how many were taken out by their kind."""

    text: str = field(repr=False)
    removed: Counter[str]

    @property
    def numbers(self) -> dict[str, float]:
        """What the account of the study says of it."""
        return {f"scrubbed_{kind}": count for kind, count in self.removed.items()}


def scrub(text: str, identifiers: Collection[Identifier] = ()) -> Scrubbed:
    """Take out names, dates, numbers, phone numbers, e-mail and postal addresses.

    ``identifiers`` are those of the study's headers and of its row in the table, among
    them rare words of descriptions, which go where they are written with a capital; the
    rules find others by their form. Sizes, levels of the spine, stages and numbers of
    segments stay, and so does a year alone.
    """
    removed: Counter[str] = Counter()
    for kind, pattern in (*_known(identifiers), *RULES):
        text, count = pattern.subn(BLANK, text)
        removed[kind] += count
    return Scrubbed(text, +removed)


def _known(identifiers: Collection[Identifier]) -> list[tuple[str, re.Pattern[str]]]:
    """Return a pattern a kind of identifier; longer ones go before their parts."""
    patterns = []
    for kind in ("text", "uid", "date", "number", "name", "word"):
        texts = {each.text for each in identifiers if each.kind == kind}
        if not texts:
            continue
        choice = "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))
        # A name in a description has a capital in the report; most other words do not.
        start = f"(?={LETTER})" if kind == "word" else "(?i)"
        end = NO_SIZE if kind == "number" else ""
        pattern = rf"{start}(?<!\w)(?i:{choice})(?!\w){end}"
        patterns.append((kind, re.compile(pattern)))
    return patterns
