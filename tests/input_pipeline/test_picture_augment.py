"""Pictures varied for training: what stays the same, and what must not be lost."""

import numpy as np
import pytest

from omni_jax.input_pipeline import picture_augment as augment

SEEDS = range(60)


@pytest.fixture
def disc() -> np.ndarray:
    """A red disc on white, in the middle of 64 x 64 pixels."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    image = np.full((64, 64, 3), 255, np.uint8)
    image[np.hypot(rows, columns) < 20] = (200, 30, 30)
    return image


@pytest.fixture
def flag() -> np.ndarray:
    """A square whose upper left quarter is black and whose rest is blue, on white."""
    image = np.full((64, 64, 3), 255, np.uint8)
    image[12:52, 12:52] = (0, 0, 250)
    image[12:32, 12:32] = 0
    return image


def subject_of(image: np.ndarray) -> np.ndarray:
    return image.min(axis=-1) < augment.BACKGROUND


def test_a_shape_is_the_subject_filled_or_its_outline(disc):
    subject = subject_of(disc)
    shapes = [augment.shape_of(np.random.default_rng(seed), disc)[..., 0] == 0 for seed in range(20)]
    assert {bool(shape[32, 32]) for shape in shapes} == {True, False}
    for shape in shapes:
        assert not shape[~subject].any() and shape[12:14, 32].all()
        assert shape.sum() == subject.sum() or shape.sum() < 0.5 * subject.sum()


@pytest.mark.parametrize("height", [40, 64])
def test_a_photograph_has_no_shape_also_in_a_white_frame(height):
    photograph = np.full((64, 64, 3), 255, np.uint8)
    photograph[:height] = np.random.default_rng(0).integers(0, 200, (height, 64, 3))
    np.testing.assert_array_equal(augment.shape_of(np.random.default_rng(1), photograph), photograph)


def test_moved_pictures_are_turned_mirrored_and_scaled_about_the_middle(flag, disc):
    sides, areas, centres = set(), [], []
    for seed in SEEDS:
        moved = augment.move(np.random.default_rng(seed), flag)
        rows, columns = np.nonzero(moved.max(axis=-1) < 60)
        blue_rows, blue_columns = np.nonzero((moved[..., 2] > 200) & (moved[..., 0] < 60))
        assert rows.mean() < blue_rows.mean(), "turned by less than a quarter, never upside down"
        sides.add(bool(columns.mean() < blue_columns.mean()))
        subject = np.nonzero(subject_of(augment.move(np.random.default_rng(seed), disc)))
        areas.append(len(subject[0]) / subject_of(disc).sum())
        centres.append([axis.mean() - 31.5 for axis in subject])
    assert sides == {True, False}
    assert min(areas) < 0.7 and max(areas) > 1.2 and min(areas) > 0.35 and max(areas) < 2.0
    assert np.abs(np.mean(centres, axis=0)).max() < 1.5 and 3 < np.abs(centres).max() < 10


def test_recoloured_pictures_stay_on_white_and_change_their_colours(flag):
    blues = set()
    for seed in SEEDS:
        recoloured = augment.recolour(np.random.default_rng(seed), flag)
        assert (recoloured[0] == 255).all()
        blues.add(int(np.argmax(recoloured[40, 40])) if np.ptp(recoloured[40, 40]) else -1)
    assert blues == {-1, 0, 1, 2}


def test_of_some_pictures_one_rectangle_of_at_most_a_half_by_a_half_is_erased():
    black = np.zeros((64, 64, 3), np.uint8)
    erased = [augment.erase(np.random.default_rng(seed), black)[..., 0] == 255 for seed in SEEDS]
    assert 0.1 < np.mean([mask.any() for mask in erased]) < 0.5
    for mask in erased:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum() and max(rows.sum(), columns.sum()) <= 32


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_the_smallest_pictures_are_varied_too(shape):
    image = np.zeros((*shape, 3), np.uint8)
    for seed in SEEDS:
        assert augment.vary_picture(np.random.default_rng(seed), image).shape == image.shape


def test_variation_is_a_function_of_the_random_numbers_and_leaves_the_picture_alone(disc):
    before = disc.copy()
    varied = [augment.vary_picture(np.random.default_rng(seed), disc) for seed in (7, 8, 7)]
    np.testing.assert_array_equal(varied[0], varied[2])
    assert (varied[0] != varied[1]).any()
    np.testing.assert_array_equal(disc, before)
