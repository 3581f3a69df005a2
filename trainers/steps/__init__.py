"""The steps of a run: a file for each kind, with what it needs, does, costs and reports."""

from trainers.steps.chain import steps_of
from trainers.steps.step import CONTROL, Step

__all__ = ["CONTROL", "Step", "steps_of"]
