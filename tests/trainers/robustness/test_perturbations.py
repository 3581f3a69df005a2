"""P-style sequences: each perturbation beside another library's, and the same bits anywhere."""

from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from imagecorruptions.corruptions import _motion_blur
from scipy.ndimage import affine_transform
from skimage.color import hsv2rgb, rgb2hsv
from skimage.transform import ProjectiveTransform, warp

from plstore.errors import InputError
from tests.trainers.robustness.given import make_batches, make_images
from trainers.robustness.perturbations import perturbed, sequence
from trainers.robustness.published import PERTURBATIONS
from trainers.robustness.strengths import PUBLISHED, strengths_of

MIDDLE = ("brightness", "translate", "rotate", "tilt")


def frames_of(
    name: str, size: int = 64, channels: int = 3, num_frames: int | None = None
) -> npt.NDArray[Any]:
    [pixels] = make_images(1, size, channels)
    return sequence(pixels, sample_id=9, name=name, num_frames=num_frames)


def differ(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> int:
    """Return by how many grey levels images differ at most, but for a border of two."""
    inside = np.s_[..., 2:-2, 2:-2, :]
    return int(np.abs(first[inside].astype(int) - second[inside].astype(int)).max())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sequence_has_31_frames_that_change_little_by_little(channels: int) -> None:
    [pixels] = make_images(1, 64, channels)
    for name in PERTURBATIONS:
        frames = frames_of(name, channels=channels)
        assert frames.shape == (31, 64, 64, channels)
        assert frames.dtype == np.uint8
        steps = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert 0 < steps.min() <= steps.max() < 25, name
        if name in MIDDLE:
            assert np.array_equal(frames[15], pixels), name
        if "noise" in name or name == "zoom_blur":
            assert np.array_equal(frames[0], pixels), name


def test_any_number_of_workers_makes_the_same_bits_in_the_same_order() -> None:
    def hashes(workers: int) -> list[tuple[str, list[int], str]]:
        said: list[int] = []
        found = [
            (done.name, done.sample_ids.tolist(), sha256(done.pixels.tobytes()).hexdigest())
            for done in perturbed(
                make_batches(3, 28, 1, 2), workers=workers, on_progress=said.append
            )
        ]
        assert said[-1] == 3 * len(PERTURBATIONS)
        return found

    alone = hashes(0)
    assert [found[0] for found in alone] == [*PERTURBATIONS] * 2
    assert [found[1] for found in alone] == [[100, 101]] * 10 + [[102]] * 10
    assert hashes(2) == alone


def test_what_is_random_depends_on_the_id_alone() -> None:
    [(ids, pixels)] = make_batches(2, 32, 3, 2)
    [both] = perturbed([(ids, pixels)], ["snow"])

    assert np.array_equal(both.pixels[1], sequence(pixels[1], sample_id=101, name="snow"))
    assert not np.array_equal(both.pixels[1], sequence(pixels[1], sample_id=7, name="snow"))


def test_noise_has_its_strength() -> None:
    gray = np.full((224, 224, 3), 128, np.uint8)
    gaussian = sequence(gray, sample_id=1, name="gaussian_noise")[1:] / 255
    shot = sequence(gray, sample_id=1, name="shot_noise")[1:] / 255

    assert gaussian.std() == pytest.approx(0.03, rel=0.02)
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 300), rel=0.02)
    assert gaussian.mean() == pytest.approx(128 / 255, abs=1e-3)
    assert shot.mean() == pytest.approx(128 / 255, abs=1e-3)


def test_motion_blur_is_that_of_imagemagick_as_another_package_has_it() -> None:
    [pixels] = make_images(1, 64, 3)
    frames = frames_of("motion_blur")
    for number in (0, 7, 30):
        expected = _motion_blur(pixels, radius=14, sigma=3, angle=5 * (number - 30))
        assert differ(frames[number], np.rint(expected)) <= 1


def test_translation_moves_whole_pixels_to_the_right_and_leaves_black() -> None:
    [pixels] = make_images(1, 64, 3)
    frames = frames_of("translate")

    assert np.array_equal(frames[18][:, 3:], pixels[:, :-3])
    assert not frames[18][:, :3].any()
    assert np.array_equal(frames[0][:, :-15], pixels[:, 15:])


def linear(pixels: npt.NDArray[np.uint8], degrees: float, scale: float) -> npt.NDArray[Any]:
    """Return an image turned and scaled about its middle, by scipy."""
    cos, sin = np.cos(np.deg2rad(degrees)) / scale, np.sin(np.deg2rad(degrees)) / scale
    matrix, middle = np.array([[cos, sin], [-sin, cos]]), (len(pixels) - 1) / 2
    offset = middle - matrix @ [middle, middle]
    by_channel = [
        affine_transform(
            pixels[..., channel].astype(float), matrix, offset, order=1, mode="grid-constant"
        )
        for channel in range(pixels.shape[2])
    ]
    return np.stack(by_channel, axis=-1)


