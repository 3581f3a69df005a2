"""The sections of a recipe: every key with its type, its range and what it means."""

from trainers.sections.data import Counts, Data
from trainers.sections.labels import Fusion, Label, Select
from trainers.sections.model import Also, How, Method, Model
from trainers.sections.noise import NOISE_PARTS, NoisePart, NoiseSection
from trainers.sections.pretraining import Pretrain
from trainers.sections.section import Fraction, Section
from trainers.sections.training import Finetune, Loss, Optimizer, Schedule, Train

__all__ = [
    "NOISE_PARTS",
    "Also",
    "Counts",
    "Data",
    "Finetune",
    "Fraction",
    "Fusion",
    "How",
    "Label",
    "Loss",
    "Method",
    "Model",
    "NoisePart",
    "NoiseSection",
    "Optimizer",
    "Pretrain",
    "Schedule",
    "Section",
    "Select",
    "Train",
]
