"""The backend `dali`: one graph for the CPU and the GPU.

All random numbers come with the batch, as data, so DALI's own generators (which depend on the
slot in the batch and cannot be resumed into another layout) are never used, and nothing has to
be saved but the step.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.pipeline import do_not_convert
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

from plstore.loaders import dali_ops
from plstore.loaders.noise import ComposedDraw
from plstore.loaders.scaling import decoded, resized
from plstore.loaders.work import BackendSpec, Tensors, Work

_INPUTS: Final = ("encoded", "targets", "sample_ids", "starts", "shapes")
_COMPOSED: Final = ("matrices", "brightness", "contrast", "saturation")
_DTYPES: Final = {
    "encoded": types.UINT8,
    "sample_ids": types.INT64,
    "starts": types.INT32,
    "shapes": types.INT32,
    "flips": types.INT32,
}
_INTERPOLATIONS: Final = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
_MIXED: Final = "mixed"
_DECODED_BYTES = 256 << 20


def run(spec: BackendSpec) -> Iterator[Tensors]:
    """Yield images, targets and sample ids by step."""
    gpu = spec.device.startswith("cuda")
    pipeline = build_pipeline(spec, device_id=_device_id(spec.device) if gpu else None)
    iterator = DALIGenericIterator(
        [pipeline],
        ["images", "targets", "sample_ids"],
        size=-1,
        last_batch_policy=LastBatchPolicy.PARTIAL,
    )
    parts: list[Tensors] = []
    for (output,) in iterator:
        images = output["images"].permute(0, 3, 1, 2)
        targets = output["targets"].to(images.device, non_blocking=True)
        parts.append((images, targets, output["sample_ids"][:, 1]))
        if int(output["sample_ids"][-1, 0]):
            yield _joined(parts)
            parts = []


def _device_id(device: str) -> int:
    """Return the number of a CUDA device; "cuda" is the process's current one."""
    index: int | None = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def chunk_starts(work: Work, channels: int) -> list[int]:
    """Return where to cut a batch: DALI holds what it decodes at once in full size."""
    starts, held = [0], 0
    for index, num_bytes in enumerate((work.num_pixels * channels).tolist()):
        if held and held + num_bytes > _DECODED_BYTES:
            starts.append(index)
            held = 0
        held += num_bytes
    return starts


def _joined(parts: list[Tensors]) -> Tensors:
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
    return _graph(
        spec,
        on_gpu,
        batch_size=spec.max_batch,
        num_threads=spec.num_threads,
        device_id=device_id,
        prefetch_queue_depth=2,
    )


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]  # DALI's is
def _graph(spec: BackendSpec, on_gpu: bool) -> tuple[Any, Any, Any]:  # noqa: FBT001  DALI passes it on by place
    gray = spec.format.channels == 1
    node = _inputs(spec)
    images = fn.decoders.image_slice(
        node["encoded"],
        start=node["starts"],
        shape=node["shapes"],
        axis_names="HW",
        device=_MIXED if on_gpu else "cpu",
        output_type=types.GRAY if gray else types.RGB,
        jpeg_fancy_upsampling=True,  # as libjpeg-turbo does: teacher and student see one image
    )
    images = fn.resize(
        images,
        size=[spec.format.size, spec.format.size],
        interp_type=_INTERPOLATIONS[spec.format.interpolation],
        antialias=True,
    )
    if "flips" in node:
        images = _operated(images, node, spec, on_gpu=on_gpu)
    elif "matrices" in node:
        images = _composed(images, node, spec)
    return images, node["targets"], node["sample_ids"]


@do_not_convert  # type: ignore[untyped-decorator]  # DALI's is
def _inputs(spec: BackendSpec) -> dict[str, Any]:
    names = _names(spec)
    inputs = fn.external_source(
        source=_source(spec, names),
        num_outputs=len(names),
        batch=True,
        batch_info=True,
        dtype=[_dtype(name) for name in names],
    )
    return dict(zip(names, inputs, strict=True))


