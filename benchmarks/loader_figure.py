"""The figure of `loaders`: images a CPU second, by contender, with and without RandAugment."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Measurement

_SHOWN = (
    "decode-ceiling", "threads", "threads-float32", "dali", "torch", "pil-uint8", "pil",
    "litdata", "datasets", "webdataset",
)  # fmt: skip
_TITLES = {
    "plain": "Random-resized crop and flip",
    "randaugment": "The same with RandAugment (N = 2, M = 27)",
}


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Draw it to a file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True, sharey=True)
    for axis, (case, title) in zip(axes, _TITLES.items(), strict=True):
        found = {(m.contender, m.metric): m.value for m in measurements if m.case == case}
        names = [name for name in _SHOWN if (name, "images_per_cpu_s") in found][::-1]
        speeds = [found[name, "images_per_cpu_s"] for name in names]
        ours = {"threads", "threads-float32", "dali", "torch"}
        colours = [
            "#bbbbbb" if name == "decode-ceiling" else "#2a6f97" if name in ours else "#e07a5f"
            for name in names
        ]
        bars = axis.barh(names, speeds, color=colours)
        ratios = [found.get((name, "ratio_to_pil"), float("nan")) for name in names]
        axis.bar_label(bars, [f"{ratio:.2f} x" for ratio in ratios], padding=3, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("images a CPU second, and ratio to DataLoader + PIL")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
