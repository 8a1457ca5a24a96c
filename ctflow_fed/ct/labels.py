"""The 18 findings of CT-RATE, and a reader that finds them in a report."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = ["FINDINGS", "labels_of"]

FINDINGS: tuple[str, ...] = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
"""The findings in the order of CT-RATE's label table."""


@dataclass(frozen=True)
class Rule:
    """What names a finding, and what in the same clause shows that it is another."""

    mention: str
    unless: str = r"(?!)"  # matches nothing

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Both patterns, compiled."""
        return re.compile(self.mention), re.compile(self.unless)


PLAQUE = r"(?:calci|atherom|atheroscl|plaque)"
VESSEL = r"(?:aort(?!ic valve|opulm)|carotid|arterial|vascular|vessel)"
ELSEWHERE = r"thyroid|adrenal|liver|hepat|spleen|kidney|renal|breast|bone|vertebra"
FAT = r"\bfat|plane|adipose|mediastin|tissue"

RULES: dict[str, Rule] = {
    "Medical material": Rule(
        r"catheter|\bstents?\b|pacemaker|prosthe|sternotomy|suture|nasogastric|metallic"
        r"|\b(?:tubes?|cannula|electrodes?|port|icd|clips?|screws?|wires?)\b|fixat"
        r"|implant|valve replacement|(?:surgical|operation) material",
        unless=r"suture compression|omental",
    ),
    "Arterial wall calcification": Rule(
        rf"{VESSEL}.*{PLAQUE}|{PLAQUE}.*{VESSEL}|^(?!.*coronar).*athero"
    ),
    "Cardiomegaly": Rule(
        r"cardiomegal|(?:heart|cardi).*(?:increas|enlarg|larger)|enlarged heart",
        unless=r"pericardial.*increas",
    ),
    "Pericardial effusion": Rule(
        r"pericardi.*?(?:effusion|fluid)|(?:effusion|fluid).*pericardi"
    ),
    "Coronary artery wall calcification": Rule(
        rf"coronar.*(?:{PLAQUE}|stent)|{PLAQUE}.*(?:coronar|\blad\b)"
    ),
    "Hiatal hernia": Rule(r"hiatal|hiatus|diaphragmatic hernia"),
    "Lymphadenopathy": Rule(
        r"lymphadenopath|\blaps?\b|lymph node",
        unless=r"(?:subpleural|intraparenchymal|intrapulmonary) lymph",
    ),
    "Emphysema": Rule(r"emphysem|bullous|\bbulla|\bbleb"),
    "Atelectasis": Rule(r"(?<!fibro)atelecta"),
    "Lung nodule": Rule(
        r"nodules?\b|nodular (?:lesion|density|appearance|formation)",
        unless=rf"{ELSEWHERE}|lymph node|fibrotic nodul|mesenter|muscle|skin",
    ),
    "Lung opacity": Rule(
        r"ground.?glass|frosted.glass|opacit|density increases?|increases? in density",
        unless=rf"{ELSEWHERE}|{FAT}|micronodular"
        r"|(?:sequel|fibro|linear).*densit|densit.*(?:sequel|fibro)",
    ),
    "Pulmonary fibrotic sequela": Rule(
        r"sequel|fibrotic|\bscar|fibroatel|pleuroparenchymal",
        unless=rf"{ELSEWHERE}|fractur|\brib|lymph node",
    ),
    "Pleural effusion": Rule(
        r"(?<!pericardial )(?<!pericardial minimal )effusion|pleural fluid"
        r"|pleural(?: and| or|,|-) ?pericardi\w* effusion|hydro\w*thorax|hemothorax",
        unless=r"^(?!.*pleural).*pericardi|renal|kidney|abdom|hepat|joint",
    ),
    "Mosaic attenuation pattern": Rule(r"mosaic"),
    "Peribronchial thickening": Rule(
        r"peribronch\w*.{0,20}(?:thick|cuff)|bronch\w* wall.{0,30}thick"
        r"|thick.{0,30}(?:peribronch|bronch\w* wall)"
    ),
    "Consolidation": Rule(r"consolidat(?!.*previous)"),
    "Bronchiectasis": Rule(r"bronch?iecta|bronch.*\bdilat|\bdilat.*bronch"),
    "Interlobular septal thickening": Rule(
        r"sept\w*.{0,40}(?:thick|clarif|promin)|thick.{0,30}\bsept"
    ),
}
"""How the English of CT-RATE names each finding within one clause."""

SENTENCE_END = re.compile(r"[.?!](?:\s|$)|[;:\"\n•]+")

CLAUSE_END = re.compile(
    r"\b(?:but|however|although|except|while|whereas)\b|,(?= an? )|,(?= there )"
)

STATED = re.compile(
    r"\b(?:is|are|was|were) (?:also )?(?:observed|detected|seen|present|found|noted)\b"
    r"|\bthere (?:is|are|was|were)\b(?! no)|\b(?:is|are) normal and"
)
"""What ends the reach of a negation: no X is observed, Y ..."""

DENIED_BEFORE = re.compile(
    r"\b(?:no(?! significant (?:change|difference))|without|neither|nor"
    r"|absence of|free of)\b"
)

DENIED_AFTER = re.compile(
    r"\bnot (?:been )?(?:observed|detected|seen|found|present|noted|distinguished"
    r"|evaluated|enlarged|increased|thickened|dilated)\b"
    r"|\b(?:absent|none|disappeared)\b|- ?no thickening"
)


def labels_of(report: str) -> dict[str, int]:
    """Read which findings a report states: 1 for each that it does, 0 for the others.

    A finding is stated by a clause that mentions it and does not deny it. Written for
    English reports in the manner of CT-RATE; nothing is understood, so treat the labels
    as what they are where a report was dictated in another manner.
    """
    labels = dict.fromkeys(FINDINGS, 0)
    for clause in _clauses(report):
        for finding, rule in RULES.items():
            if not labels[finding] and _states(clause, rule):
                labels[finding] = 1
    return labels


def _clauses(report: str) -> Iterator[str]:
    for sentence in SENTENCE_END.split(report.lower()):
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
    return bool(DENIED_BEFORE.search(before) or DENIED_AFTER.search(after))
