"""Users' pictures are prepared as the training pictures were."""

import numpy as np
import pytest
from PIL import Image

from omni_jax.errors import UserError
from omni_jax.streaming.picture_files import read_picture


def test_subject_is_centred_on_white(tmp_path):
    drawing = np.zeros((200, 300, 4), np.uint8)  # transparent
    drawing[50:90, 100:180] = (255, 0, 0, 255)  # 40 x 80
    Image.fromarray(drawing).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", 64)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.float32
    red = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.1)
    rows, columns = np.where(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 46, 1, 62)
    assert (picture[:15] == 1.0).all()


def test_rotation_tag_is_followed(tmp_path):
    photo = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = photo.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    photo.save(tmp_path / "a.jpg", exif=exif)
    dark = read_picture(tmp_path / "a.jpg", 64)[..., 0] < 0.5
    assert dark.any(axis=1).sum() == 62 and dark.any(axis=0).sum() == 31


def test_blank_and_huge_pictures_are_refused(tmp_path):
    Image.new("RGB", (30, 30), "white").save(tmp_path / "blank.png")
    with pytest.raises(UserError, match=r"blank\.png: the picture is blank"):
        read_picture(tmp_path / "blank.png", 64)
    Image.new("1", (9_000, 9_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match="9000 x 9000 pixels, at most 64,000,000"):
        read_picture(tmp_path / "huge.png", 64)
