"""How the English of radiology names each of the 18 findings within one clause."""

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["FINDINGS", "RULES", "Rule"]


@dataclass(frozen=True)
class Rule:
    """What names a finding, and what in the same clause shows that it is another.

    ``stems`` are for speed: a clause without any of them cannot hold the mention.
    """

    stems: str
    mention: str
    unless: str = r"(?!)"  # matches nothing

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Both patterns, compiled."""
        return re.compile(self.mention), re.compile(self.unless)


PLAQUE = r"(?:calci|atherom|atheroscl|plaque)"
VESSEL = r"(?:aort(?!ic valve|opulm)|carotid|arterial|vascular|vessel)"
CORONARY = r"(?:coronar|\blad\b|left anterior descending|circumflex|\brca\b)"
ELSEWHERE = r"thyroid|adrenal|liver|hepat|spleen|kidney|renal|breast|bone|vertebra"
FAT = r"\bfat|plane|adipose|mediastin|tissue"
HEART = r"(?:\bheart\b|cardiothoracic|cardiac (?:size|silhouette|dimension)|\bctr\b)"

RULES: dict[str, Rule] = {
    "Medical material": Rule(
        "cathet stent pacemak prosthe sternotomy sutur nasogastric metal tube cannul "
        "electrode port icd clip screw wire fixat implant valve material picc drain "
        "hardware line device",
        r"catheter|\bstents?\b|pacemaker|prosthe|sternotomy|suture|nasogastric|metallic"
        r"|\b(?:tubes?|cannula|electrodes?|port|icd|clips?|screws?|wires?|picc)\b|fixat"
        r"|implant|valve replacement|(?:surgical|operation) material"
        r"|(?:chest|pleural|surgical|thorax) drain|hardware|(?:central|picc) line"
        r"|medical device",
        unless=r"suture compression|omental",
    ),
    "Arterial wall calcification": Rule(
        "calci ather plaque",
        rf"{VESSEL}.*{PLAQUE}|{PLAQUE}.*{VESSEL}|^(?!.*{CORONARY}).*athero",
    ),
    "Cardiomegaly": Rule(
        "cardi heart ctr",
        rf"cardiomegal|{HEART}.*(?:increas|enlarg|larger)|enlarged heart"
        rf"|(?:increas|enlarge)[^,]*{HEART}",
        unless=r"pericardial.*increas",
    ),
    "Pericardial effusion": Rule(
        "pericard", r"pericardi.*?(?:effusion|fluid)|(?:effusion|fluid).*pericardi"
    ),
    "Coronary artery wall calcification": Rule(
        "coronar lad descending circumflex rca",
        rf"{CORONARY}.*(?:{PLAQUE}|stent)|{PLAQUE}.*{CORONARY}",
    ),
    "Hiatal hernia": Rule("hiat hernia", r"hiatal|hiatus|diaphragmatic hernia"),
    "Lymphadenopathy": Rule(
        "lymph lap adenopath",
        r"adenopath|\blaps?\b|lymph node(?! station)",
        unless=r"(?:subpleural|intraparenchymal|intrapulmonary) lymph",
    ),
    "Emphysema": Rule(
        "emphysem bull bleb",
        r"(?<!subcutaneous )(?<!soft tissue )(?<!surgical )(?<!mediastinal )emphysem"
        r"|bullous|\bbulla|\bbleb",
    ),
    "Atelectasis": Rule("atelect", r"(?<!fibro)atelecta"),
    "Lung nodule": Rule(
        "nodul",
        r"nodules?\b|nodular (?:lesion|density|appearance|formation)",
        unless=rf"{ELSEWHERE}|lymph node|fibrotic nodul|mesenter|muscle|skin",
    ),
    "Lung opacity": Rule(
        "glass opaci densit",
        r"(?:ground|frosted).?glass(?! nodul)|opacit"
        rf"|^(?!.*(?:sequel|fibro|linear|{FAT})).*"
        r"(?:density increases?|increases? in density|increased density)",
        unless=rf"{ELSEWHERE}|micronodular",
    ),
    "Pulmonary fibrotic sequela": Rule(
        "sequel fibro scar pleuropar",
        r"sequel|fibrotic|fibrosis|\bscar|fibroatel|pleuroparenchymal",
        unless=rf"{ELSEWHERE}|fractur|\brib|lymph node",
    ),
    "Pleural effusion": Rule(
        "effusion pleural thora",
        r"(?<!pericardial )(?<!pericardial minimal )effusion|pleural fluid"
        r"|pleural(?: and| or|,|-) ?pericardi\w* effusion|hydro\w*thorax|hemothorax",
        unless=r"^(?!.*pleural).*pericardi|renal|kidney|abdom|hepat|joint",
    ),
    "Mosaic attenuation pattern": Rule("mosaic", r"mosaic"),
    "Peribronchial thickening": Rule(
        "bronch",
        r"peribronch\w*.{0,20}(?:thick|cuff)|bronch\w* wall.{0,30}thick"
        r"|thick.{0,30}(?:peribronch|bronch\w* wall)",
    ),
    "Consolidation": Rule("consolid", r"consolidat(?!.*previous)"),
    "Bronchiectasis": Rule(
        "bronc", r"bronch?iecta|bronch.*\b(?:dilat|ecta)|\b(?:dilat|ecta).*bronch"
    ),
    "Interlobular septal thickening": Rule(
        "sept",
        r"sept\w*.{0,40}(?:thick|clarif|promin)|thick.{0,30}\bsept|kerley",
        unless=r"(?:interventricular|nasal|atrial) sept",
    ),
}
"""The rules by finding, in the order of CT-RATE's label table."""

FINDINGS: tuple[str, ...] = tuple(RULES)
"""The findings in the order of CT-RATE's label table."""
