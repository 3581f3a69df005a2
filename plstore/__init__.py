"""plstore: a pseudo-label store and toolkit for Noisy Student training.

``plstore.open(path)`` gives a `Store`: tables, commits, versions.
``plstore.connect(store)`` gives a read-only DuckDB session over a snapshot of it.
``plstore.select(store, ...)`` chooses what a student trains on and writes a view.
``plstore.load(view, ...)`` feeds a view to a training loop.

Every verb of the command line has its call here; API.md shows them. Everything is imported on
first use, so that ``import plstore`` costs nothing, and training needs its extra only when it
is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from plstore.version import __version__

if TYPE_CHECKING:
    from plstore.codec import Codec
    from plstore.errors import PlstoreError
    from plstore.exchange import (
        Source,
        export,
        export_review,
        image_folders,
        image_listing,
        import_predictions,
        import_review,
        parquet_folder,
        path_list,
        read_corrections,
        sample_ids,
        tar_files,
    )
    from plstore.exchange import import_source as import_images
    from plstore.labels import Member, TeacherRecord, find_teacher, list_teachers
    from plstore.labels import make_ensemble as fuse
    from plstore.loaders import load
    from plstore.query import audit, connect, diff, list_queries, run_query, run_sql
    from plstore.report.notebook import Gallery, show
    from plstore.report.runs import find_run, list_runs, report_run
    from plstore.selection import Balance, Rule, Selection, preview, select
    from plstore.store import (
        Store,
        create,
        open,  # noqa: A004  plstore.open is the door
        tags,
    )
    from plstore.store import add_tag as tag
    from plstore.upkeep import collect, compact, correct, erase, exclude, take_back, verify
    from plstore.views import open_view
    from trainers.ablation import Ablation, ablate
    from trainers.engines import Ray
    from trainers.evaluation.calibration import calibrate
    from trainers.evaluation.evaluate import evaluate
    from trainers.evaluation.probe import Probed, probe
    from trainers.evaluation.test_sets import import_answers, import_test_set
    from trainers.exporting import export_model
    from trainers.features.embedding import Embedding
    from trainers.features.work import embed_images as embed
    from trainers.labeling.label import Labeling, label, label_by_all
    from trainers.loop import run
    from trainers.models.bringing import bring_teacher
    from trainers.on_view import train_on_view as train
    from trainers.planning import Wishes
    from trainers.planning.planned import plan_recipe
    from trainers.prediction.predict import (
        Predicted,
        Prediction,
        predict,
        predictions,
        write_predictions,
    )
    from trainers.recipe import Recipe, load_recipe
    from trainers.robustness.evaluation import Robustness, robustness

_HOMES = {
    "Ablation": "trainers.ablation",
    "Balance": "plstore.selection",
    "Codec": "plstore.codec",
    "Embedding": "trainers.features.embedding",
    "Gallery": "plstore.report.notebook",
    "Labeling": "trainers.labeling.label",
    "Member": "plstore.labels",
    "PlstoreError": "plstore.errors",
    "Predicted": "trainers.prediction.predict",
    "Prediction": "trainers.prediction.predict",
    "Probed": "trainers.evaluation.probe",
    "Ray": "trainers.engines",
    "Recipe": "trainers.recipe",
    "Robustness": "trainers.robustness.evaluation",
    "Rule": "plstore.selection",
    "Selection": "plstore.selection",
    "Source": "plstore.exchange",
    "Store": "plstore.store",
    "TeacherRecord": "plstore.labels",
    "Wishes": "trainers.planning",
    "ablate": "trainers.ablation",
    "audit": "plstore.query",
    "bring_teacher": "trainers.models.bringing",
    "calibrate": "trainers.evaluation.calibration",
    "collect": "plstore.upkeep",
    "compact": "plstore.upkeep",
    "connect": "plstore.query",
    "correct": "plstore.upkeep",
    "create": "plstore.store",
    "diff": "plstore.query",
    "embed": "trainers.features.work:embed_images",
    "erase": "plstore.upkeep",
    "evaluate": "trainers.evaluation.evaluate",
    "exclude": "plstore.upkeep",
    "export": "plstore.exchange",
    "export_model": "trainers.exporting",
    "export_review": "plstore.exchange",
    "find_run": "plstore.report.runs",
    "find_teacher": "plstore.labels",
    "fuse": "plstore.labels:make_ensemble",
    "image_folders": "plstore.exchange",
    "image_listing": "plstore.exchange",
    "import_answers": "trainers.evaluation.test_sets",
    "import_images": "plstore.exchange:import_source",
    "import_predictions": "plstore.exchange",
    "import_review": "plstore.exchange",
    "import_test_set": "trainers.evaluation.test_sets",
    "label": "trainers.labeling.label",
    "label_by_all": "trainers.labeling.label",
    "list_queries": "plstore.query",
    "list_runs": "plstore.report.runs",
    "list_teachers": "plstore.labels",
    "load": "plstore.loaders",
    "load_recipe": "trainers.recipe",
    "open": "plstore.store",
    "open_view": "plstore.views",
    "parquet_folder": "plstore.exchange",
    "path_list": "plstore.exchange",
    "plan_recipe": "trainers.planning.planned",
    "predict": "trainers.prediction.predict",
    "predictions": "trainers.prediction.predict",
    "preview": "plstore.selection",
    "probe": "trainers.evaluation.probe",
    "read_corrections": "plstore.exchange",
    "report_run": "plstore.report.runs",
    "robustness": "trainers.robustness.evaluation",
    "run": "trainers.loop",
    "run_query": "plstore.query",
    "run_sql": "plstore.query",
    "sample_ids": "plstore.exchange",
    "select": "plstore.selection",
    "show": "plstore.report.notebook",
    "tag": "plstore.store:add_tag",
    "tags": "plstore.store",
    "take_back": "plstore.upkeep",
    "tar_files": "plstore.exchange",
    "train": "trainers.on_view:train_on_view",
    "verify": "plstore.upkeep",
    "write_predictions": "trainers.prediction.predict",
}
"""Where each public name is: a room, and its name there where it is another."""

__all__ = [
    "Ablation",
    "Balance",
    "Codec",
    "Embedding",
    "Gallery",
    "Labeling",
    "Member",
    "PlstoreError",
    "Predicted",
    "Prediction",
    "Probed",
    "Ray",
    "Recipe",
    "Robustness",
    "Rule",
    "Selection",
    "Source",
    "Store",
    "TeacherRecord",
    "Wishes",
    "__version__",
    "ablate",
    "audit",
    "bring_teacher",
    "calibrate",
    "collect",
    "compact",
    "connect",
    "correct",
    "create",
    "diff",
    "embed",
    "erase",
    "evaluate",
    "exclude",
    "export",
    "export_model",
    "export_review",
    "find_run",
    "find_teacher",
    "fuse",
    "image_folders",
    "image_listing",
    "import_answers",
    "import_images",
    "import_predictions",
    "import_review",
    "import_test_set",
    "label",
    "label_by_all",
    "list_queries",
    "list_runs",
    "list_teachers",
    "load",
    "load_recipe",
    "open",
    "open_view",
    "parquet_folder",
    "path_list",
    "plan_recipe",
    "predict",
    "predictions",
    "preview",
    "probe",
    "read_corrections",
    "report_run",
    "robustness",
    "run",
    "run_query",
    "run_sql",
    "sample_ids",
    "select",
    "show",
    "tag",
    "tags",
    "take_back",
    "tar_files",
    "train",
    "verify",
    "write_predictions",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'plstore' has no attribute {name!r}")
    room, _, there = _HOMES[name].partition(":")
    try:
        return getattr(import_module(room), there or name)
    except ModuleNotFoundError as error:
        from plstore.errors import MissingExtraError

        if not room.startswith("trainers"):
            raise
        raise MissingExtraError(error.name or "torch", "train", f"plstore.{name}") from error
