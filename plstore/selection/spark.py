"""Spark as the engine of selections: the same steps, over the same files, on a cluster.

    plstore select v --teacher t1 --engine spark --store pets/store

Spark runs where its own configuration says (`spark-defaults.conf`, `SPARK_REMOTE`,
`spark-submit`); with none, on all cores of this machine. The files must be at the same paths,
or URLs, for every executor. What comes of it is row by row what DuckDB gives: bins and draws
are whole numbers of the same text, and classes meet only in a table of limits.
"""

import shutil
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.dataset

from plstore import storage
from plstore.errors import MissingExtraError, QueryError
from plstore.query import SELECTION_MACROS

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame

    from plstore.selection.pool import Pool

_BATCH_ROWS: Final = 65_536


class SparkEngine:
    """Runs the steps of a selection over `candidates` in Spark; a context manager."""

    def __init__(self, pool: "Pool") -> None:
        """Name the candidates; Spark starts when the context is entered."""
        self._pool = pool
        # Below the store, which executors reach.
        self._results = pool.store.work_folder("select", f".spark-{uuid4().hex}")

    def __enter__(self) -> Self:
        """Start Spark, or take the session that there is, and name the candidates.

        Raises:
            MissingExtraError: If pyspark is not installed.
        """
        try:
            from pyspark import SparkContext
            from pyspark.sql import SparkSession
        except ModuleNotFoundError as error:
            raise MissingExtraError("pyspark", "spark", "the engine 'spark'") from error
        self._is_own = SparkContext._active_spark_context is None  # noqa: SLF001  no other way
        builder = SparkSession.builder.appName("plstore select")
        self._spark: SparkSession = builder.config(
            "spark.sql.execution.arrow.pyspark.enabled", "true"
        ).getOrCreate()
        for macro in SELECTION_MACROS:
            names = ", ".join(f"{name} {kind}" for name, kind in macro.parameters)
            self._spark.sql(
                f"create or replace temporary function {macro.name}({names}) "
                f"returns {macro.returns} return {macro.body}"
            )
        self._name_candidates()
        return self

    def _name_candidates(self) -> None:
        root = self._pool.store.table("soft_labels").root
        files = [str(path) for path in self._pool.files] or [
            _spark_path(root / shard.path) for shard in self._pool.shards
        ]
        labels = self._spark.read.parquet(*files)
        barred = self._frame(self._pool.standing.barred)
        candidates = labels.join(barred, "sample_id", "left_anti")
        names_kept = ("sample_id", "class_id", "confidence", "label")
        candidates.select(*names_kept).createOrReplaceTempView("candidates")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop Spark if it was started here, and delete what it wrote."""
        if storage.is_remote(self._results):
            for entry in list(storage.files_below(self._results)):
                storage.delete_file(self._results.joinpath(*entry.path.split("/")))
        else:
            shutil.rmtree(self._results, ignore_errors=True)
        if self._is_own:
            self._spark.stop()

    def rows(
        self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query over `candidates` and some small tables.

        They come through Parquet files, so that neither driver nor Python holds them all.
        """
        from pyspark.errors import PySparkException

        for name, table in tables.items():
            self._frame(table).createOrReplaceTempView(name)
        folder = self._results / uuid4().hex
        try:
            found = self._spark.sql(_named(sql), args=dict(parameters))
            found.write.parquet(_spark_path(folder))
        except PySparkException as error:
            raise QueryError(f"Spark: {error}") from error
        names = (entry.path for entry in storage.files_below(folder))
        parts = [folder / name for name in sorted(names) if name.endswith(".parquet")]
        if parts:
            dataset = pyarrow.dataset.dataset(
                [storage.arrow_path(part) for part in parts],
                format="parquet",
                filesystem=storage.arrow_filesystem(folder),
            )
            yield from dataset.scanner(batch_size=_BATCH_ROWS, use_threads=False).to_batches()

    def _frame(self, table: pa.Table) -> "DataFrame":
        return self._spark.createDataFrame(table)


def _spark_path(path: "Path") -> str:
    """Return a path as Spark names it: Hadoop's connector for S3 is s3a."""
    return str(path).replace("s3://", "s3a://", 1) if storage.is_remote(path) else str(path)


def _named(sql: str) -> str:
    """Return SQL with Spark's marks of parameters in place of DuckDB's: ``:name``."""
    for statement in duckdb.extract_statements(sql):
        for name in sorted(statement.named_parameters, key=len, reverse=True):
            sql = sql.replace(f"${name}", f":{name}")
    return sql
