"""Of a model card: code that loads an export and classifies one image; the tests run it."""

from typing import Final

from trainers.models.model import Bundle

_TIMM: Final = """\
import json

import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # in this folder
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
image = transform(Image.open("image.png").convert("{mode}"))
with torch.inference_mode():
    probabilities = model(image.unsqueeze(0)).softmax(dim=1)[0]
with open("config.json") as file:
    names = json.load(file)["label_names"]
print(names[int(probabilities.argmax())], float(probabilities.max()))
"""

_PIXELS: Final = """\
image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")
size, bleed = about["size"], (1 - about["crop_pct"]) / 2
image = ImageOps.fit(image, (size, size), Image.Resampling.{resampling}, bleed)
pixels = np.asarray(image, np.uint8).reshape(1, size, size, about["channels"])
pixels = pixels.transpose(0, 3, 1, 2).copy()  # uint8, as it is: the model normalises
"""

_ONNX: Final = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
with open("export.json") as file:  # the same is in session.get_modelmeta()
    about = json.load(file)
{pixels}(probabilities,) = session.run(["probabilities"], {{"images": pixels}})
print(about["class_names"][probabilities[0].argmax()], probabilities[0].max())
"""

_TORCH: Final = """\
import json

import numpy as np
import torch
from PIL import Image, ImageOps

model = torch.export.load("model.pt2").module()
with open("export.json") as file:  # the same is in the file, as an extra file
    about = json.load(file)
{pixels}with torch.inference_mode():
    probabilities = model(torch.from_numpy(pixels)).numpy()
print(about["class_names"][probabilities[0].argmax()], probabilities[0].max())
"""

_FLOATS: Final = "It takes floats, normalised as config.json says; it gives logits."
_UINT8: Final = (
    "It takes uint8 [batch, channels, size, size], any batch size, and gives float32 [batch, "
    "classes], probabilities: normalisation and softmax are in it."
)
_PACKAGES: Final = {
    "timm": "timm pillow",
    "onnx": "onnxruntime numpy pillow",
    "torch": "torch numpy pillow",
}


def how_to_load(kind: str, bundle: Bundle) -> str:
    """Return the section of a card with code that loads the model."""
    mode = "RGB" if bundle.format.channels > 1 else "L"
    pixels = _PIXELS.format(mode=mode, resampling=bundle.format.interpolation.upper())
    code = {
        "timm": _TIMM.format(mode=mode),
        "onnx": _ONNX.format(pixels=pixels),
        "torch": _TORCH.format(pixels=pixels),
    }[kind]
    takes = _FLOATS if kind == "timm" else _UINT8
    return (
        f"## How to load it\n\n{takes}\n\n`pip install {_PACKAGES[kind]}`, then in this "
        f"folder:\n\n```python\n{code}```\n"
    )