def _names(spec: BackendSpec) -> tuple[str, ...]:
    if spec.noise is None:
        return _INPUTS
    if spec.dialect is None:
        return (*_INPUTS, *(_COMPOSED[:-1] if spec.format.channels == 1 else _COMPOSED))
    layered = [
        f"{name}-{number}"
        for number in range(spec.noise.augment.n)
        for name in dali_ops.argument_names(spec.dialect)
    ]
    return (*_INPUTS, "flips", *layered)


def _dtype(name: str) -> types.DALIDataType:
    name, layered, _ = name.partition("-")
    kinds = dali_ops.DTYPES if layered else _DTYPES
    return kinds.get(name, types.FLOAT)


def _operated(images: Any, node: dict[str, Any], spec: BackendSpec, *, on_gpu: bool) -> Any:  # noqa: ANN401  DALI's graph nodes are untyped
    images = fn.flip(images, horizontal=node["flips"])
    layers = 0 if spec.noise is None else spec.noise.augment.n
    for number in range(layers):
        names = dali_ops.argument_names(spec.dialect)
        inputs = {name: node[f"{name}-{number}"] for name in names}
        images = dali_ops.layer(images, inputs, spec, on_gpu=on_gpu)
    return images


def _composed(images: Any, node: dict[str, Any], spec: BackendSpec) -> Any:  # noqa: ANN401  DALI's graph nodes are untyped
    images = fn.warp_affine(
        images,
        matrix=node["matrices"],
        inverse_map=True,
        interp_type=types.INTERP_LINEAR,
        fill_value=None if spec.fill is None else sum(spec.fill) / len(spec.fill),
    )
    factors = {"brightness": node["brightness"], "contrast": node["contrast"]}
    if spec.format.channels == 1:
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
    with ThreadPoolExecutor(spec.num_threads, thread_name_prefix="plstore-scaled") as pool:
        while True:
            try:
                work = spec.work(step)
            except StopIteration:
                return
            arrays = _arrays(work, spec)
            _scale(arrays, work, spec, pool)
            arrays["sample_ids"][-1, 0] = 1
            starts = chunk_starts(work, spec.format.channels)
            for start, end in pairwise([*starts, len(work.encoded)]):
                yield {name: values[start:end] for name, values in arrays.items()}
            step += 1


def _scale(
    arrays: dict[str, Any], work: Work, spec: BackendSpec, pool: ThreadPoolExecutor
) -> None:
    """Put what is decoded at a scale, which DALI cannot do, in the place of its JPEGs.

    They come in the output's size, as PPM or PGM, which DALI's decoder only unpacks: so there
    is one graph, and its resize leaves such images as they are.
    """
    slots = np.flatnonzero(work.scales > 1)
    if not len(slots):
        return
    found = pool.map(lambda slot: _scaled(work, slot, spec), slots.tolist())
    arrays["encoded"] = list(work.encoded)
    for slot, image in zip(slots.tolist(), found, strict=True):
        arrays["encoded"][slot] = image
    arrays["starts"][slots] = 0
    arrays["shapes"][slots] = spec.format.size


def _scaled(work: Work, slot: int, spec: BackendSpec) -> npt.NDArray[np.uint8]:
    scale, size, channels = int(work.scales[slot]), spec.format.size, spec.format.channels
    image = decoded(work.encoded[slot], scale, channels)
    pixels = resized(image, work.windows[slot], scale, spec.format)
    head = f"P{5 if channels == 1 else 6}\n{size} {size}\n255\n"
    return np.frombuffer(head.encode() + pixels.tobytes(), np.uint8)


def _arrays(work: Work, spec: BackendSpec) -> dict[str, Any]:
    ends = np.zeros_like(work.sample_ids)
    arrays: dict[str, Any] = {
        "encoded": work.encoded,
        "targets": work.targets,
        "sample_ids": np.stack([ends, work.sample_ids], axis=1),
        "starts": work.windows[:, :2].copy(),
        "shapes": np.ascontiguousarray(work.windows[:, 2:] - work.windows[:, :2]),
    }
    noise = work.noise
    if noise is None:
        return arrays
    if isinstance(noise.augment, ComposedDraw):
        return arrays | vars(noise.augment)
    arrays["flips"] = noise.flips.astype(np.int32)
    if spec.dialect is not None:
        arrays |= dali_ops.arguments(noise.augment, spec.dialect, spec.format.size)
    return arrays
