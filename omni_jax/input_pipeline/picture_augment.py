"""Augmentation of pictures of one thing on white; randomness is passed in."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

BACKGROUND = 245  # lighter than this in every channel is background
FULL_SHARE = 0.9  # what fills more of its frame than this, as a photograph does, has no shape to show
SHAPE_SHARE = 0.15  # of pictures: only their shape is left
MIRRORED_SHARE = 0.5
SWAPPED_COLOURS_SHARE = 0.3
GREY_SHARE = 0.15
ERASED_SHARE = 0.3

Picture = UInt8[np.ndarray, "H W 3"]


def vary_picture(rng: np.random.Generator, image: Picture) -> Picture:
    """The thing as another hand may have drawn it: moved, recoloured, maybe its shape alone, maybe not all of it."""
    if rng.random() < SHAPE_SHARE:
        image = shape_of(rng, image)
    return erase(rng, recolour(rng, move(rng, image)))


def shape_of(rng: np.random.Generator, image: Picture) -> Picture:
    """What is not background in black, as on signs and icons: filled, or its outline, about two to four pixels wide.

    A picture without background, maybe in a white frame, stays as it is.
    """
    subject = image.min(axis=-1) < BACKGROUND
    rows, columns = subject.any(axis=1), subject.any(axis=0)
    if subject.sum() > FULL_SHARE * rows.sum() * columns.sum():
        return image
    if rng.random() < 0.5:
        filled = Image.fromarray(subject.astype(np.uint8) * 255)
        inside = filled.filter(ImageFilter.MinFilter(int(rng.choice([5, 7, 9]))))
        subject &= np.asarray(inside) == 0
    return np.repeat(np.where(subject, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def move(rng: np.random.Generator, image: Picture) -> Picture:
    """Mirrored or not, turned by up to 20 degrees, each side scaled by .64 to 1.38 and shifted by up to 10 %."""
    picture = Image.fromarray(image)
    if rng.random() < MIRRORED_SHARE:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    height, width = image.shape[:2]
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(0.75, 1.2)
    cos, sin = np.cos(angle), np.sin(angle)
    across, down = 1.0 / (scale * rng.uniform(0.85, 1.15, 2))
    shift_x, shift_y = rng.uniform(-0.1, 0.1, 2) * (width, height)
    offset_x = width / 2 - across * (cos * (width / 2 + shift_x) + sin * (height / 2 + shift_y))
    offset_y = height / 2 - down * (cos * (height / 2 + shift_y) - sin * (width / 2 + shift_x))
    moved = picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        (across * cos, across * sin, offset_x, -down * sin, down * cos, offset_y),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(255, 255, 255),
    )
    return np.asarray(moved)


def recolour(rng: np.random.Generator, image: Picture) -> Picture:
    """Colours swapped or taken away, and another contrast; white stays white."""
    values = image.astype(np.float32)
    if rng.random() < SWAPPED_COLOURS_SHARE:
        values = values[..., rng.permutation(3)]
    if rng.random() < GREY_SHARE:
        values = np.repeat(values.mean(-1, keepdims=True), 3, axis=-1)
    contrast = rng.uniform(0.7, 1.1)
    return np.clip(255.0 + (values - 255.0) * contrast, 0, 255).astype(np.uint8)


def erase(rng: np.random.Generator, image: Picture) -> Picture:
    """Of some pictures a rectangle is missing (random erasing, arXiv:1708.04896)."""
    if rng.random() >= ERASED_SHARE:
        return image
    height, width = image.shape[:2]
    rows, columns = _stretch(rng, height), _stretch(rng, width)
    image = image.copy()
    image[rows, columns] = 255
    return image


def _stretch(rng: np.random.Generator, side: int) -> slice:
    """An eighth to a half of a side, from somewhere in its first three quarters."""
    start = round(rng.uniform(0.0, 0.75) * side)
    return slice(start, start + round(rng.uniform(0.125, 0.5) * side))
