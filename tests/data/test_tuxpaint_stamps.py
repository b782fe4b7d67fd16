"""The recipe for Tux Paint's stamps, on a folder of the same shape."""

import io

import PIL.Image
import pytest

pytest.importorskip("tensorflow_datasets")

from data.tuxpaint_stamps import tuxpaint_stamps


@pytest.fixture
def stamps(tmp_path):
    folder = tmp_path / "animals" / "birds"
    folder.mkdir(parents=True)
    PIL.Image.new("RGBA", (600, 300), (255, 0, 0, 0)).save(folder / "owl.png")
    (folder / "owl.txt").write_text("An owl.\nes.utf8=Un búho.\npt_BR.utf8=Uma coruja.\nfr=old\n", encoding="utf-8")
    for name in (
        "owl_desc.ogg",
        "owl_desc_es.ogg",
        "owl_desc_pt_BR.wav",
        "owl_desc_fr.ogg",
        "owl.ogg",
        "crow_desc.ogg",
    ):
        (folder / name).write_bytes(b"sound")
    return tmp_path


def test_triples_have_a_picture_a_recording_and_a_caption_of_its_language(stamps):
    found = {t.language: t for t in tuxpaint_stamps.triples(stamps)}
    assert {language: t.caption for language, t in found.items()} == {
        "en": "An owl.",
        "es": "Un búho.",
        "pt_BR": "Uma coruja.",
    }
    assert found["es"].caption_en == "An owl."
    assert found["es"].category == "animals"
    assert found["es"].key == "animals/birds/owl:es"


def test_pictures_are_small_and_on_white(stamps):
    image = PIL.Image.open(io.BytesIO(tuxpaint_stamps.picture_png(stamps / "animals/birds/owl.png")))
    assert image.size == (256, 128)
    assert image.getpixel((5, 5)) == (255, 255, 255)


def test_the_split_depends_on_the_stamp_alone(stamps):
    png, svg = (stamps / "animals" / f"owl.{kind}" for kind in ("png", "svg"))
    assert tuxpaint_stamps.is_test(png, stamps) == tuxpaint_stamps.is_test(svg, stamps)
