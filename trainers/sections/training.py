"""How long a model is trained, on what, with which optimizer, schedule and loss."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.sections.section import Section

DEFAULT_STEPS = 2000


class Train(Section):
    """How long, and on what. The control takes as many steps and images as the last student."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; 2,000 unless these or epochs are given."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """In place of steps: passes over the labeled images (Noisy Student, 4.1: 350 or 700)."""
    labeled_batch: Annotated[int, Field(ge=1)] = 32
    """Labeled images a step of a student."""
    ratio: Annotated[int, Field(ge=0)] = 3
    """Pseudo-labeled images a step, per labeled image (Noisy Student, table 14). Teacher and
    control have labeled ones in their place: 0, of the teacher, leaves them out."""
    images: Literal["both", "pseudo"] = "both"
    """A student learns from labeled and pseudo-labeled images jointly, or from the latter
    alone: pretraining, to be followed by `finetune` (Noisy Student, table 13)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the weights that become the teacher; min(this, (1 + t) / (10 + t)) at step t."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of activations; weights stay float32. `auto`: bfloat16 on a GPU, float32 on a CPU.
    `float16` scales the loss."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """A step's images go through the model in so many parts, where memory holds no more; batch
    norms then see a part at a time."""
    sync_batch_norm: bool = False
    """Of several processes on GPUs: batch norms see the images of all of them."""
    compile: bool = False
    """Compile the model with torch.compile: faster after minutes, other last bits."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads, on at least as many cores; they change the last bits, so a recipe that fixes
    them repeats exactly."""
    backend: Literal["auto", "dali", "threads", "torch"] = "auto"
    """Of the loader; pixels differ in their last bits. `auto`: DALI on a GPU, else threads."""
    looks: Annotated[int, Field(ge=0)] = 10
    """How often validation is looked at while a model trains; twice as often at pretraining,
    by a regression on its features."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """A training ends after so many looks without a better one. Never unless given."""
    shuffle: Literal["global", "windowed"] = "global"
    """Of all draws, from a copy of the view in the cache; or within windows, without a copy."""
    window: Annotated[int, Field(ge=1)] = 4096
    """Draws of such a window."""

    @model_validator(mode="after")
    def _is_whole(self) -> "Train":
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"steps {self.steps} and epochs {self.epochs:g} both say how long; wanted one "
                "of them (--set train.steps= takes one out)"
            )
        for name, batch in (("labeled", self.labeled_batch), ("pseudo", self.pseudo_batch)):
            if batch % self.accumulate:
                raise ValueError(
                    f"{batch} {name} images a step are not {self.accumulate} equal parts "
                    "(accumulate)"
                )
        return self

    @property
    def pseudo_batch(self) -> int:
        """Pseudo-labeled images a step."""
        return self.labeled_batch * self.ratio

    def num_steps(self, num_labeled: int) -> int:
        """Return the optimizer steps of a training on so many labeled images."""
        if self.epochs is None:
            return self.steps or DEFAULT_STEPS
        return max(int(self.epochs * num_labeled / self.labeled_batch), 1)


class Optimizer(Section):
    """The optimizer. The paper's: rmsproptf, 0.016 per 256 images, momentum 0.9, decay 0.9."""

    name: str = "adamw"
    """timm name: adamw, sgd, rmsproptf (TensorFlow's RMSProp), ..."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak."""
    per_images: Annotated[int, Field(ge=1)] | None = None
    """The learning rate is of so many labeled images a step, and grows with them: 256 in the
    paper. Of any number unless given."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not of norms. Decoupled or in the gradient, as the optimizer has it."""
    decay_biases: bool = False
    """Also of biases, as the official code does."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of sgd and rmsproptf: 0.9 unless given."""
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of rmsproptf: of the mean of squared gradients, 0.9 unless given."""
    eps: Annotated[float, Field(gt=0)] | None = None
    """The optimizer's own unless given; 0.001 in the paper, within the root."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients of a larger norm are scaled down to it."""


class Schedule(Section):
    """How the learning rate changes from step to step."""

    name: Literal["cosine", "staircase", "constant"] = "cosine"
    """After a linear warm-up: down to zero along a cosine; times `decay_rate` every
    `decay_epochs` (Noisy Student, 4.1); or as it is."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Of linear warm-up; 100 of 2,000, and 1 in 20 of other lengths, unless these or
    warmup_epochs are given."""
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """In place of steps: passes over the labeled images."""
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.97
    """Of the staircase: what a stair multiplies the learning rate by."""
    decay_epochs: Annotated[float, Field(gt=0)] = 2.4
    """Of the staircase: passes over the labeled images that a stair is long."""

    @model_validator(mode="after")
    def _warms_up_once(self) -> "Schedule":
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and warmup_epochs {self.warmup_epochs:g} "
                "both say how long; wanted one of them"
            )
        return self


class Loss(Section):
    """What is minimised."""

    weighting: Literal["mean", "paper_code", "equal"] = "mean"
    """Cross-entropy of the labeled images and of the pseudo-labeled ones, as one: its mean over
    all of them (Noisy Student, 3.1); mean(labeled) + ratio x mean(pseudo), the same times
    1 + ratio, as the official code has it; or mean(labeled) + mean(pseudo), algorithm 1."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of hard labels, 0.1 in the official code; soft labels are left as they are."""
    pseudo_labels: Literal["soft", "hard", "online"] = "soft"
    """Whole distributions, or their class alone (Noisy Student, 4.3); or, in place of a
    teacher's, those that the student gives itself at each step (FixMatch, to compare with)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of stored distributions: p^(1/T), normalised again (the official code's
    teacher_softmax_temp). Below 1 they are sharper."""


class Finetune(Section):
    """A last training on labeled images alone, after the one on both. None unless it is long.

    On images without noise, at a higher resolution, with the first blocks frozen it is the
    paper's (4.1: 1.5 epochs, after FixRes, Touvron et al. 2019); after pretraining on
    pseudo-labels it is table 13's.
    """

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """In place of steps: passes over the labeled images; 1.5 in the paper."""
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Pixels a side; those of the training unless given."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    """Fraction of the shorter side that an image keeps; the model's unless given."""
    noise: bool = False
    """Whether inputs and model are noised as before; else images are cropped as when a teacher
    labels, and nothing is dropped."""
    frozen_blocks: Annotated[int, Field(ge=0)] = 0
    """First blocks that stay as they are, the stem and all batch norms in them too."""
    labeled_batch: Annotated[int, Field(ge=1)] | None = None
    """Images a step; labeled ones of the training's step unless given."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak; a tenth of the training's unless given."""

    @model_validator(mode="after")
    def _is_of_one_length(self) -> "Finetune":
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"steps {self.steps} and epochs {self.epochs:g} both say how long; wanted one "
                "of them"
            )
        return self

    @property
    def is_wanted(self) -> bool:
        """Whether it is done."""
        return self.steps is not None or self.epochs is not None
