"""Ablations: a grid of cells, each a recipe, run with paired seeds, and what they show.

`grid` is what a TOML file may say; `cells` are its recipes, resolved; `plan` gives the jobs of
a seed with the steps that they need; `running` does them; `statistics` and `findings` compare.
"""

from trainers.ablation.plan import Ablation
from trainers.ablation.running import ablate, plan

__all__ = ["Ablation", "ablate", "plan"]
