"""Words that tell nobody apart: those of this software, and of every CT department."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ctflow_fed.ct import labels

__all__ = ["ordinary_words", "own_words"]

PROTOCOLS = """
abdomen abdominal acquired acquisition adult ajout angio angiogram angiography anterior
aorta aortic apex arms arterial artery average averaged axial axiale axials baby
baseline biopsy block body bolus bone brain breast breath bronchi bronchoscopy calcium
cardiac cardio carotid cerebral cervical chest child children clinic clinical collar
collimation comparison contrast control coronal coronary covid craniocaudal cranium
diagnostic dicom dissection done dose dual early embolism embolus emergency enhanced
enhancement esophagus examination expiration expiratory extremity fast filtered fine
follow followup foot from gantry gated gating guided haute head heart helical helix
hepatic high highres hrct image images initial injected injection inspiration
inspiratory interlobar intervention intravenous iterative kernel kidney knochen late
lateral left legs lesion limb liver lobe lobes localizer lowdose lower lumbar lung lunge
lungen lungs lymphoma mass mediastinal mediastinum metastases metastasis minimum
monitoring mono multiphase multiplanar nasal nativ native neck neuro nodule nodules
noncontrast nonionic oblique oncology oral outside pancreas paranasal parenchyma patient
pelvic pelvis perfusion phantom phase phases pitch planning portal posterior postop
preop prep primary processing projection prone protocol pulmonal pulmonary queue
radiotherapy rapid recon reconstructed reformat reformation reformatted renal request
rescan research resolution retro right routine runoff sagittal sagittale scan scanned
scano scanogram scans scout screening sequence series sharp shoulder sinus skull slice
slices smart smooth soft spine spiral spleen stack staging standard stent stroke study
summary supine surveillance surview test thick thin thoracal thoracic thoraco thorakal
thorax throat tissue topo topogram torax trauma treatment triage tumor tumour ultra
unenhanced upper vascular vein venous ventral verify vessel view views volume volumes
volumetric ward weichteil whole window with without wrist
"""
"""What people and scanners write into descriptions and names of protocols."""


@cache
def own_words() -> frozenset[str]:
    """Return the words that a store may hold because this software writes them.

    Those of comments and docstrings are none; nor are the rules for names.
    """
    folder = Path(labels.__file__).parents[1]
    paths = [path for path in folder.rglob("*.py") if path.parent.name != "privacy"]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    written = " ".join(word for text in texts for word in _written(ast.parse(text)))
    return frozenset(re.findall(r"[^\W\d_]+", written.lower()))


def _written(code: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, and the names that may become keys of JSON."""
    nodes = list(ast.walk(code))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield text
            case ast.Name(id=name) | ast.arg(arg=name):
                yield name


@cache
def ordinary_words() -> frozenset[str]:
    """Return the words that tell nobody apart in a description of a scan."""
    return own_words() | frozenset(PROTOCOLS.split())
