"""Corruptions, sequences and attacks as `label_perturbed` takes them: by name and level."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from plstore.errors import InputError, MissingExtraError
from plstore.labels import PerturbationKind
from trainers.models.model import Bundle
from trainers.robustness.attacks import Attack, Normalised, attacked
from trainers.robustness.batches import check_known
from trainers.robustness.corruptions import KNOWN_CORRUPTIONS, check_severities, corrupted
from trainers.robustness.labeling import Ids, Made, Pixels
from trainers.robustness.opencv import opencv
from trainers.robustness.perturbations import perturbed
from trainers.robustness.published import CORRUPTIONS, PERTURBATIONS, SEVERITIES
from trainers.robustness.strengths import NUM_FRAMES, strengths_of

_MADE: Final = 1
"""Raised where the project's own code makes other pixels: labels of before are then others."""

Batches = Iterator[tuple[Ids, Pixels]]


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    """Corruptions by severity, see `trainers.robustness.corruptions`.

    Attributes:
        names: Of `KNOWN_CORRUPTIONS`; the 15 of mCE unless given.
        severities: 1 to 5.
        workers: Processes that make them.
        on_note: Told, once, where images are resized for it.
    """

    kind: ClassVar[PerturbationKind] = "corruption"
    names: Sequence[str] = CORRUPTIONS
    severities: Sequence[int] = SEVERITIES
    workers: int = 0
    on_note: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: If one is unknown, or a severity; the message lists the known.
        """
        check_known("corruption", self.names, KNOWN_CORRUPTIONS)
        check_severities(self.severities)

    def num_levels(self, name: str, size: int) -> int:  # noqa: ARG002  as others have them
        """Return the number of severities."""
        return len(self.severities)

    def identity(self, name: str) -> Mapping[str, Any]:  # noqa: ARG002  as others have it
        """Return severities, and the version of the library that makes them."""
        libraries = _versions("imagecorruptions-imaug", "Pillow")
        return {"severities": list(self.severities), "made": _MADE, **libraries}

    def made(self, batches: Batches, names: Sequence[str]) -> Iterator[Made]:
        """Yield images by severity."""
        is_told = False
        for found in corrupted(batches, names, self.severities, workers=self.workers):
            if found.was_resized and not is_told:
                self.on_note(
                    f"images of {found.pixels.shape[1]} pixels were resized to 32 for their "
                    "corruptions, and back: noise is weaker for it"
                )
                is_told = True
            yield Made(found.name, found.severity, found.sample_ids, found.pixels)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """P-style sequences, see `trainers.robustness.perturbations`.

    Attributes:
        names: Of `PERTURBATIONS`; all ten unless given.
        num_frames: Of each; as many as are published unless given.
        workers: Processes that make them.
    """

    kind: ClassVar[PerturbationKind] = "sequence"
    names: Sequence[str] = PERTURBATIONS
    num_frames: int | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: If one is unknown; the message lists the known.
        """
        check_known("perturbation", self.names, PERTURBATIONS)

    def num_levels(self, name: str, size: int) -> int:
        """Return the number of frames."""
        return self.num_frames or strengths_of(size).num_frames.get(name, NUM_FRAMES)

    def identity(self, name: str) -> Mapping[str, Any]:  # noqa: ARG002  as others have it
        """Return the number of frames."""
        return {"num_frames": self.num_frames, "made": _MADE, "opencv": opencv().__version__}

    def made(self, batches: Batches, names: Sequence[str]) -> Iterator[Made]:
        """Yield images frame by frame."""
        for found in perturbed(
            batches, names, num_frames=self.num_frames, workers=self.workers
        ):
            for frame in range(found.pixels.shape[1]):
                yield Made(found.name, frame, found.sample_ids, found.pixels[:, frame])


@dataclass(kw_only=True)
class Attacks:
    """Attacks on one model, see `trainers.robustness.attacks`: no other sees the same images.

    Attributes:
        attacks: What is done.
        bundle: Who is attacked.
        classes: True class by sample id.
        without_gradient: Counts, by name, images at which the model has no gradient: an attack
            does nothing to them, which is no robustness.
    """

    kind: ClassVar[PerturbationKind] = "attack"
    attacks: Sequence[Attack]
    bundle: Bundle
    classes: Mapping[int, int]
    without_gradient: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every attack has a name of its own.

        Raises:
            InputError: If two are of one kind and norm.
        """
        if len(set(self.names)) < len(self.names):
            raise InputError(
                f"attacks are {', '.join(self.names)}; wanted each kind and norm once. Ask the "
                "others in a call of its own"
            )

    @property
    def names(self) -> Sequence[str]:
        """Kind and norm, such as pgd_linf."""
        return [_name(attack) for attack in self.attacks]

    def num_levels(self, name: str, size: int) -> int:  # noqa: ARG002  as others have them
        """Return the number of epsilons."""
        return len(self._by_name[name].epsilons)

    def identity(self, name: str) -> Mapping[str, Any]:
        """Return the attack, and the version of the library that does it."""
        return {"attack": vars(self._by_name[name]), **_versions("foolbox")}

    def made(self, batches: Batches, names: Sequence[str]) -> Iterator[Made]:
        """Yield what the model says of each batch, attacked, by epsilon."""
        network = Normalised(_Ordered(self.bundle), *_ways(self.bundle))
        for ids, pixels in batches:
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            classes = torch.tensor([self.classes[int(i)] for i in ids])
            for name in names:
                found = attacked(network, images, classes, self._by_name[name])
                lost = int((~found.has_gradient).sum())
                self.without_gradient[name] = self.without_gradient.get(name, 0) + lost
                for epsilon, logits in found.logits.items():
                    probs = torch.softmax(logits.float(), dim=1).cpu().numpy()
                    yield Made(name, epsilon, ids, pixels, probs)

    @property
    def _by_name(self) -> Mapping[str, Attack]:
        return {_name(attack): attack for attack in self.attacks}


class _Ordered(nn.Module):
    """A network with its outputs in the order of the store's classes."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network = bundle.network
        self._order = bundle.order

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.network(images)
        return outputs if self._order is None else outputs[:, self._order]


def _versions(*packages: str) -> dict[str, str]:
    """Return versions of what images are made by.

    Raises:
        MissingExtraError: If one is not installed.
    """
    try:
        return {package: version(package) for package in packages}
    except PackageNotFoundError as error:
        raise MissingExtraError(
            error.name or packages[0], "robustness", "robustness"
        ) from error


def _name(attack: Attack) -> str:
    return f"{attack.kind}_{attack.norm}"


def _ways(bundle: Bundle) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return bundle.format.mean, bundle.format.std


LINF: Final = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
"""The epsilons of the paper's figure, 2 to 16 of 255 (Noisy Student, section 3.3)."""

ATTACKS: Final = {
    "fgsm": Attack(kind="fgsm", norm="linf", epsilons=LINF),
    "pgd": Attack(kind="pgd", norm="linf", epsilons=LINF),
    "pgd_l2": Attack(kind="pgd", norm="l2", epsilons=(0.25, 0.5, 1.0, 2.0)),
}
"""What `plstore evaluate --attacks` names."""
