"""Ray as an engine: a pool of actors, each with the work opened once, that grows and shrinks.

    plstore label --teacher t1 --engine ray --address auto --workers 1..64 --store s3://b/store

A shard is a row of a Ray dataset and its result another. Ray carries descriptions alone: files
are written by plstore, under the names that they have on one machine. A worker that is killed,
or whose node goes away, is replaced, and its shard is done again. What a worker raises comes
back as a result, so that it is told as it is without Ray.
"""

import logging
import os
import pickle
import signal
import socket
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from platform import node
from typing import Any, ClassVar, Final

import pyarrow as pa

from plstore.errors import InputError, MissingExtraError, PlstoreError, StoreNotFoundError
from plstore.machine import num_cores
from plstore.version import __version__
from trainers.engines.work import OnImages, Result, Task, Work, uncounted

_ANSWER_SECONDS: Final = 10.0
_OBJECT_BYTES: Final = 256 << 20
_SCHEMA: Final = pa.schema([("task", pa.int64()), ("answer", pa.binary())])
_ALL_NODES: Final = (
    ". All nodes must see a store in a folder at the same path: put it in a folder that they "
    "share, or in an object store"
)
_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Does work on a Ray cluster.

    Attributes:
        address: Of a cluster, such as "auto" or "10.0.0.1:6379". None takes the one that this
            process is connected to, or that RAY_ADDRESS names; else one is started on this
            machine, and ended after the work.
        workers: How many, at least and at most; as many as fit unless given.
        cpus: Of each worker: what it computes and decodes with.
        gpus: Of each worker; unless given, one where the work can use it and there are some.
    """

    address: str | None = None
    workers: tuple[int, int] | None = None
    cpus: int = 1
    gpus: float | None = None

    commit_seconds: ClassVar[float] = 30.0
    is_here: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: If one is out of range.
        """
        low, high = self.workers or (1, 1)
        if not 1 <= low <= high:
            raise InputError(f"workers are {low}..{high}; wanted such as 1..8, at least 1")
        if self.cpus < 1 or (self.gpus or 0) < 0:
            raise InputError(
                f"a worker has {self.cpus} CPUs and {self.gpus} GPUs; wanted at least 1 and 0"
            )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect to the cluster, or start one; leave what was connected to here.

        Raises:
            MissingExtraError: If Ray is not installed.
            InputError: If no cluster answers at the address.
        """
        ray = _imported()
        if ray.is_initialized():  # the user's own connection, or an outer one
            yield
            return
        self._connect(ray)
        try:
            yield
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:  # noqa: ANN401  a module
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        own: dict[str, Any] = {"object_store_memory": _OBJECT_BYTES, "include_dashboard": False}
        options = own if address == "local" else {}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _check_open(address)
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, **options
            )
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if address == "local":
                raise PlstoreError(
                    f"Ray did not start on this machine: {reason}. Run the same command again "
                    "where cores are less busy, or without --engine ray"
                ) from error
            raise InputError(
                f"no Ray cluster at {address}: {reason}. Wanted the address of its head, such "
                "as 10.0.0.1:6379, or none for one on this machine"
            ) from error
        finally:
            _restore(handler)

    def run(
        self, work: Work[Task, Result], tasks: Sequence[Task], on_images: OnImages
    ) -> Generator[Result]:
        """Yield what comes of each task, once, in any order; see `Engine.run`."""
        del on_images  # workers are elsewhere: who asks hears of results
        if not tasks:
            return
        with self.connected():
            seen: set[int] = set()
            for row in self._rows(work, tasks):
                if row["task"] not in seen:  # done twice is done
                    seen.add(row["task"])
                    yield _result(pickle.loads(row["answer"]))  # noqa: S301  our own workers'

    def _rows(self, work: Work[Any, Any], tasks: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the rows that the workers give."""
        import ray.data

        gpus = self._gpus(work.device)
        room = self._room(gpus)
        low, high = self.workers or (1, room)
        start = min(max(low, room), high, max(low, len(tasks)))
        rows = [{"task": n, "data": pickle.dumps(task)} for n, task in enumerate(tasks)]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(work, __version__, self.cpus),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=low, max_size=high, initial_size=start, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=self.cpus,
            num_gpus=gpus,
        )
        try:
            yield from found.iter_rows()
        except Exception as error:
            raise PlstoreError(
                f"the work on Ray stopped: {_last_line(error)}. What was committed stays, and "
                "the same command goes on from there; every node needs this plstore "
                f"({__version__}) with the same extras"
            ) from error

    def _gpus(self, device: str) -> float:
        import ray

        if self.gpus is not None:
            return self.gpus
        if device == "auto":
            return float(ray.cluster_resources().get("GPU", 0) > 0)
        return float(device.startswith("cuda"))

    def _room(self, gpus: float) -> int:
        """Return how many workers fit on the nodes that there are now.

        Raises:
            InputError: If none does, and how many are wanted was not said: a cluster that grows
                would have room later.
        """
        import ray

        alive = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        room = sum(
            int(min(r.get("CPU", 0) // self.cpus, r.get("GPU", 0) / gpus if gpus else 1 << 20))
            for r in alive
        )
        if not room and self.workers is None:
            most = [f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in alive]
            raise InputError(
                f"no node has room for a worker of {self.cpus} CPUs and {gpus:g} GPUs; they "
                f"have {', '.join(most) or 'nothing'}. Lower --cpus-per-worker or "
                "--gpus-per-worker, or give --workers where the cluster grows when it is asked"
            )
        return room


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """What a worker raised."""

    kind: type[Exception]
    message: str
    trace: str
    node: str


class _Worker:
    """An actor: it opens the work with its first task, so that an error is a result as well."""

    def __init__(self, work: Work[Any, Any], version: str, cpus: int) -> None:
        """Open nothing yet."""
        self._work, self._version, self._cpus = work, version, cpus
        self._do: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the answer to each task."""
        answers = [pickle.dumps(self._answer(data.as_py())) for data in batch["data"]]
        return pa.table([batch["task"], pa.array(answers, pa.binary())], schema=_SCHEMA)

    def _answer(self, data: bytes) -> Any:  # noqa: ANN401  what the work gives
        try:
            if self._do is None:
                self._do = self._opened()
            return self._do(pickle.loads(data))  # noqa: S301  of the process that asked
        except Exception as error:  # noqa: BLE001  it is raised where the work was asked for
            return _Failure(
                kind=type(error),
                message=str(error),
                trace=traceback.format_exc(),
                node=node(),
            )

    def _opened(self) -> Callable[[Any], Any]:
        if self._version != __version__:
            raise InputError(
                f"plstore {self._version} asks, and a worker has {__version__}; install one "
                "version on all nodes"
            )
        # Decoding takes as many threads as the worker has CPUs, see `threads_of_a_rank`.
        os.environ["LOCAL_WORLD_SIZE"] = str(ceil(num_cores() / self._cpus))
        return self._work.open(uncounted)


def _result(answer: Any) -> Any:  # noqa: ANN401  what the work gives
    """Return a worker's answer, or raise what it raised."""
    if not isinstance(answer, _Failure):
        return answer
    kind, where = answer.kind, f"node {answer.node}"
    if issubclass(kind, PlstoreError):
        error = kind.__new__(kind)  # its own __init__ may take other arguments
        hint = _ALL_NODES if issubclass(kind, StoreNotFoundError) else ""
        error.args = (f"{answer.message} (said by a worker on {where}){hint}",)
        raise error
    if issubclass(kind, OSError):
        raise kind(f"{answer.message} ({where})")
    raise RuntimeError(f"a worker on {where} failed:\n{answer.trace}")


def _imported() -> Any:  # noqa: ANN401  a module
    """Import Ray, quiet: plstore tells of progress itself."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own, of its own settings
            import ray
            import ray.data

            context = ray.data.DataContext.get_current()
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray", "the engine 'ray'") from error
    finally:
        _restore(handler)
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _check_open(address: str) -> None:
    """Stop where nothing listens at HOST:PORT: Ray itself tries for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS):
            pass


def _restore(handler: Any) -> None:  # noqa: ANN401  as signal.getsignal gives it
    """Give SIGTERM back to whoever had it: Ray takes it."""
    if handler is not None and signal.getsignal(signal.SIGTERM) is not handler:
        signal.signal(signal.SIGTERM, handler)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removesuffix(".")
