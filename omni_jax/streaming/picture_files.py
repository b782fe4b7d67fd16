"""Users' pictures, prepared as the training pictures were: on white, cropped to the subject, centred in a square."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

from omni_jax.errors import UserError
from omni_jax.streaming.audio_files import require_file

MAX_PIXELS = 64_000_000
MAX_BYTES = 100_000_000
_BACKGROUND = 245  # a pixel whose channels are all at least this bright is background
_MARGIN_PIXELS = 1


def read_picture(path: str | Path, image_size: int) -> Float[np.ndarray, "H W 3"]:
    """RGB in [0, 1] at `image_size` x `image_size`. Raises UserError for what is not a readable picture."""
    path = Path(path)
    require_file(path, MAX_BYTES, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(path)
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"{path}: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read: make it smaller"
            )
        image = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise UserError(f"{path}: not a picture that can be read: give a PNG, JPEG, WebP, GIF or BMP file") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: damaged picture ({error}): copy or save it again") from None
    return np.asarray(_fit(_on_white(image, path), image_size), np.float32) / 255.0


def _on_white(image: Image.Image, path: Path) -> Image.Image:
    """RGB on white, cropped to what is not background."""
    rgb = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    rows, columns = np.where(np.asarray(rgb).min(axis=-1) < _BACKGROUND)
    if not len(rows):
        raise UserError(f"{path}: the picture is blank: give one that shows something")
    return rgb.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))


def _fit(rgb: Image.Image, size: int) -> Image.Image:
    scale = (size - 2 * _MARGIN_PIXELS) / max(rgb.size)
    scaled = rgb.resize([max(1, round(side * scale)) for side in rgb.size], Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), "white")
    square.paste(scaled, ((size - scaled.width) // 2, (size - scaled.height) // 2))
    return square
