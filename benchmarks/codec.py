"""What does a soft label cost, and what is lost? Every codec against what people use today.

    python -m benchmarks.codec [--quick] [--json FILE]

Real teachers (EfficientNet-Lite0 and -Lite1, 1,000 classes) look at crops of real photos;
simulated ones fill in 10 and 21,841 classes and the timings. `kept` are rows of confidence
above 0.3. KL is KL(teacher || decoded) in nats, TV the total variation distance.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import Measurement, publish
from benchmarks.subspace import decode_subspace, fit_basis, subspace_columns
from benchmarks.teachers import TEACHERS, photo_paths, teacher_logits
from plstore.codec import Codec, CodecName, decode, encode
from plstore.errors import MissingExtraError
from plstore.labels import LabelBatch, coded_rows
from plstore.schema import TABLES, Profile, TableSpec
from plstore.store import parquet_bytes

Floats = npt.NDArray[np.float32]

CODECS: dict[str, tuple[Codec, Profile]] = {
    "topk10-compact": (Codec(k=10), "compact"),
    "topk20-compact": (Codec(k=20), "compact"),
    "topk20-portable": (Codec(k=20), "portable"),
    "topk50-compact": (Codec(k=50), "compact"),
    "adaptive98-compact": (Codec(k=64, mass=0.98), "compact"),
    "dense": (Codec(name="dense"), "compact"),
    "dense-portable": (Codec(name="dense"), "portable"),
    "hard": (Codec(name="hard"), "compact"),
}
_KEPT = 0.3
_FLOOR = 1e-10
_UNITS = {"bytes": "B", "kl": "nats", "tv": "1", "encode": "rows/s", "decode": "rows/s"}
_BUDGETS = (62, 150)
_SUBSPACES = {62: ((10, 31), (5, 46)), 150: ((20, 89), (10, 119), (30, 57))}
_FOLDS = 7
_LABELS = TABLES["soft_labels"]


@dataclass(frozen=True)
class Kept:
    """A distribution as one contender keeps it."""

    bytes_per_row: float
    decoded: Floats


def simulate(num_rows: int, num_classes: int, *, seed: int = 0) -> Floats:
    """Return a simulated teacher: 128 dimensions, superclasses of about 17, Zipf classes."""
    random = np.random.default_rng(seed)
    dim, num_super = 128, max(num_classes // 17, 2)
    centres = random.normal(size=(num_super, dim))
    member = random.integers(0, num_super, num_classes)
    classes = centres[member] + 0.6 * random.normal(size=(num_classes, dim))
    weights = 1 / np.arange(1, num_classes + 1)
    drawn = random.choice(num_classes, num_rows, p=weights / weights.sum())
    features = classes[drawn] + 1.1 * random.normal(size=(num_rows, dim))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    directions = classes / np.linalg.norm(classes, axis=1, keepdims=True)
    return softmax((18 * features @ directions.T).astype(np.float32))


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return float32 probabilities of logits."""
    scaled = (logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature)
    exponents = np.exp(scaled)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def divergences(true: Floats, decoded: Floats) -> dict[str, float]:
    """Return KL of all rows and of those kept, TV of those kept, KL kept at temperature 2."""
    kept = true.max(axis=1) > _KEPT
    kl = _kl(true, decoded)
    tv = np.abs(true - decoded).sum(axis=1, dtype=np.float64) / 2
    logs = [np.log(np.maximum(p, _FLOOR)) for p in (true, decoded)]
    warm = [softmax(x, 2.0) for x in logs]
    return {
        "kl_all": float(kl.mean()),
        "kl_kept": float(kl[kept].mean()),
        "tv_kept": float(tv[kept].mean()),
        "kl_kept_at_temperature_2": float(_kl(*warm)[kept].mean()),
        "share_kept": float(kept.mean()),
        "top1_same": float((true.argmax(axis=1) == decoded.argmax(axis=1)).mean()),
    }


def _kl(true: Floats, decoded: Floats) -> npt.NDArray[np.float64]:
    ratio = np.log(np.maximum(true, _FLOOR)) - np.log(np.maximum(decoded, _FLOOR))
    return np.asarray((true * ratio).sum(axis=1, dtype=np.float64))


def _spec_of(columns: pa.Schema) -> TableSpec:
    return TableSpec(name="labels", columns=columns)


