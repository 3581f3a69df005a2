"""The loader: batches of a view for training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from plstore.errors import InputError, StoreError
from plstore.labels import ViewLabels
from plstore.loaders.backends import pick_backend, run_backend, work_of
from plstore.loaders.imageset import view_hash
from plstore.loaders.noise import INPUT_PARTS, InputPart, Noise
from plstore.loaders.plan import Plan, Share
from plstore.loaders.replaying import check_labels
from plstore.loaders.settings import check_device, check_kind, check_whole
from plstore.loaders.sources import Samples, Shuffle, open_source
from plstore.loaders.verification import Verification, verify_loader
from plstore.loaders.work import (
    Backend,
    BackendSpec,
    Batch,
    ImageFormat,
    Tensors,
    Work,
    threads_of_a_rank,
)
from plstore.views import View

_IDENTITY: Final = ("view", "plan", "seed")
_REPLACEMENTS: Final = 100
DEFAULT_WINDOW: Final = 4096
DEFAULT_CACHE_BYTES: Final = 256 << 20


class Loader:
    """The noised batches of a view, without end. Made by `load`.

    The batch of a step follows from the view, the plan, the seed and the step alone, so its
    whole state is four values (and which labels it replays, where it does), and a run can go on
    from any step with any number of ranks.

    Attributes:
        view: What it reads.
        backend: "dali", "threads" or "torch".
        plan: Which images, with which noise.
        step: Of the batch that comes next.
        replaced: By sample id of a damaged image, how often others took its place.
        labels: That it replays, None for those of the view alone.
    """

    def __init__(  # noqa: PLR0913  one keyword per part
        self,
        view: View,
        plan: Plan,
        *,
        plan_hash: str,
        image_format: ImageFormat,
        device: str,
        backend: Backend,
        num_threads: int | None,
        cache_bytes: int,
        first_step: int,
        labels: ViewLabels | None = None,
    ) -> None:
        """See `load`."""
        self.view, self.plan, self.source = view, plan, plan.source
        self.format, self.device = image_format, device
        self.backend = pick_backend(backend, device)
        self.num_threads = threads_of_a_rank() if num_threads is None else num_threads
        self.step = first_step
        self._cache_bytes = cache_bytes
        self.replaced: dict[int, int] = {}
        self._identity: dict[str, Any] = {
            "view": view_hash(view),
            "plan": plan_hash,
            "seed": plan.seed,
        }
        self.labels = labels
        if labels is not None:
            check_labels(labels, view, self._identity, self.backend)
            self._identity["labels"] = labels.identity

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from `step` on."""
        works: dict[int, Work] = {}

        def work(step: int) -> Work:
            works[step] = self.work(step)
            return works[step]

        def batch(step: int, pixels: Tensors) -> Batch:
            self.step = step + 1
            return self._batch(step, works.pop(step), pixels)

        spec = self.spec(work, first_step=self.step)
        yield from map(batch, count(self.step), run_backend(self.backend, spec))

    def _batch(self, step: int, work: Work, pixels: Tensors) -> Batch:
        images, targets, sample_ids = pixels
        for sample_id in work.replaced:
            self.replaced[sample_id] = self.replaced.get(sample_id, 0) + 1
        weights = torch.from_numpy(work.weights)
        return Batch(
            images=images,
            targets=targets,
            weights=weights.to(targets.device) if targets.is_cuda else weights,
            sample_ids=sample_ids,
            num_labeled=self.plan.num_labeled,
            step=step,
            replaced=work.replaced,
            not_replayed=work.not_replayed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every labeled image is drawn once: the same on every rank."""
        return self.plan.steps_per_epoch

    def spec(
        self, work: Callable[[int], Work], *, first_step: int, noisy: bool = True
    ) -> BackendSpec:
        """Return what a backend is built from."""
        pixels = self.source.num_pixels()
        few = pixels is not None and pixels * self.format.channels <= self._cache_bytes
        return BackendSpec(
            work=work,
            format=self.format,
            noise=self.plan.noise_spec if noisy else None,
            max_batch=self.plan.batch_size,
            device=self.device,
            first_step=first_step,
            num_threads=self.num_threads,
            keep_decoded=few,
        )

    def work(self, step: int) -> Work:
        """Return what there is to do for a step, its images read and checked."""
        samples, replaced = self.samples(step)
        noise = self.plan.noise(step, samples)
        work = work_of(samples, noise.windows, self.format, noise, replaced)
        if self.labels is None or not self.plan.pseudo_batch:
            return work
        first, pseudo = self.plan.first_pseudo_draw(step), slice(self.plan.num_labeled, None)
        lacking = self.labels.fill(first, work.sample_ids[pseudo], work.targets[pseudo])
        return replace(work, not_replayed=lacking)

    def samples(self, step: int) -> tuple[Samples, tuple[int, ...]]:
        """Return the intact samples of a step, and the ids of those that were replaced.

        A damaged image is replaced by the draw of the same slot in the next batch.

        Raises:
            StoreError: If a hundred draws in a row are damaged.
        """
        self.source.keep(self.plan.blocks(step))
        samples = self.source.fetch(self.plan.rows(step))
        replaced: list[int] = []
        for ahead in range(1, _REPLACEMENTS + 1):
            damaged = np.flatnonzero(~samples.intact)
            if not len(damaged):
                return samples, tuple(replaced)
            replaced += samples.sample_ids[damaged].tolist()
            rows = self.plan.rows(step, ahead)[damaged]
            samples.put(damaged, self.source.fetch(rows))
        raise StoreError(
            f"{_REPLACEMENTS} images in a row of {self.view.key} are damaged, such as "
            f"{replaced[-1]}; 'plstore verify' tells what is wrong with {self.view.store.root}"
        )

    def verify(self, steps: int | None = None) -> Verification:
        """Prove that image, label, weight and id of every sample belong together.

        Clean images, made by this loader's own way, are compared with those that Pillow makes
        of the table `images`, labels and weights with those of the view's rows. A sample of
        which the store has no readable image is an error too.

        Args:
            steps: From step 0 on; as many as make one pass over either stream unless given.

        Raises:
            InputError: If the number of steps is none.
        """
        if steps is not None:
            check_whole("steps", steps, low=1)
        return verify_loader(self, steps)

    def epochs(self) -> "Epochs":
        """Return the batches from `step` on, epoch by epoch, as timm's `train.py` wants."""
        return Epochs(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state: identity of view and plan, seed, and the step to come."""
        return {**self._identity, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of any number of ranks; for batches that are not yet begun.

        Raises:
            InputError: If it is the state of another view, plan or seed, of other labels, or
                none.
        """
        for name in (*_IDENTITY, "labels"):
            mine = self._identity.get(name)
            if state.get(name) != mine:
                raise InputError(
                    f"the state is of {name} {state.get(name)!r}, this loader of {mine!r}: "
                    "other batches would come. Make the loader as it was made, or begin anew"
                )
        check_whole("step of the state", state.get("step"), low=0)
        self.step = int(state["step"])


class Epochs:
    """Batches as (images, targets), normalised, an epoch at a time: for timm's `train.py`.

    Targets are multiplied by the weights of their images, which their cross-entropy then is.
    Iterating it goes to the end of the epoch of the loader's step; iterating it again, on
    through the next.

    Attributes:
        mixup_enabled: Nothing mixes images here; timm asks.
        sampler: None, the plan shards; timm asks.
    """

    def __init__(self, loader: Loader) -> None:
        """Begin at the loader's step."""
        self._loader = loader
        self._batches: Iterator[Batch] | None = None
        self.mixup_enabled = False
        self.sampler = None

    def __len__(self) -> int:
        """Return the batches of a whole epoch."""
        return self._loader.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float32 [batch, channels, size, size] and float32 [batch, classes]."""
        if self._batches is None:
            self._batches = iter(self._loader)
        for batch in islice(self._batches, len(self) - self._loader.step % len(self)):
            targets = batch.targets * batch.weights[:, None]
            yield self._loader.format.normalise(batch.images), targets


def load(  # noqa: PLR0913  one keyword per choice of the user
    view: View,
    *,
    labeled_batch: int,
    pseudo_batch: int,
    image_format: ImageFormat,
    noise: Noise | None = None,
    labeled_noise: Sequence[InputPart] = INPUT_PARTS,
    pseudo_noise: Sequence[InputPart] = INPUT_PARTS,
    seed: int,
    first_step: int = 0,
    shuffle: Shuffle = "global",
    window: int = DEFAULT_WINDOW,
    rank: int | None = None,
    world_size: int | None = None,
    device: str = "cpu",
    backend: Backend = "auto",
    num_threads: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    labels: ViewLabels | None = None,
) -> Loader:
    """Return the loader of a view.

    Args:
        view: What to train on.
        labeled_batch: Labeled images a step, of all ranks together; 0 to pretrain on
            pseudo-labels alone (Noisy Student, table 13).
        pseudo_batch: Pseudo-labeled images a step, of all ranks: labeled_batch times the ratio
            (Noisy Student, table 14: 1 to 28); may be 0.
        image_format: Pixels that the model wants.
        noise: Input noise; the paper's unless given: random-resized crop, flip, and the
            official code's RandAugment with N = 2, M = 27.
        labeled_noise: Which of crop, flip and augment labeled images get; without crop they
            have the clean one. What they get does not depend on what they do not.
        pseudo_noise: Which of them pseudo-labeled images get (Noisy Student, table 6).
        seed: Of the run.
        first_step: Step of the first batch.
        shuffle: "global" permutes all draws of a pass and needs the view's Arrow twin, a copy
            in the store's cache that is made once. "windowed" reads the store's row groups in
            sequence and permutes within windows; nothing is copied.
        window: Draws of such a window. Memory holds the encoded images of two windows of each
            stream, and each rank reads all of them.
        rank: Of this process; that of torch.distributed, where it runs, unless given.
        world_size: Processes; as `rank`.
        device: Where batches are made and left: "cpu" or a CUDA device.
        backend: "dali", "threads", "torch", or "auto" for the fastest that is installed.
        num_threads: That decode; cores by ranks of this machine unless given.
        cache_bytes: `threads` keeps the decoded images of a view that is smaller than this;
            those that are decoded at a scale take up to half as much again.
        labels: What a teacher said of the first pseudo-labeled draws, noise included, to be
            their targets in place of the view's; see `plstore.label_views`.

    Raises:
        InputError: If an argument is not as it must be, a stream has no images, or labels are
            of other draws.
        MissingExtraError: If the backend is not installed.
    """
    noise = Noise() if noise is None else noise
    check_kind("image_format", image_format, ImageFormat)
    check_kind("noise", noise, Noise)
    check_whole("first_step", first_step, low=0)
    check_whole("cache_bytes", cache_bytes, low=0)
    if num_threads is not None:
        check_whole("num_threads", num_threads, low=1)
    check_device(device)
    backend = pick_backend(backend, device)
    source = open_source(view, shuffle, window)
    plan = Plan(
        source,
        labeled_batch=labeled_batch,
        pseudo_batch=pseudo_batch,
        noise=noise,
        size=image_format.size,
        seed=seed,
        share=_share(rank, world_size),
        labeled_noise=labeled_noise,
        pseudo_noise=pseudo_noise,
        crop_pct=image_format.crop_pct,
    )
    return Loader(
        view,
        plan,
        plan_hash=plan.hash(shuffle, window, image_format),
        image_format=image_format,
        device=device,
        backend=backend,
        num_threads=num_threads,
        cache_bytes=cache_bytes,
        first_step=first_step,
        labels=labels,
    )


def _share(rank: int | None, world_size: int | None) -> Share:
    if (rank is None) != (world_size is None):
        raise InputError("rank and world_size go together; one was given without the other")
    if rank is not None and world_size is not None:
        return Share(rank=rank, world_size=world_size)
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return Share(rank=distributed.get_rank(), world_size=distributed.get_world_size())
    return Share()
