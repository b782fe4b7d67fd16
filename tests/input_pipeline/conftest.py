"""A picture book of a few seconds: beeps for words, coloured squares for pictures, written as the real one is."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from omni_jax.config import Config, DataConfig
from omni_jax.config_dict import from_dict
from omni_jax.input_pipeline.codes import build_code_cache
from omni_jax.input_pipeline.corpus import Source, load_speech
from omni_jax.input_pipeline.records import Example
from omni_jax.model_config import ModelConfig
from omni_jax.types import FRAME_SPEECH_SAMPLES, Control

WORD_MS, GAP_MS, EDGE_MS = 280, 60, 100
STORY = "the red dog runs all day and the small cat sits by the big tree at night"
# (role, kind, text, reply, template, slot)
LINES = (
    ("assistant", "reply", "it is a dog", "", "it is {a}.", "dog"),
    ("assistant", "reply", "it is a cat", "", "it is {a}.", "cat"),
    ("assistant", "reply", "two comes after one", "", "fact/after", "one"),
    ("assistant", "reply", STORY, "", "tell", "dog"),
    ("assistant", "reply", "the red dog runs", "", "repeat", "the red dog runs"),
    ("assistant", "reply", "hello there", "", "greeting", "hello there"),
    ("user", "picture_question", "what is this", "{picture}", "what is this?", ""),
    ("user", "fact_question", "what comes after one", "two comes after one", "what comes after {x}?", "one"),
    ("user", "tell", "tell me about the dog", STORY, "tell me about the {x}.", "dog"),
    ("user", "repeat_request", "say the red dog runs", "the red dog runs", "say, {x}", "the red dog runs"),
    ("user", "greeting", "hello", "hello there", "hello.", ""),
    ("user", "stop", "okay stop", "", "okay, stop.", ""),
    ("user", "backchannel", "mm-hm", "", "mm-hm.", ""),
    ("user", "side_talk", "we need more milk", "", "we need more milk.", ""),
)


def speech_features(number: int, line: tuple[str, ...]) -> dict:
    role, kind, text, reply, template, slot = line
    words = text.split()
    starts = [EDGE_MS + i * (WORD_MS + GAP_MS) for i in range(len(words))]
    wav = np.zeros((starts[-1] + WORD_MS + EDGE_MS) * 24, np.float32)
    for i, start in enumerate(starts):
        time = np.arange(WORD_MS * 24) / 24_000
        wav[start * 24 : (start + WORD_MS) * 24] = 0.3 * np.sin(2 * np.pi * (200 + 40 * ((number + i) % 9)) * time)
    encoded = io.BytesIO()
    soundfile.write(encoded, wav, 24_000, format="OGG", subtype="OPUS")
    ends = [start + WORD_MS for start in starts]
    return {
        "id": f"clip{number}", "role": role, "kind": kind, "voice": role, "text": text, "reply": reply,
        "template": template, "slot": slot, "audio": encoded.getvalue(), "sample_rate": 24_000, "num_samples": len(wav),
        "words": words, "word_start_ms": starts, "word_end_ms": ends,
        "phones": [word[0] for word in words], "phone_start_ms": starts, "phone_end_ms": ends,
        "held_voice": 0, "held_text": 0, "answer_id": "",
    }  # fmt: skip


def picture_features(label: str, number: int) -> dict:
    encoded = io.BytesIO()
    colour = (40 * number, 200, 30) if label == "dog" else (30, 40 * number, 200)
    Image.new("RGB", (32, 32), colour).save(encoded, "PNG")
    return {"image": encoded.getvalue(), "label": label, "cluster": f"{label}{number}", "source": "drawn"}


def serialise(features: dict) -> bytes:
    example = Example()
    for name, value in features.items():
        entry = example.features.feature[name]
        values = value if isinstance(value, list) else [value]
        if values and isinstance(values[0], int):
            entry.int64_list.value.extend(values)
        else:
            entry.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
    return example.SerializeToString()


def write_records(directory: Path, split: str, records: list[bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"picture_book-{split}.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def write_corpus(root: Path) -> Path:
    for split in ("train", "test"):
        speech = [serialise(speech_features(i, line)) for i, line in enumerate(LINES)]
        pictures = [serialise(picture_features(label, i)) for label in ("dog", "cat") for i in range(3)]
        text = [serialise({"text": line[2], "source": "corpus"}) for line in LINES]
        for name, records in (("speech", speech), ("pictures", pictures), ("text", text)):
            write_records(root / name / "1.0.0", split, records)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line[2] for line in LINES] + ["three six twelve twenty five zero"]),
        model_writer=(model := io.BytesIO()),
        vocab_size=80, hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece="<pad>",
        control_symbols=[f"<{control.name.lower()}>" for control in Control if control > Control.EOS],
        minloglevel=2,
    )  # fmt: skip
    (root / "spm.model").write_bytes(model.getvalue())
    return root


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def config(corpus) -> Config:
    tokenizer = corpus / "spm.model"
    vocab_size = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).get_piece_size()
    shape = {"num_codebooks": 4, "codebook_size": 64}
    return Config(
        model=from_dict(ModelConfig, {"vocab_size": vocab_size, **shape}),
        codec=dataclasses.replace(Config().codec, **shape),
        data=DataConfig(
            corpus=str(corpus), tokenizer=str(tokenizer), tasks={"text": 1.0}, rows=4, audio_slots=256, prefetch=2
        ),
    )


def loudness_codes(wav: np.ndarray) -> np.ndarray:
    """Stands in for a codec: codes that depend on a frame's own samples, so that time and silence can be read off."""
    frames = np.abs(wav.reshape(len(wav), -1, FRAME_SPEECH_SAMPLES)).mean(-1)
    return np.clip((frames[..., None] * [200, 150, 100, 50]).astype(np.int32), 0, 63)


@pytest.fixture(scope="session")
def codes(corpus):
    clips = [clip for clip in load_speech(Source(str(corpus)), "train", 24_000) if clip.role == "assistant"]
    return build_code_cache({clip.id: clip.wav() for clip in clips}, loudness_codes, "0" * 64)