def plstore_kept(probabilities: Floats, codec: Codec, profile: Profile) -> Kept:
    """Keep with a codec of plstore, the coded distribution alone in a file of the store's."""
    labels = encode(probabilities, codec).labels
    table = pa.table({"label": labels})
    size = len(parquet_bytes(table, _spec_of(table.schema), profile))
    return Kept(size / len(probabilities), decode(labels, probabilities.shape[1]))


def all_columns(probabilities: Floats, codec: Codec, profile: Profile) -> float:
    """Return bytes a row of `soft_labels`, all columns."""
    ids = np.arange(len(probabilities))
    rows = coded_rows(LabelBatch(sample_ids=ids, probabilities=probabilities), codec)
    return len(parquet_bytes(rows, _LABELS, profile)) / len(rows)


def _lists(values: npt.NDArray[np.floating]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def peers(probabilities: Floats, scratch: Path) -> Iterator[tuple[str, Callable[[], Kept]]]:
    """Yield what people do today, each with the name of its package or format."""
    num_rows = len(probabilities)

    def parquet(values: npt.NDArray[np.floating], compression: str) -> Kept:
        path = scratch / "peer.parquet"
        table = pa.table({"probs": _lists(values)})
        pq.write_table(table, path, compression=compression, use_dictionary=False)
        return Kept(path.stat().st_size / num_rows, values.astype(np.float32))

    def library() -> Kept:
        import datasets

        path = scratch / "datasets"
        features = datasets.Features(
            {"probs": datasets.List(datasets.Value("float32"), length=probabilities.shape[1])}
        )
        table = pa.table({"probs": _lists(probabilities)})
        datasets.Dataset(table).cast(features).save_to_disk(path)
        return Kept(_folder_bytes(path) / num_rows, probabilities)

    def lance() -> Kept:
        import lance as library_lance

        path = scratch / "lance"
        library_lance.write_dataset(
            pa.table({"probs": _lists(probabilities)}), path, data_storage_version="stable"
        )
        return Kept(_folder_bytes(path) / num_rows, probabilities)

    yield "float32", lambda: parquet(probabilities, "none")
    yield "float32-zstd", lambda: parquet(probabilities, "zstd")
    yield "float16-zstd", lambda: parquet(probabilities.astype(np.float16), "zstd")
    yield "datasets", library
    yield "pylance", lance


def _folder_bytes(path: Path) -> int:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size


def measure_sizes(case: str, probabilities: Floats) -> Iterator[Measurement]:
    """Yield bytes and errors of every contender."""

    def record(contender: str, values: dict[str, float]) -> Iterator[Measurement]:
        for metric, value in values.items():
            unit = _UNITS.get(metric.partition("_")[0], "1")
            yield Measurement(
                case=case, contender=contender, metric=metric, value=value, unit=unit
            )

    for name, (codec, profile) in CODECS.items():
        kept = plstore_kept(probabilities, codec, profile)
        check_answer(probabilities, kept.decoded, name)
        values = {
            "bytes_per_row": kept.bytes_per_row,
            "bytes_per_row_all_columns": all_columns(probabilities, codec, profile),
        }
        yield from record(name, values | divergences(probabilities, kept.decoded))
    with tempfile.TemporaryDirectory() as scratch:
        for name, keep in peers(probabilities, Path(scratch)):
            try:
                found = keep()
            except ModuleNotFoundError as error:
                print(f"{name} is not measured: {error}")
                continue
            values = {"bytes_per_row": found.bytes_per_row}
            yield from record(name, values | divergences(probabilities, found.decoded))


def check_answer(true: Floats, decoded: Floats, name: str) -> None:
    """Stop unless rows sum to 1 within 1e-6 and every argmax is kept."""
    worst = float(np.abs(decoded.sum(axis=1, dtype=np.float64) - 1).max())
    same = bool((true.argmax(axis=1) == decoded.argmax(axis=1)).all())
    if worst > 1e-6 or not same:  # noqa: PLR2004  the codec's promise
        raise SystemExit(f"{name}: sums are off by {worst}, argmax kept: {same}")


def measure_subspace(
    case: str, probabilities: Floats, photos: npt.NDArray[np.int64]
) -> Iterator[Measurement]:
    """Yield, at each budget of bytes a row, the subspaces and plain top-k.

    Cross-validated: the basis is fitted on crops of all photos but a seventh, and tested on
    crops of that seventh, which it has not seen.
    """
    folds = [photos % _FOLDS == fold for fold in range(_FOLDS)]
    order = np.concatenate([np.flatnonzero(held) for held in folds])
    tested = probabilities[order]
    for budget in _BUDGETS:
        contenders: dict[str, Kept] = {}
        for k, rank in _SUBSPACES[budget]:
            parts = []
            for held in folds:
                basis = fit_basis(probabilities[~held], rank)
                table = subspace_columns(probabilities[held], basis, k)
                parts.append((table, decode_subspace(table, basis)))
            whole = pa.concat_tables([table for table, _ in parts])
            size = len(parquet_bytes(whole, _spec_of(whole.schema), "compact")) / len(tested)
            decoded = np.concatenate([rows for _, rows in parts])
            contenders[f"subspace{rank}-top{k}"] = Kept(size, decoded)
        plain = _largest_k(tested, budget)
        contenders[f"topk{plain}-compact"] = plstore_kept(tested, Codec(k=plain), "compact")
        for name, kept in contenders.items():
            values = {"bytes_per_row": kept.bytes_per_row, **divergences(tested, kept.decoded)}
            for metric in ("bytes_per_row", "kl_all", "kl_kept", "tv_kept"):
                yield Measurement(
                    case=f"{case}-{budget}-bytes",
                    contender=name,
                    metric=metric,
                    value=values[metric],
                    unit=_UNITS[metric.partition("_")[0]],
                )


def _largest_k(test: Floats, budget: float) -> int:
    k = 1
    while plstore_kept(test, Codec(k=k + 1), "compact").bytes_per_row <= budget:
        k += 1
    return k


def measure_speed(case: str, probabilities: Floats, repeats: int) -> Iterator[Measurement]:
    """Yield rows a second of one core: to Arrow with all columns, and back to float32."""
    num_rows, num_classes = probabilities.shape
    ids = np.arange(num_rows)
    out = np.empty_like(probabilities)
    names: tuple[CodecName, ...] = ("topk", "dense", "hard")
    for name in names:
        codec = Codec(name=name)
        batch = LabelBatch(sample_ids=ids, probabilities=probabilities)
        labels = encode(probabilities, codec).labels
        check_answer(probabilities, decode(labels, num_classes, out), name)
        work: dict[str, Callable[[], object]] = {
            "encode_rows_per_s": partial(coded_rows, batch, codec),
            "decode_rows_per_s": partial(decode, labels, num_classes, out),
        }
        for metric, function in work.items():
            seconds = min(_timed(function) for _ in range(repeats))
            contender = "topk20" if name == "topk" else name
            yield Measurement(
                case=case,
                contender=contender,
                metric=metric,
                value=round(num_rows / seconds),
                unit="rows/s",
            )


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def real_cases(num_rows: int) -> Iterator[tuple[str, Floats, npt.NDArray[np.int64]]]:
    """Yield for each real teacher: name, its distributions, and the photo of each."""
    photos = photo_paths()
    for name in TEACHERS:
        try:
            logits = teacher_logits(name, photos, num_rows, seed=1)
        except MissingExtraError as error:
            print(f"{name} is not measured: {error}")
            continue
        yield name, softmax(logits), np.arange(num_rows) % len(photos)


def run(*, quick: bool) -> Iterator[Measurement]:
    """Yield every measurement."""
    num_rows, num_real = (2000, 200) if quick else (50_000, 6000)
    for num_classes, rows in ((10, num_rows), (1000, num_rows), (21_841, num_rows // 50)):
        case = f"{num_classes}-classes-simulated"
        yield from measure_sizes(case, simulate(max(rows, 200), num_classes))
    speed = simulate(4096 if quick else 16_384, 1000, seed=1)
    yield from measure_speed("1000-classes-simulated", speed[:4096], 2 if quick else 9)
    for name, probabilities, photos in real_cases(num_real):
        yield from measure_sizes(f"1000-classes-{name}", probabilities)
        yield from measure_subspace(f"subspace-{name}-unseen-photos", probabilities, photos)
        near = np.arange(num_real) // len(np.unique(photos))  # crops, whatever their photo
        yield from measure_subspace(f"subspace-{name}-unseen-crops", probabilities, near)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 seconds")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    options = parser.parse_args(arguments)
    command = f"python -m benchmarks.codec{' --quick' if options.quick else ''}"
    publish(list(run(quick=options.quick)), command=command, json_path=options.json)


if __name__ == "__main__":
    main()
