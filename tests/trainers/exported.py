"""What tests of exports share: models of a store, trained by nobody."""

import timm
import torch

from plstore.labels import TeacherRecord, add_teacher
from plstore.loaders import ImageFormat
from plstore.store import Store
from tests.conftest import CLASS_NAMES
from trainers.models.model import keep_bundle

IMAGES = {
    "test_resnet": ImageFormat(size=16, crop_pct=0.875, interpolation="bicubic"),
    "test_efficientnet": ImageFormat(size=24, channels=1, mean=(0.3,), std=(0.2,)),
    "test_vit": ImageFormat(size=32),
}


def give_model(
    store: Store,
    teacher_id: str = "t0",
    architecture: str = "test_resnet",
    *,
    output_names: tuple[str, ...] = CLASS_NAMES,
    **about: object,
) -> TeacherRecord:
    """Keep a model with random weights, whose outputs differ from image to image."""
    torch.manual_seed(0)
    form = IMAGES[architecture]
    sized = {"img_size": form.size} if architecture == "test_vit" else {}
    network = timm.create_model(
        architecture, num_classes=len(output_names), in_chans=form.channels, **sized
    )
    with torch.no_grad():
        network.get_classifier().weight.mul_(20)
    name, digest = keep_bundle(store, teacher_id, network, form, output_names)
    record = TeacherRecord(
        teacher_id=teacher_id,
        checkpoint=name,
        checkpoint_hash=digest,
        architecture=architecture,
        preprocessing=vars(form),
        **{"iteration": 0, "role": "teacher", **about},  # type: ignore[arg-type]  # any field
    )
    add_teacher(store, record, identity=teacher_id, step="train")
    return record
