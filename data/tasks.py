"""seqio tasks for text, speech recognition and synthesis, captions, visual questions and spoken dialogue.

Importing this registers them, and the mixtures. All have the same features, so that any of them can be mixed: `audio`
and `picture` are encoded files, `inputs` and `targets` text, each empty where a task has none.
`python -m data.cache_tasks` writes a task or a mixture as ArrayRecord; training reads that, without TensorFlow.
Your own tasks: register them in a module that imports this one, and call `data.cache_tasks.main` from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jiwer
import numpy as np
import seqio
import tensorflow as tf

from data.example_files import flac
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import Samples

CORPUS = Path(__file__).parent / "corpus" / "picture_book"
VOCABULARY = seqio.SentencePieceVocabulary(str(CORPUS / "spm.model"), extra_ids=0)
# Captions of one picture are alternatives, and stand on lines of one text.
ALTERNATIVES = "\n"
MEDIA, TEXTS = ("audio", "picture"), ("inputs", "targets")
FEATURES = {
    name: seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, required=False, dtype=tf.string, rank=0)
    for name in MEDIA
} | {name: seqio.Feature(VOCABULARY, add_eos=name == "targets") for name in TEXTS}

Fields = Mapping[str, tf.Tensor]


def rekey(**names: str | Callable[[Fields], tf.Tensor]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor: our feature -> the source's field or a function of its fields; the others are empty."""

    def one(fields: Fields) -> dict[str, tf.Tensor]:
        empty = dict.fromkeys((*MEDIA, *TEXTS), tf.constant(""))
        found = {ours: theirs(fields) if callable(theirs) else fields[theirs] for ours, theirs in names.items()}
        return empty | found

    return seqio.map_over_dataset(one)


def wav_of(name: str, rate_hz: int) -> Callable[[Fields], tf.Tensor]:
    """Samples, as TFDS decodes them, as a WAV file."""

    def encode(fields: Fields) -> tf.Tensor:
        return tf.audio.encode_wav(tf.cast(fields[name], tf.float32)[:, None] / 32768.0, rate_hz)

    return encode


def jpeg_of(fields: Fields) -> tf.Tensor:
    return tf.io.encode_jpeg(fields["image"], quality=95)


def lines_of(fields: Fields) -> tf.Tensor:
    """COCO's captions of one picture."""
    return tf.strings.reduce_join(fields["captions"]["text"], separator=ALTERNATIVES)


def clevr_questions(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A picture with all its questions -> one example a question."""

    def apart(fields: Fields) -> tf.data.Dataset:
        pairs = fields["question_answer"]
        count = tf.minimum(tf.size(pairs["question"]), tf.size(pairs["answer"]))
        asked = tf.data.Dataset.from_tensor_slices({name: texts[:count] for name, texts in pairs.items()})
        return asked.map(lambda pair: {"image": fields["image"], **pair})

    return dataset.flat_map(apart)


def own_source(address: str) -> seqio.FunctionDataSource:
    """Any source of `data.sources` as seqio's: {split} in the address is filled in."""

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        reader = open_reader("seqio", address.format(split=split))
        order = np.random.default_rng(seed).permutation(len(reader)) if shuffle_files else range(len(reader))

        def read() -> Iterator[dict[str, bytes]]:
            for index in order:
                record = reader[int(index)]
                audio = record.audio
                if isinstance(audio, Samples):
                    audio = flac(audio.values / 32768.0, audio.sample_rate_hz)
                texts = ALTERNATIVES.join(record.texts)
                yield {"audio": audio or b"", "picture": record.picture or b"", "text": texts, "reply": record.reply,
                       "label": record.label}  # fmt: skip

        names = ("audio", "picture", "text", "reply", "label")
        return tf.data.Dataset.from_generator(
            read, output_signature={name: tf.TensorSpec((), tf.string) for name in names}
        )

    return seqio.FunctionDataSource(dataset, splits=("train", "test"))


def with_field(name: str) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Keeps the examples that have it."""
    return lambda dataset: dataset.filter(lambda fields: tf.strings.length(fields[name]) > 0)


def word_error_rate(targets: list[str], predictions: list[str]) -> dict[str, float]:
    """Of lower-case words; 1 is as many errors as words."""
    wanted, found = ([" ".join(text.lower().split()) for text in texts] for texts in (targets, predictions))
    return {"word_error_rate": float(jiwer.wer(wanted, found))}


def exact_match(targets: list[str], predictions: list[str]) -> dict[str, float]:
    """Share of answers that are the wanted one, of any case."""
    pairs = zip(targets, predictions, strict=True)
    return {"exact_match": float(np.mean([wanted.lower().split() == found.lower().split() for wanted, found in pairs]))}


def best_caption_f1(targets: list[str], predictions: list[str]) -> dict[str, float]:
    """F1 of words against the closest of a picture's captions."""

    def f1(wanted: str, found: str) -> float:
        a, b = set(wanted.lower().split()), set(found.lower().split())
        return 2.0 * len(a & b) / max(1, len(a) + len(b))

    pairs = zip(targets, predictions, strict=True)
    best = [max(f1(line, found) for line in wanted.split(ALTERNATIVES)) for wanted, found in pairs]
    return {"caption_f1": float(np.mean(best))}


def add(name: str, source: seqio.DataSource, *steps: Callable, metrics: tuple[Callable, ...] = ()) -> None:
    """Registers a task: its steps, then tokenisation that keeps the text beside the tokens."""
    tokenise = functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=True)
    preprocessors = [*steps, tokenise, seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos]
    seqio.TaskRegistry.add(
        name, source=source, preprocessors=preprocessors, output_features=FEATURES, metric_fns=list(metrics)
    )


