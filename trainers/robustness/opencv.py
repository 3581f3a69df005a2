"""OpenCV, imported when it is needed, with what to do where it does not load."""

from typing import Any

from plstore.errors import MissingExtraError, PlstoreError


def opencv() -> Any:  # noqa: ANN401  a module
    """Return the module cv2.

    Raises:
        MissingExtraError: If no package of OpenCV is installed.
        PlstoreError: If one is, and does not load: opencv-python needs libGL.so.1, which a
            server may not have, opencv-python-headless does not; both write this module.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        purpose = "changing images"
        raise MissingExtraError("opencv-python-headless", "robustness", purpose) from error
    except ImportError as error:
        raise PlstoreError(
            f"OpenCV is installed and does not load: {error}. If it is libGL that is missing: "
            "pip uninstall opencv-python, then pip install --force-reinstall --no-deps "
            "opencv-python-headless"
        ) from error
    return cv2
