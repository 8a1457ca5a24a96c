"""The sentences of phantom reports, several for everything that can be said."""

__all__ = ["ABSENT", "CLOSING", "IMPRESSIONS", "NORMAL", "OPENING", "PRESENT"]

OPENING: dict[str, tuple[str, ...]] = {
    "plain": (
        "Trachea and both main bronchi are patent on this non-contrast examination.",
        "Non-contrast thoracic CT. The central airways are open.",
        "The examination was made without contrast; trachea and main bronchi are open.",
    ),
    "contrast": (
        "Trachea and both main bronchi are patent on this "
        "contrast-enhanced examination.",
        "Contrast-enhanced thoracic CT. The central airways are open.",
        "After intravenous contrast, the mediastinal vessels are evenly filled.",
    ),
    "lungs": (
        "In the lung parenchyma window:",
        "On evaluation of both lungs:",
        "When the lung window is examined:",
    ),
}

CLOSING: tuple[str, ...] = (
    "The upper abdominal organs in the sections are unremarkable. No "
    "lytic lesion is seen in the bones.",
    "Upper abdominal sections are natural. Vertebral heights are preserved.",
    "No space-occupying lesion is seen in the liver. Bone structures are intact.",
)

NORMAL: tuple[str, ...] = (
    "Thoracic CT within normal limits.",
    "No acute pathology in the thorax.",
    "Normal thoracic CT.",
)

PRESENT: dict[str, tuple[str, ...]] = {
    "Medical material: pacemaker": (
        "A cardiac pacemaker is seen in the left chest wall, with its "
        "lead ending in the right ventricle.",
        "There is a pacemaker under the left clavicle; its electrode "
        "reaches the right ventricle.",
    ),
    "Medical material: port": (
        "A port catheter enters from the right chest wall and ends in "
        "the superior vena cava.",
        "There is a port on the right; the tip of its catheter lies in "
        "the superior vena cava.",
    ),
    "Medical material: sternal wires": (
        "Metallic sternotomy wires are seen in the sternum.",
        "There are sternal wire sutures after a median sternotomy.",
    ),
    "Arterial wall calcification: arch": (
        "Calcified atheroma plaques are observed in the wall of the aortic arch.",
        "There are wall calcifications in the arch of the aorta.",
    ),
    "Arterial wall calcification: descending": (
        "Calcified atheroma plaques are observed in the wall of the descending aorta.",
        "There are wall calcifications in the descending thoracic aorta.",
    ),
    "Cardiomegaly": (
        "The heart is enlarged; the cardiothoracic ratio is increased.",
        "Heart size is increased (cardiomegaly).",
    ),
    "Pericardial effusion": (
        "A pericardial effusion of {mm} mm at its thickest is observed.",
        "Fluid reaching {mm} mm is seen in the pericardial space "
        "(pericardial effusion).",
    ),
    "Coronary artery wall calcification: left": (
        "Calcified plaques are seen in the wall of the left coronary artery.",
        "There are coronary artery calcifications along the left "
        "anterior descending branch.",
    ),
    "Coronary artery wall calcification: left and right": (
        "Calcified plaques are seen in the walls of the left and right "
        "coronary arteries.",
        "There are coronary artery calcifications on the left and on the right.",
    ),
    "Hiatal hernia": (
        "A hiatal hernia of {mm} mm is observed behind the heart.",
        "The stomach herniates through the oesophageal hiatus; the "
        "hiatal hernia measures {mm} mm.",
    ),
    "Lymphadenopathy: paratracheal": (
        "An enlarged right paratracheal lymph node of {mm} mm is observed.",
        "There is right paratracheal lymphadenopathy, the largest node "
        "measuring {mm} mm.",
    ),
    "Lymphadenopathy: subcarinal": (
        "An enlarged subcarinal lymph node of {mm} mm is observed.",
        "There is subcarinal lymphadenopathy, the largest node measuring {mm} mm.",
    ),
    "Lymphadenopathy: hilar": (
        "An enlarged right hilar lymph node of {mm} mm is observed.",
        "There is right hilar lymphadenopathy, the largest node measuring {mm} mm.",
    ),
    "Emphysema": (
        "Emphysematous areas are seen in both lungs, most prominent in "
        "the upper lobes.",
        "There is centriacinar emphysema, mainly in the upper lobes of both lungs.",
    ),
    "Atelectasis": (
        "Linear atelectasis is seen in {lobe}, {mm} mm long.",
        "There is a plate-like atelectasis of {mm} mm in {lobe}.",
    ),
    "Lung nodule": (
        "A solid nodule of {mm} mm is observed in {lobe}.",
        "There is a {mm} mm pulmonary nodule in {lobe}.",
        "In {lobe} a nodule {mm} mm in diameter is seen.",
    ),
    "Lung opacity": (
        "A ground-glass opacity of {mm} mm is observed in {lobe}.",
        "There is ground glass density over {mm} mm in {lobe}.",
    ),
    "Pulmonary fibrotic sequela": (
        "Fibrotic sequela bands with volume loss are seen at the apex of {lung}.",
        "Pleuroparenchymal sequela changes are observed in the apex of {lung}.",
    ),
    "Pleural effusion": (
        "{pleural} measuring {mm} mm at the thickest point {are} observed.",
        "Free pleural effusion reaching {mm} mm is seen on {sides}.",
    ),
    "Mosaic attenuation pattern": (
        "A mosaic attenuation pattern is observed in both lungs.",
        "Both lungs show mosaic attenuation with patchy areas of lower density.",
    ),
    "Peribronchial thickening": (
        "The bronchial walls are thickened in both lungs (peribronchial thickening).",
        "Diffuse peribronchial thickening is seen in both lungs.",
    ),
    "Consolidation": (
        "A consolidation of {mm} mm with air bronchograms is seen in {lobe}.",
        "There is consolidation in {lobe}, {mm} mm wide, with air bronchograms.",
    ),
    "Bronchiectasis": (
        "Bronchiectasis reaching {mm} mm in calibre is observed in {lobe}.",
        "There are dilated bronchi (bronchiectasis) of up to {mm} mm in {lobe}.",
    ),
    "Interlobular septal thickening": (
        "Interlobular septal thickening is observed in the lower lobes of both lungs.",
        "The interlobular septa are thickened in both lungs, most at the bases.",
    ),
}
"""How a finding is told; ``NAME: KIND`` goes before ``NAME``."""

