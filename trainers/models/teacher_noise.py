"""A teacher that is noised while it labels: the ablation, for the paper's teacher is not.

Noisy Student's table 6 shows that it costs accuracy. What an image gets follows from the seed
and its sample id alone; what the model drops, from the seed and the first image of a batch.
"""

from dataclasses import dataclass, replace

import torch
from timm.layers import DropPath
from torch import nn

from plstore.errors import InputError
from plstore.loaders.clean import ImageNoise
from plstore.loaders.noise import INPUT_PARTS
from plstore.seeds import Purpose, torch_seed
from trainers.models.model import Bundle, build_model
from trainers.models.roles import dropout_as_module
from trainers.models.starting import take_weights
from trainers.sections import Model, NoisePart, NoiseSection


@dataclass(frozen=True, kw_only=True)
class TeacherNoise:
    """Noise of a teacher that labels.

    Attributes:
        noise: Of inputs, and its `teacher`: which parts.
        model: The teacher's own section, with its dropout and stochastic depth.
        seed: Of the run.
    """

    noise: NoiseSection
    model: Model
    seed: int

    @property
    def parts(self) -> tuple[NoisePart, ...]:
        """Which parts it has."""
        return tuple(self.noise.teacher)

    @property
    def of_images(self) -> ImageNoise:
        """What images get."""
        parts = tuple(part for part in INPUT_PARTS if part in self.parts)
        return ImageNoise(noise=self.noise.as_noise(), parts=parts, seed=self.seed)

    def on(self, bundle: Bundle, device: str) -> Bundle:
        """Return a teacher whose model drops what it is to drop; the rest of it is evaluated.

        Raises:
            InputError: If it is a probe, whose labels are of embeddings, or another model than
                the section says.
        """
        if bundle.embeddings is not None:
            raise InputError(
                f"the teacher of {bundle.folder} is a probe, which labels by embeddings of "
                "clean images; noise.teacher is for one that is trained (method.teacher "
                "scratch or finetune)"
            )
        if not {"dropout", "stochastic_depth"} & set(self.parts):
            return bundle
        model = self.model.model_copy(update={"pretrained": False, "weights": None})
        network = build_model(model, model.architecture, len(bundle.output_names))
        take_weights(network, bundle.folder, bundle.output_names)
        return replace(bundle, network=_dropping(network.to(device), self.parts))


def _dropping(network: nn.Module, parts: tuple[NoisePart, ...]) -> nn.Module:
    dropout_as_module(network)
    network.eval()
    for part, kind in (("dropout", nn.Dropout), ("stochastic_depth", DropPath)):
        for module in network.modules():
            if isinstance(module, kind):
                module.train(part in parts)
    return network


def seed_model_noise(seed: int, first_sample: int) -> None:
    """Seed what a model drops of a batch, by its first image."""
    torch.manual_seed(torch_seed(seed, Purpose.TEACHER_NOISE, first_sample))