def test_rotation_scale_and_zoom_blur_are_those_of_scipy() -> None:
    [pixels] = make_images(1, 64, 3)
    smooth = pixels // 4  # an edge between coordinates of 1/32 px may differ by its height / 32

    for number in (0, 12, 30):
        turned = sequence(smooth, sample_id=1, name="rotate")[number]
        assert differ(turned, linear(smooth, number - 15, 1)) <= 2
        scaled = sequence(smooth, sample_id=1, name="scale")[number]
        assert differ(scaled, linear(smooth, 0, 0.4 + 0.025 * number)) <= 2
    zoomed = [linear(smooth, 0, 1 + 0.004 * number) for number in range(11)]
    blurred = sequence(smooth, sample_id=1, name="zoom_blur")[10]
    assert differ(blurred, np.mean(zoomed, axis=0)) <= 2


def test_tilt_is_a_turn_about_both_axes_before_a_camera() -> None:
    """Corners, turned in space by matrices of their own, lie where the image shows them."""
    [pixels] = make_images(1, 64, 3)
    smooth, far, middle = pixels // 4, 64 * np.sqrt(2), 31.5
    angle = np.deg2rad(6)
    cos, sin = np.cos(angle), np.sin(angle)
    upright = np.array([[cos, 0, 0], [0, 1, 0], [sin, 0, cos]])
    level = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    corners = np.array([[-20.0, -20, 0], [20, -20, 0], [20, 20, 0], [-20, 20, 0]])
    x, y, z = (level @ upright @ corners.T).astype(float)
    seen = np.stack([x, y], axis=1) * (far / (far + z))[:, None]
    transform = ProjectiveTransform.from_estimate(seen + middle, corners[:, :2] + middle)
    expected = warp(smooth, transform, order=1, preserve_range=True)

    tilted = sequence(smooth, sample_id=1, name="tilt")[21]
    assert differ(tilted, expected) <= 2


def test_brightness_is_added_to_the_value_of_hsv() -> None:
    [pixels] = make_images(1, 64, 3)
    hsv = rgb2hsv(pixels)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.02 * 10, 0, 1)

    assert differ(frames_of("brightness")[25], np.rint(hsv2rgb(hsv) * 255)) <= 1
    gray = make_images(1, 64, 1)[0]
    brighter = sequence(gray, sample_id=1, name="brightness")[25]
    assert np.array_equal(brighter, np.rint(np.clip(gray / 255 + 0.2, 0, 1) * 255))


def test_snow_falls_on_a_whitened_image() -> None:
    """Where no flake is, a pixel is mixed with 1.5 times its grey and a half."""
    frames = sequence(np.full((64, 64, 3), 51, np.uint8), sample_id=3, name="snow")
    without = round((0.85 * 0.2 + 0.15 * (0.2 * 1.5 + 0.5)) * 255)

    assert (frames.min(axis=(1, 2, 3)) == without).all()
    share = (frames > without).mean()
    assert 0.02 < share < 0.9
    assert np.array_equal(frames, np.rot90(frames, k=2, axes=(1, 2)))


def test_strengths_are_published_ones_and_lengths_grow_with_the_side() -> None:
    for side, published in PUBLISHED.items():
        assert strengths_of(side) == published
    small, large = strengths_of(28), strengths_of(448)

    assert small.blur == (6 * 28 / 32, 1.8 * 28 / 32)
    assert (small.noise_std, small.pixels, small.flake) == (0.02, 1, 2 * 28 / 32)
    assert (large.noise_std, large.pixels, large.flake) == (0.03, 2, 6)
    with pytest.raises(InputError, match="size is 0 pixels"):
        strengths_of(0)


def test_as_many_frames_as_are_published_or_wanted() -> None:
    assert len(frames_of("translate", 32)) == 16
    assert len(frames_of("motion_blur", 32)) == 21
    assert len(frames_of("rotate", 32)) == 31
    assert len(frames_of("translate", 224, 1)) == 41
    assert len(frames_of("translate", 32, num_frames=5)) == 5
    first = frames_of("gaussian_noise", num_frames=3)
    assert np.array_equal(frames_of("gaussian_noise", num_frames=6)[:3], first)


def test_sequences_of_one_frame_and_unknown_names_are_refused() -> None:
    batches = make_batches(1, 32, 3, 1)
    with pytest.raises(
        InputError, match="num_frames is 1; wanted 2 or more, since predictions"
    ):
        perturbed(batches, num_frames=1)
    with pytest.raises(InputError, match="num_frames is 0; wanted 2"):
        frames_of("snow", num_frames=0)
    with pytest.raises(InputError, match=r"perturbation is 'fog'; wanted .* gaussian_noise"):
        perturbed(batches, ["fog"])
    with pytest.raises(InputError, match="workers is True; wanted a whole number"):
        perturbed(batches, workers=True)
    with pytest.raises(InputError, match=r"images are uint8 \[1, 32, 20, 3\]"):
        sequence(batches[0][1][0, :, :20], sample_id=1, name="snow")
    with pytest.raises(InputError, match=r"wanted int64 .* of 0 or more"):
        sequence(batches[0][1][0], sample_id=-1, name="snow")
