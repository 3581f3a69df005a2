"""The DALI backend: one graph for the CPU and the GPU.

All random numbers come with the batch, as data, so DALI's own generators (which depend on the
slot in the batch and cannot be resumed into another layout) are never used, and nothing has to
be saved but the step.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy
from torch import Tensor

from plstore.loaders.batches import BackendSpec, Work

_CLEAN = ("encoded", "targets", "sample_ids", "starts", "ends")
_NOISY = (*_CLEAN, "matrices", "brightness", "contrast")
_DTYPES = {
    "encoded": types.UINT8,
    "sample_ids": types.INT64,
}
_INTERPOLATIONS = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
_MIXED = "mixed"
_DECODED_BYTES = 256 << 20


def run(spec: BackendSpec) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (images uint8 [batch, channels, size, size], targets, sample ids) by step."""
    gpu = spec.device.startswith("cuda")
    pipeline = build_pipeline(
        spec, device_id=torch.device(spec.device).index or 0 if gpu else None
    )
    iterator = DALIGenericIterator(
        [pipeline],
        ["images", "targets", "sample_ids"],
        size=-1,
        last_batch_policy=LastBatchPolicy.PARTIAL,
    )
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for (output,) in iterator:
        images = output["images"].permute(0, 3, 1, 2)
        targets = output["targets"].to(images.device, non_blocking=True)
        parts.append((images, targets, output["sample_ids"][:, 1]))
        if int(output["sample_ids"][-1, 0]):
            yield _joined(parts)
            parts = []


def chunk_starts(work: Work, channels: int) -> list[int]:
    """Return where to cut a batch: DALI holds what it decodes at once in full size."""
    starts, held = [0], 0
    for index, num_bytes in enumerate((work.num_pixels * channels).tolist()):
        if held and held + num_bytes > _DECODED_BYTES:
            starts.append(index)
            held = 0
        held += num_bytes
    return starts


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    images, targets, sample_ids = (torch.cat(column) for column in zip(*parts, strict=True))
    return images.contiguous(memory_format=torch.channels_last), targets, sample_ids


def build_pipeline(
    spec: BackendSpec, *, device_id: int | None, on_gpu: bool | None = None
) -> Pipeline:
    """Return the graph of a backend's work.

    Args:
        spec: What to execute.
        device_id: CUDA device to run on; None without one.
        on_gpu: Whether decoding and noise are placed on the GPU; by default, where there is a
            device. True without a device makes a graph that can be serialised, not run.
    """
    on_gpu = device_id is not None if on_gpu is None else on_gpu
    pipeline = Pipeline(
        batch_size=spec.max_batch,
        num_threads=spec.num_threads,
        device_id=device_id,
        prefetch_queue_depth=2,
    )
    with pipeline:
        pipeline.set_outputs(*_graph(spec, on_gpu=on_gpu))
    return pipeline


def _graph(spec: BackendSpec, *, on_gpu: bool) -> tuple[Any, Any, Any]:
    gray = spec.format.channels == 1
    names = _NOISY if spec.noisy else _CLEAN
    if spec.noisy and not gray:
        names = (*names, "saturation")
    inputs = fn.external_source(
        source=_source(spec, names),
        num_outputs=len(names),
        batch=True,
        batch_info=True,
        dtype=[_DTYPES.get(name, types.FLOAT) for name in names],
    )
    node = dict(zip(names, inputs, strict=True))
    interpolation = _INTERPOLATIONS[spec.format.interpolation]
    images = fn.decoders.image(
        node["encoded"],
        device=_MIXED if on_gpu else "cpu",
        output_type=types.GRAY if gray else types.RGB,
        jpeg_fancy_upsampling=True,  # as libjpeg-turbo does: teacher and student see one image
    )
    images = fn.resize(
        images,
        roi_start=node["starts"],
        roi_end=node["ends"],
        size=[spec.format.size, spec.format.size],
        interp_type=interpolation,
        antialias=True,
    )
    if spec.noisy:
        images = _noised(images, node, spec.fill, gray=gray)
    return images, node["targets"], node["sample_ids"]


def _noised(images: Any, node: dict[str, Any], fill: int | None, *, gray: bool) -> Any:  # noqa: ANN401  DALI's graph nodes are untyped
    images = fn.warp_affine(
        images,
        matrix=node["matrices"],
        inverse_map=True,
        interp_type=types.INTERP_LINEAR,
        fill_value=fill,
    )
    factors = {"brightness": node["brightness"], "contrast": node["contrast"]}
    if gray:
        return fn.brightness_contrast(images, **factors)
    return fn.color_twist(images, saturation=node["saturation"], **factors)


def _source(spec: BackendSpec, names: tuple[str, ...]) -> Callable[[Any], list[Any]]:
    chunks = _chunks(spec)

    def source(_: Any) -> list[Any]:  # noqa: ANN401  DALI's BatchInfo is untyped
        arrays = next(chunks)
        return [arrays[name] for name in names]

    return source


def _chunks(spec: BackendSpec) -> Iterator[dict[str, Any]]:
    """Yield each batch in parts; the last row of a part says whether its batch ends there."""
    step = spec.first_step
    while True:
        try:
            work = spec.work(step)
        except StopIteration:
            return
        arrays = _arrays(work)
        arrays["sample_ids"][-1, 0] = 1
        starts = chunk_starts(work, spec.format.channels)
        for start, end in pairwise([*starts, len(work.encoded)]):
            yield {name: values[start:end] for name, values in arrays.items()}
        step += 1


def _arrays(work: Work) -> dict[str, Any]:
    ends = np.zeros_like(work.sample_ids)
    arrays: dict[str, Any] = {
        "encoded": work.encoded,
        "targets": work.targets,
        "sample_ids": np.stack([ends, work.sample_ids], axis=1),
        "starts": np.ascontiguousarray(work.windows[:, :2]),
        "ends": np.ascontiguousarray(work.windows[:, 2:]),
    }
    if work.noise is not None:
        arrays["matrices"] = work.noise.matrices
        arrays["brightness"] = work.noise.brightness
        arrays["contrast"] = work.noise.contrast
        arrays["saturation"] = work.noise.saturation
    return arrays
