"""How fast a model is: the precision that pays, and what the processor has."""

import sys
from pathlib import Path
from time import thread_time

import pytest
import torch
from torch import Tensor, nn

from trainers.training.timing import Timed, cpu_precisions, time_model


class Slow(nn.Module):
    """A classifier that takes so many milliseconds in float32 and in bfloat16."""

    def __init__(self, full: float, lower: float) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4, 2)
        self._seconds = {torch.float32: full / 1000, torch.bfloat16: lower / 1000}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        end = thread_time() + self._seconds[logits.dtype]
        while thread_time() < end:
            pass
        return logits


def timed(full: float, lower: float, *precisions: str) -> Timed:
    return time_model(
        Slow(full, lower),
        classes=2,
        channels=3,
        size=4,
        batch=2,
        device="cpu",
        precisions=precisions,
    )


@pytest.mark.parametrize(
    ("lower", "chosen"), [(5.0, "bfloat16"), (17.0, "auto"), (60.0, "auto")]
)
def test_another_precision_is_taken_where_it_is_much_faster(lower: float, chosen: str) -> None:
    made = timed(20.0, lower, "auto", "bfloat16")
    seconds = made.train_seconds * 2 * torch.get_num_threads() ** 0.8

    assert made.precision == chosen
    assert seconds == pytest.approx(0.005 if chosen == "bfloat16" else 0.02, rel=0.3)


def test_one_precision_is_kept_and_labeling_has_its_own() -> None:
    made = timed(5.0, 20.0, "bfloat16")

    assert made.precision == "bfloat16"
    assert made.train_seconds > 2 * made.clean_seconds


@pytest.mark.skipif(sys.platform != "linux", reason="what the processor has is in /proc")
def test_a_processor_that_multiplies_bfloat16_may_train_in_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())

    assert ("bfloat16" in cpu_precisions()) == bool(flags & {"amx_bf16", "avx512_bf16"})
    assert cpu_precisions()[0] == "auto"
