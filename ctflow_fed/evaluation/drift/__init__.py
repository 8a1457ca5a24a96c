"""Do volumes stay right from the first slice to the last, by anybody's generator?"""

from ctflow_fed.evaluation.drift.measure import Drawn, measure_drift
from ctflow_fed.evaluation.drift.modes import ModeSettings, draw_modes, prompts_of

__all__ = ["Drawn", "ModeSettings", "draw_modes", "measure_drift", "prompts_of"]
