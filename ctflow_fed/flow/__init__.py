"""Flow matching: the path, the times, the loss and the solvers. Mathematics only."""

from ctflow_fed.flow.loss import flow_matching_loss
from ctflow_fed.flow.path import PathSample, straight_path
from ctflow_fed.flow.solver import SOLVERS, Velocity, euler, heun
from ctflow_fed.flow.times import logit_normal_times, shifted, time_grid

__all__ = [
    "SOLVERS",
    "PathSample",
    "Velocity",
    "euler",
    "flow_matching_loss",
    "heun",
    "logit_normal_times",
    "shifted",
    "straight_path",
    "time_grid",
]
