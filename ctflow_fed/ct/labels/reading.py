"""Reads a report clause by clause: what is mentioned, and what of that is denied."""

import re
from collections.abc import Iterator

from ctflow_fed.ct.labels.rules import FINDINGS, RULES, Rule

__all__ = ["labels_of", "mentioned_in"]

UNREAD = re.compile(
    r"(?:^|(?<=[.\n\"]))[ \t]*"
    r"(?:clinical (?:information|history|indications?|data|details|context|question)"
    r"|indications?|(?:medical |patient )?history|reason for (?:exam\w*|study|request)"
    r"|(?:ct |examination |scan(?:ning)? )?(?:technique|protocol|procedure)"
    r"|comparisons?|prior (?:studies|exams?)|recommendations?)\s*:\s*"
    r"(?:.{,800}?(?=\n\s*\n|\n[ \t]*[a-z][a-z /&]{2,40}:"
    r"|[.\n\"][ \t]*(?:findings?|impressions?|conclusions?|results?|opinion|summary"
    r"|report|interpretation)\s*:)|[^.\n]*)",
    re.DOTALL,
)
"""A section that tells why and how the scan was made, not what is on it.

It ends at the next heading or blank line; without either, at the end of its sentence.
"""

SENTENCE_END = re.compile(r"[.?!](?:\s|$)|[;\"\n•]+|:(?=\s*[a-z][a-z ]+ (?:is|are)\b)")

CLAUSE_END = re.compile(
    r"\b(?:but|however|although|except|while|whereas|otherwise)\b"
    r"|,(?= (?:an?|there|few|several|multiple|mild|minimal|moderate|scattered|stable)"
    r"\b)"
)

BEFORE = r"(?! (?:in|on|at) (?:the |an? |his |her )?(?:previous|prior|earlier|old)\b)"

STATED = re.compile(
    r"\b(?:is|are|was|were) (?:also )?"
    rf"(?:observed|detected|seen|present|found|noted)\b{BEFORE}"
    r"|\bthere (?:is|are|was|were)\b(?! no)|\b(?:is|are) normal and"
)
"""What ends the reach of a negation: no X is observed, Y ..."""

UNCHANGED = (
    r"(?! (?:(?:significant|obvious|relevant|apparent|interval) )*"
    r"(?:changes?|differences?|increase|decrease|progression|regression)\b)"
)

DENIED_BEFORE = re.compile(
    rf"\b(?:no{UNCHANGED}|without{UNCHANGED}|neither|nor|absence of|free of|lack of"
    r"|negative for|history of|(?:resolution|disappearance) of"
    r"|(?:to )?(?:exclude|rule out))\b"
    r"|^\W*(?:interval )?resolved\b"
)

DENIED_AFTER = re.compile(
    r"\bnot (?:been )?(?:(?:observed|detected|seen|found|present|noted|distinguished"
    rf"|evaluated|identified|visualized)\b{BEFORE}"
    r"|(?:enlarged|increased|thickened|dilated)\b(?! in (?:size|number)))"
    r"|\b(?:absent|none|disappeared|resolved|no longer|unlikely|removed)\b"
    r"|(?<!be )(?<!not )\b(?:excluded|ruled out)\b|- ?no thickening"
    r"|\b(?:full|complete) (?:regression|resolution)|completely regressed"
    r"|: ?(?:no|none|nil|normal|negative|clear|unremarkable)\b"
)

NORMAL = re.compile(
    r"[^,]*\b(?:is|are|was|were|appears?) (?:of )?(?:normal|natural|unremarkable)\b"
)
"""What follows a mention of something that is as it should be."""

PAST = re.compile(
    r"^\W*in (?:the|his|her|a) (?:previous|prior)\b(?!.*\b(?:current|this|now|compar))"
)
"""A sentence about an earlier scan alone."""

STEMS = [
    (stem, finding) for finding in FINDINGS for stem in RULES[finding].stems.split()
]


def labels_of(report: str) -> dict[str, int]:
    """Read which findings a report states: 1 for each that it does, 0 for the others.

    A finding is stated by a clause that mentions it and does not deny it; one that is
    called possible counts as stated, one that was there before or is gone does not.
    Sections on the indication, the technique and earlier scans are not read. Written
    for English reports, measured on those of CT-RATE (README.md beside this file).
    """
    text = report.lower()
    if ":" in text:  # else there is no heading
        text = UNREAD.sub("\n", text)
    stems = [(stem, finding) for stem, finding in STEMS if stem in text]
    labels = dict.fromkeys(FINDINGS, 0)
    for clause in _clauses(text):
        for finding in {finding for stem, finding in stems if stem in clause}:
            if not labels[finding] and _states(clause, RULES[finding]):
                labels[finding] = 1
    return labels


def mentioned_in(sentence: str) -> tuple[str, ...]:
    """Return the findings that a sentence speaks of, stated or denied, in order."""
    text = sentence.lower()
    return tuple(name for name in FINDINGS if RULES[name].patterns[0].search(text))


def _clauses(text: str) -> Iterator[str]:
    for sentence in SENTENCE_END.split(text):
        if not PAST.match(sentence):
            yield from CLAUSE_END.split(sentence)


def _states(clause: str, rule: Rule) -> bool:
    mention, unless = rule.patterns
    mentions = [match.span() for match in mention.finditer(clause)]
    if not mentions or unless.search(clause):
        return False
    return not all(_is_denied(clause, *span) for span in mentions)


def _is_denied(clause: str, start: int, end: int) -> bool:
    """Whether a negation reaches the words from ``start`` to ``end``."""
    before = STATED.split(clause[:start])[-1] + clause[start:end]
    after = clause[start:end] + STATED.split(clause[end:])[0]
    denials = (DENIED_BEFORE.search(before), DENIED_AFTER.search(after))
    return any(denials) or NORMAL.match(clause, end) is not None
