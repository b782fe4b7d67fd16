"""TFDS builder of Tux Paint's stamps: (picture, caption, human recording) triples in a dozen languages.

The pictures and recordings are under GPL-2, so that only this recipe is shipped:

    python -m data.tuxpaint_stamps.build

fetches Debian's `tuxpaint-stamps-default` (161 MB) and packs about 7,300 triples, 175 minutes, of 925 pictures. They
are home recordings of single words and short sentences: good for learning to listen in several languages, no model of
how to speak. A picture is in one split only, in all its languages.
"""

import hashlib
import io
import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

LARGEST_SIDE = 256
TEST_PERCENT = 10
RECORDING = re.compile(r"^(?P<name>.+)_desc(?:_(?P<language>[a-z]{2}(?:_[A-Z]{2})?))?\.(?:ogg|wav)$")


class Triple(NamedTuple):
    """One recording with its picture and captions; `language` is ISO 639-1, some with a region (pt_BR)."""

    key: str
    image: pathlib.Path
    recording: pathlib.Path
    language: str
    caption: str
    caption_en: str
    category: str


def captions(path: pathlib.Path) -> dict[str, str]:
    """Language to caption: the first line is English, then lines like `es.utf8=Una rana.`"""
    first, *rest = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    found = {"en": first.strip()}
    for line in rest:
        match = re.match(r"([a-z]{2,3}(?:_[A-Z]{2})?)\.utf8\s*=\s*(.*\S)", line)
        if match:
            found[match[1]] = match[2]
    return found


def triples(root: pathlib.Path) -> Iterator[Triple]:
    """Every recording below `root` that has both a picture and a caption in its language."""
    for recording in sorted(p for p in root.rglob("*_desc*") if RECORDING.match(p.name)):
        match = RECORDING.match(recording.name)
        stem, language = recording.parent / match["name"], match["language"] or "en"
        image = next((p for s in (".png", ".svg") if (p := stem.with_name(stem.name + s)).exists()), None)
        text = stem.with_name(stem.name + ".txt")
        if image is None or not text.exists():
            continue
        known = captions(text)
        if known.get(language):
            relative = stem.relative_to(root)
            yield Triple(f"{relative.as_posix()}:{language}", image, recording, language, known[language], known["en"],
                         relative.parts[0])  # fmt: skip


def is_test(image: pathlib.Path, root: pathlib.Path) -> bool:
    """Whether a picture, with all its recordings, belongs to the test split."""
    digest = hashlib.sha256(image.relative_to(root).with_suffix("").as_posix().encode()).digest()
    return digest[0] * 100 < TEST_PERCENT * 256


def picture_png(path: pathlib.Path) -> bytes:
    """The picture on white, at most LARGEST_SIDE pixels a side, as PNG; SVG goes through rsvg-convert."""
    data = path.read_bytes()
    if path.suffix == ".svg":
        command = ["rsvg-convert", "--width", str(LARGEST_SIDE), "--height", str(LARGEST_SIDE), "--keep-aspect-ratio"]
        data = subprocess.run([*command, str(path)], capture_output=True, check=True).stdout
    image = PIL.Image.open(io.BytesIO(data)).convert("RGBA")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    white = PIL.Image.new("RGBA", image.size, "white")
    PIL.Image.alpha_composite(white, image).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


class TuxpaintStamps(tfds.core.GeneratorBasedBuilder):
    """Pictures, captions and recordings of Tux Paint's stamps."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}

    stamps_dir: pathlib.Path = pathlib.Path("/usr/share/tuxpaint/stamps")  # set by `build.py`

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        fields = {name: text() for name in ("language", "caption", "caption_en", "category", "stamp")}
        fields["image"] = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        fields["audio"] = tfds.features.Tensor(shape=(), dtype=np.object_)  # the file as it is: Ogg Vorbis, some WAV
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(fields), homepage="https://tuxpaint.org/stamps/", license="GPL-2"
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # `build.py` has fetched the package
        return {"train": self._generate_examples(test=False), "test": self._generate_examples(test=True)}

    def _generate_examples(self, test: bool) -> Iterator[tuple[str, dict]]:
        drawn: tuple[pathlib.Path, bytes] | None = None
        for triple in triples(self.stamps_dir):
            if is_test(triple.image, self.stamps_dir) != test:
                continue
            if drawn is None or drawn[0] != triple.image:
                drawn = triple.image, picture_png(triple.image)
            fields = {name: getattr(triple, name) for name in ("language", "caption", "caption_en", "category")}
            yield (
                triple.key,
                {
                    "image": io.BytesIO(drawn[1]),
                    "audio": triple.recording.read_bytes(),
                    "stamp": triple.key.rsplit(":", 1)[0],
                    **fields,
                },
            )
