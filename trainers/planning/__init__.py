"""What to do with these images, on this machine, in this time: a recipe, and why."""

from trainers.planning.plan import plan
from trainers.planning.wishes import DEFAULT_BUDGET, Plan, Wishes, check_weights, parse_budget

__all__ = ["DEFAULT_BUDGET", "Plan", "Wishes", "check_weights", "parse_budget", "plan"]