def tfds(name: str, **splits: str) -> seqio.TfdsDataSource:
    """A dataset of TFDS, with `splits` as train and test where they have other names there."""
    return seqio.TfdsDataSource(tfds_name=name, splits=splits or None)


LIBRISPEECH = tfds("librispeech:2.1.1", train="train_clean100+train_clean360+train_other500", test="test_clean")
BOOK_SPEECH = own_source(f"array_record:{CORPUS}/speech/1.0.0#{{split}}")
BOOK_PICTURES = own_source(f"array_record:{CORPUS}/pictures/1.0.0?text=label#{{split}}")

add("c4_text", tfds("c4/en:3.1.0", train="train", test="validation"), rekey(targets="text"))
add("wikipedia_text", tfds("wikipedia/20230601.en:1.0.0", train="train"), rekey(targets="text"))
add("librispeech_asr", LIBRISPEECH, rekey(audio=wav_of("speech", 16_000), targets="text"), metrics=(word_error_rate,))
add(
    "ljspeech_tts",
    tfds("ljspeech:1.1.1", train="train"),
    rekey(audio=wav_of("speech", 22_050), inputs="text_normalized"),
)
add(
    "coco_captions",
    tfds("coco_captions:1.1.0", train="train", test="val"),
    rekey(picture=jpeg_of, targets=lines_of),
    metrics=(best_caption_f1,),
)
add(
    "clevr_vqa",
    tfds("clevr:3.1.0", train="train", test="validation"),
    clevr_questions,
    rekey(picture=jpeg_of, inputs="question", targets="answer"),
    metrics=(exact_match,),
)
add("book_text", own_source(f"array_record:{CORPUS}/text/1.0.0#{{split}}"), rekey(targets="text"))
add("book_asr", BOOK_SPEECH, rekey(audio="audio", targets="text"), metrics=(word_error_rate,))
add("book_captions", BOOK_PICTURES, rekey(picture="picture", targets="text"), metrics=(best_caption_f1,))
add(
    "book_dialogue",
    BOOK_SPEECH,
    with_field("reply"),
    rekey(audio="audio", inputs="text", targets="reply"),
    metrics=(exact_match,),
)

seqio.MixtureRegistry.add("text", ["c4_text", "wikipedia_text"], default_rate=seqio.mixing_rate_num_examples)
seqio.MixtureRegistry.add("align", [("librispeech_asr", 0.5), ("coco_captions", 0.3), ("clevr_vqa", 0.2)])
seqio.MixtureRegistry.add("book", [("book_text", 0.3), ("book_asr", 0.4), ("book_captions", 0.3)])
