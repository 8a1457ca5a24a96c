"""Flow matching: the path, the times, the loss and the solvers. Mathematics only."""

from ctflow_fed.flow.guidance import guided_velocity
from ctflow_fed.flow.loss import flow_matching_loss
from ctflow_fed.flow.path import PathSample, straight_path
from ctflow_fed.flow.solver import SOLVERS, Velocity, ab2, euler, heun
from ctflow_fed.flow.times import logit_normal_times, shift_for, shifted, time_grid

__all__ = [
    "SOLVERS",
    "PathSample",
    "Velocity",
    "ab2",
    "euler",
    "flow_matching_loss",
    "guided_velocity",
    "heun",
    "logit_normal_times",
    "shift_for",
    "shifted",
    "straight_path",
    "time_grid",
]
