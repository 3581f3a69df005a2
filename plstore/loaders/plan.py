"""Which images, in which batch, with which noise: a function of (seed, step) alone.

Labeled and pseudo-labeled images are two endless streams. A batch of all ranks takes the next
draws of both; a rank takes its slice of each. What a draw looks like follows from its number in
its stream: so a batch is the same for any number of ranks and threads and after any resume.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.loaders.noise import INPUT_PARTS, Gets, InputPart, Noise, NoiseDraw, draw_noise
from plstore.loaders.settings import check_choice, check_whole
from plstore.loaders.sources import Samples, Source
from plstore.loaders.work import ImageFormat
from plstore.seeds import Purpose, uniforms

Rows = npt.NDArray[np.int64]
_VERSION: Final = 3  # of how steps become samples and numbers: a changed rule is another plan


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of each batch a process takes.

    Attributes:
        rank: Of the process, from 0.
        world_size: Processes.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: If the rank is not one of the world's.
        """
        check_whole("world_size", self.world_size, low=1)
        check_whole("rank", self.rank, low=0, high=self.world_size - 1)

    def of(self, batch: int) -> range:
        """Return the slots of a batch of all ranks that are this rank's."""
        mine = batch // self.world_size
        return range(self.rank * mine, (self.rank + 1) * mine)


class Plan:
    """The batches of one training run."""

    def __init__(  # noqa: PLR0913  one keyword per part
        self,
        source: Source,
        *,
        labeled_batch: int,
        pseudo_batch: int,
        noise: Noise,
        size: int,
        seed: int,
        share: Share | None = None,
        labeled_noise: Sequence[InputPart] = INPUT_PARTS,
        pseudo_noise: Sequence[InputPart] = INPUT_PARTS,
        crop_pct: float = 1.0,
    ) -> None:
        """Deal out a view.

        Args:
            source: The view's rows.
            labeled_batch: Labeled images a step, of all ranks together; 0 for pseudo-labels
                alone.
            pseudo_batch: Pseudo-labeled images a step, of all ranks; 0 for labels alone.
            noise: Input noise.
            size: Pixels a side of the model's input.
            seed: Of the run.
            share: This rank's part.
            labeled_noise: Parts of the noise that labeled images get.
            pseudo_noise: Parts that pseudo-labeled images get.
            crop_pct: Of the clean crop that images without "crop" have.

        Raises:
            InputError: If a stream has no image to draw, or the ranks cannot share a batch.
        """
        check_whole("pseudo_batch", pseudo_batch, low=0)
        check_whole("labeled_batch", labeled_batch, low=0 if pseudo_batch else 1)
        for name, parts in (("labeled", labeled_noise), ("pseudo", pseudo_noise)):
            for part in parts:
                check_choice(f"{name}_noise", part, INPUT_PARTS)
        check_whole("seed", seed, low=0)
        self.labeled_batch = labeled_batch
        self.pseudo_batch = pseudo_batch
        self.share = share or Share()
        self.seed = seed
        self.source, self.noise_spec, self._size = source, noise, size
        self._parts = (tuple(labeled_noise), tuple(pseudo_noise))
        self._crop_pct = crop_pct
        for name, there, wanted in (
            ("labeled", source.num_labeled, labeled_batch),
            ("pseudo-labeled", source.num_pseudo, pseudo_batch),
        ):
            if wanted and not there:
                raise InputError(
                    f"the view has no {name} images and {wanted} a step are asked for; if its "
                    "selection kept none, train the teacher longer or lower the confidence "
                    "floor (select.min_confidence of a recipe)"
                )
            if wanted % self.share.world_size:
                raise InputError(
                    f"{wanted} {name} images a step cannot be shared by "
                    f"{self.share.world_size} ranks; wanted a multiple"
                )
        self._streams = [
            (pseudo, batch, source.stream(pseudo=pseudo, batch=batch, seed=seed))
            for pseudo, batch in ((False, labeled_batch), (True, pseudo_batch))
            if batch
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every labeled image is drawn once, rounded up (Noisy Student, 3.1).

        Of a batch without any, those of one pass over the pseudo-labeled draws.
        """
        if not self.labeled_batch:
            return self.steps_per_pass
        return -(-self.source.num_labeled // self.labeled_batch)

    @property
    def steps_per_pass(self) -> int:
        """Steps in which every draw of either stream is made once, rounded up."""
        return max(-(-s.draws_per_pass // batch) for _, batch, s in self._streams)

    @property
    def batch_size(self) -> int:
        """Images a step of this rank."""
        return (self.labeled_batch + self.pseudo_batch) // self.share.world_size

    @property
    def num_labeled(self) -> int:
        """Labeled images a step of this rank: the first ones."""
        return self.labeled_batch // self.share.world_size

    def hash(self, shuffle: str, window: int, image_format: ImageFormat) -> str:
        """Return the identity of the rule by which steps become batches, but for the seed."""
        what = {
            "version": _VERSION,
            "labeled_batch": self.labeled_batch,
            "pseudo_batch": self.pseudo_batch,
            "noise": self.noise_spec.as_dict(),
            "format": asdict(image_format),
            "shuffle": shuffle,
            "window": window if shuffle == "windowed" else 0,
        }
        parts = [sorted(parts) for parts in self._parts]
        return value_hash(what if self._gets_all else {**what, "parts": parts})

    @property
    def _gets_all(self) -> bool:
        return all(set(parts) == set(INPUT_PARTS) for parts in self._parts)

    def rows(self, step: int, ahead: int = 0) -> Rows:
        """Return this rank's rows of a step: labeled ones, then pseudo-labeled ones.

        Args:
            step: 0 or more.
            ahead: The draws of so many batches later, in the same slots: what takes the place
                of a damaged image.
        """
        taken = []
        for _, batch, stream in self._streams:
            slots = self.share.of(batch)
            taken.append(stream.take((step + ahead) * batch + slots.start, len(slots)))
        return np.concatenate(taken)

    def first_pseudo_draw(self, step: int) -> int:
        """Return the number of this rank's first pseudo-labeled draw of a step, in its stream.

        The draws of the step's further pseudo-labeled slots follow it.
        """
        return step * self.pseudo_batch + self.share.of(self.pseudo_batch).start

    def blocks(self, step: int) -> set[int]:
        """Return the blocks that a step needs, and those that come next."""
        near: set[int] = set()
        for _, batch, stream in self._streams:
            near |= stream.blocks_near(step * batch, batch)
        return near

    def noise(self, step: int, samples: Samples) -> NoiseDraw:
        """Return the noise of a step's samples: that of their slots, whatever is there."""
        numbers = [
            uniforms(
                self.seed,
                Purpose.AUGMENTATION,
                int(pseudo),
                first=step * batch + self.share.of(batch).start,
                count=len(self.share.of(batch)),
                width=self.noise_spec.num_uniforms,
            )
            for pseudo, batch, _ in self._streams
        ]
        return draw_noise(
            self.noise_spec,
            widths=samples.widths,
            heights=samples.heights,
            size=self._size,
            uniforms=np.concatenate(numbers),
            gets=self._gets(),
        )

    def _gets(self) -> Gets | None:
        """Return which slots get which parts, None where all get all."""
        if self._gets_all:
            return None
        labeled, pseudo = self._parts
        counts = [self.num_labeled, self.batch_size - self.num_labeled]

        def gets(part: InputPart) -> npt.NDArray[np.bool_]:
            return np.repeat([part in labeled, part in pseudo], counts)

        return Gets(
            crop=gets("crop"),
            flip=gets("flip"),
            augment=gets("augment"),
            crop_pct=self._crop_pct,
        )