ABSENT: dict[str, tuple[str, ...]] = {
    "Medical material": (
        "No medical device is seen.",
        "No catheter or implant is observed.",
    ),
    "Arterial wall calcification": (
        "No calcification is seen in the wall of the aorta.",
        "Thoracic aorta is of normal calibre without wall calcification.",
    ),
    "Cardiomegaly": (
        "Heart contour and size are normal.",
        "The heart is not enlarged.",
    ),
    "Pericardial effusion": (
        "Pericardial effusion was not observed.",
        "No pericardial effusion or thickening is seen.",
    ),
    "Coronary artery wall calcification": (
        "No coronary artery calcification is seen.",
        "The coronary arteries are without calcified plaques.",
    ),
    "Hiatal hernia": (
        "No hiatal hernia is seen.",
        "The oesophagus is of normal calibre; hiatal hernia was not observed.",
    ),
    "Lymphadenopathy": (
        "No enlarged lymph nodes were detected in the mediastinum or the hila.",
        "There is no mediastinal or hilar lymphadenopathy.",
    ),
    "Emphysema": (
        "No emphysema is seen.",
        "Emphysema was not observed.",
    ),
    "Atelectasis": (
        "No atelectasis is seen.",
        "Atelectasis was not observed.",
    ),
    "Lung nodule": (
        "No nodule is detected in either lung.",
        "No nodular lesion was detected in the lung parenchyma.",
    ),
    "Lung opacity": (
        "No ground-glass opacity is seen.",
        "There is no ground glass density.",
    ),
    "Pulmonary fibrotic sequela": (
        "No fibrotic sequela is seen.",
        "Sequela changes were not observed.",
    ),
    "Pleural effusion": (
        "Pleural effusion was not detected.",
        "No pleural effusion is seen on either side.",
    ),
    "Mosaic attenuation pattern": (
        "There is no mosaic attenuation.",
        "No mosaic attenuation pattern is seen.",
    ),
    "Peribronchial thickening": (
        "No peribronchial thickening is seen.",
        "Peribronchial thickening was not observed.",
    ),
    "Consolidation": (
        "No consolidation is seen.",
        "There is no consolidation.",
    ),
    "Bronchiectasis": (
        "No bronchiectasis is seen.",
        "Bronchiectasis was not observed.",
    ),
    "Interlobular septal thickening": (
        "No interlobular septal thickening is seen.",
        "Interlobular septal thickening was not observed.",
    ),
}
"""How it is told that a finding is not there."""

IMPRESSIONS: dict[str, tuple[str, ...]] = {
    "Medical material: pacemaker": ("Cardiac pacemaker.", "Pacemaker in place."),
    "Medical material: port": (
        "Port catheter on the right.",
        "Right port catheter in place.",
    ),
    "Medical material: sternal wires": (
        "Sternotomy wires.",
        "Status after sternotomy with sternal wires.",
    ),
    "Arterial wall calcification": (
        "Aortic wall calcification.",
        "Calcified atherosclerosis of the aorta.",
    ),
    "Cardiomegaly": ("Cardiomegaly.", "Enlarged heart."),
    "Pericardial effusion": (
        "Pericardial effusion of {mm} mm.",
        "Pericardial effusion.",
    ),
    "Coronary artery wall calcification": (
        "Coronary artery calcification.",
        "Calcified coronary plaques.",
    ),
    "Hiatal hernia": ("Hiatal hernia.", "Hiatal hernia of {mm} mm."),
    "Lymphadenopathy": (
        "{kind} lymphadenopathy.",
        "Enlarged {kind} lymph node ({mm} mm).",
    ),
    "Emphysema": ("Emphysema in both lungs.", "Emphysema, mainly of the upper lobes."),
    "Atelectasis": ("Linear atelectasis in {lobe}.", "Atelectasis in {lobe}."),
    "Lung nodule": (
        "{mm} mm nodule in {lobe}.",
        "Pulmonary nodule in {lobe}, {mm} mm.",
    ),
    "Lung opacity": (
        "Ground-glass opacity in {lobe}.",
        "Ground glass density in {lobe}, possibly infectious.",
    ),
    "Pulmonary fibrotic sequela": (
        "Apical fibrotic sequela in {lung}.",
        "Sequela changes at the apex of {lung}.",
    ),
    "Pleural effusion": ("{pleural}.", "{pleural} of {mm} mm."),
    "Mosaic attenuation pattern": (
        "Mosaic attenuation pattern in both lungs.",
        "Mosaic attenuation (small airway disease?).",
    ),
    "Peribronchial thickening": (
        "Peribronchial thickening.",
        "Peribronchial thickening in both lungs.",
    ),
    "Consolidation": (
        "Consolidation in {lobe} (pneumonia?).",
        "Pneumonic consolidation of {lobe}.",
    ),
    "Bronchiectasis": (
        "Bronchiectasis in {lobe}.",
        "Bronchiectatic changes in {lobe}.",
    ),
    "Interlobular septal thickening": (
        "Interlobular septal thickening.",
        "Interlobular septal thickening at both bases.",
    ),
}
"""How a finding stands in the impression."""
