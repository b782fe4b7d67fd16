"""TFDS builder of the sample corpus "talking picture book".

What it packs is made by the steps that the README beside this file lists; `build.py` runs it. The result is read with
`tfds.builder_from_directory("data/corpus/picture_book/speech/1.0.0")`, with grain, or as plain ArrayRecord files of
serialised `tf.train.Example`.
"""

import concurrent.futures
import functools
import json
import multiprocessing
import pathlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data.picture_book import clips, crowd, fetch, readings, script, speech
from data.picture_book.timing import SAMPLE_RATE

INTEGER = np.int64
CONFIGS = {
    "pictures": "Clip art and icons of everyday things, 64 x 64, with labels",
    "speech": "Questions, requests and answers, synthesised, with word and phone timings",
    "readings": "Dictionary lines, each read in a blended voice of its own, for the codec alone",
    "crowd": "The users' training lines again, each clip in a blended voice of its own",
    "text": "Short glosses and examples, and what the corpus says, as writing",
}


def features(config: str) -> tfds.features.FeaturesDict:
    """The fields of each config; every one is a bytes or an int64 list in the stored `tf.train.Example`."""
    text, many = tfds.features.Text, tfds.features.Sequence
    if config == "pictures":
        fields = {"image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png"), "label": text(),
                  "cluster": INTEGER, "source": text()}  # fmt: skip
    elif config == "text":
        fields = {"text": text(), "source": text()}
    else:
        fields = {name: text() for name in ("id", "role", "voice", "kind", "text", "spoken", "reply", "answer_id",
                                            "template", "slot")}  # fmt: skip
        fields |= {name: INTEGER for name in ("sample_rate", "num_samples", "held_voice", "held_text")}
        fields["audio"] = tfds.features.Tensor(shape=(), dtype=np.object_)  # an Ogg Opus file
        for unit in ("word", "phone"):
            fields |= {f"{unit}s": many(text()), f"{unit}_start_ms": many(INTEGER), f"{unit}_end_ms": many(INTEGER)}
    return tfds.features.FeaturesDict(fields)


class PictureBook(tfds.core.GeneratorBasedBuilder):
    """Pictures, speech and text of the talking picture book."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name, description=text) for name, text in CONFIGS.items()]

    build_dir: pathlib.Path = fetch.BUILD_DIR  # these two are set by `build.py`
    workers: int = 2

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features(self.builder_config.name), homepage="https://freedesktop.org/wiki/Openclipart/"
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # `fetch.py` has fetched everything
        speak = functools.partial(speech_examples, workers=self.workers)
        read = functools.partial(reading_examples, workers=self.workers)
        ask = functools.partial(crowd_examples, workers=self.workers)
        make = {"pictures": picture_examples, "speech": speak, "readings": read, "crowd": ask, "text": text_examples}
        splits = ("train",) if self.builder_config.name in ("readings", "crowd") else ("train", "test")
        return {split: make[self.builder_config.name](self.build_dir, split) for split in splits}

    def _generate_examples(self):
        raise NotImplementedError("every split has its own generator")


def picture_examples(build_dir: pathlib.Path, split: str) -> Iterator[tuple[str, dict]]:
    """The pictures that `pictures.py` drew."""
    folder = build_dir / "pictures"
    for row in json.loads((folder / "table.json").read_text()):
        if row["split"] == split:
            fields = {name: row[name] for name in ("label", "cluster", "source")}
            yield row["file"], {"image": str(folder / row["file"]), **fields}


def text_examples(build_dir: pathlib.Path, split: str) -> Iterator[tuple[int, dict]]:
    """The lines that `text.py` collected."""
    for i, (text, source, own_split) in enumerate(json.loads((build_dir / "text.json").read_text())):
        if own_split == split:
            yield i, {"text": text, "source": source}


def speech_examples(build_dir: pathlib.Path, split: str, workers: int) -> Iterator[tuple[str, dict]]:
    """The clips that `speech.py` has made so far, and of those only the questions whose answers are there."""
    made = [u for u in script.plan() if speech.clip_paths(build_dir, u)[1].exists()]
    answers = {u.text: u.id for u in made if u.role == "assistant"}
    wanted = [u for u in made if u.split == split and (u.reply in ("", script.PICTURE) or u.reply in answers)]
    yield from finished_examples(build_dir, wanted, answers, workers)


def reading_examples(build_dir: pathlib.Path, split: str, workers: int) -> Iterator[tuple[str, dict]]:
    """The readings that `speech.py` has made so far; all are for training."""
    made = [u for u in readings.plan(build_dir) if u.split == split and speech.clip_paths(build_dir, u)[1].exists()]
    yield from finished_examples(build_dir, made, {}, workers)


def crowd_examples(build_dir: pathlib.Path, split: str, workers: int) -> Iterator[tuple[str, dict]]:
    """The crowd's clips that `speech.py` has made so far; the answers are those of `speech`."""
    made = [u for u in crowd.plan() if u.split == split and speech.clip_paths(build_dir, u)[1].exists()]
    answers = {u.text: u.id for u in script.assistant_replies()}
    yield from finished_examples(build_dir, made, answers, workers)


def finished_examples(
    build_dir: pathlib.Path, wanted: list[script.Utterance], answers: dict[str, str], workers: int
) -> Iterator[tuple[str, dict]]:
    """Finishes the clips of `wanted`; `answers` are the ids of the replies."""
    paths = [speech.clip_paths(build_dir, u) for u in wanted]
    spawn = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        finished = pool.map(clips.load, *zip(*paths, strict=True), [u.role for u in wanted], chunksize=8)
        for utterance, clip in zip(wanted, finished, strict=True):
            yield utterance.id, speech_example(utterance, clip, answers.get(utterance.reply, ""))


def speech_example(utterance: script.Utterance, clip: clips.Clip, answer_id: str) -> dict:
    """One clip with everything that is known about it."""
    copied = ("id", "role", "voice", "kind", "text", "spoken", "reply", "template", "slot", "held_voice", "held_text")
    return {
        "audio": clip.opus,
        "sample_rate": SAMPLE_RATE,
        "num_samples": clip.num_samples,
        "answer_id": answer_id,
        "words": clip.words,
        "word_start_ms": [start for start, _ in clip.word_times],
        "word_end_ms": [end for _, end in clip.word_times],
        "phones": clip.phones,
        "phone_start_ms": [start for start, _ in clip.phone_times],
        "phone_end_ms": [end for _, end in clip.phone_times],
        **{name: getattr(utterance, name) for name in copied},
    }
