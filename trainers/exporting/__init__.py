"""A model of a store, written so that it can be used anywhere: timm, ONNX or torch.export."""

from trainers.exporting.exporting import export_model
from trainers.exporting.formats import ExportedModel, ModelKind

__all__ = ["ExportedModel", "ModelKind", "export_model"]
