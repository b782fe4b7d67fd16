"""Odd records: every task makes an example of them that fits a row, or says what is wrong with them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image

from omni_jax.input_pipeline.cast import Cast
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.input_pipeline.own_dialogue import own_dialogue_example
from omni_jax.input_pipeline.own_media import clip_of
from omni_jax.input_pipeline.own_tasks import RECIPES, check_room
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.input_pipeline.readers.record import BadRecord, Record

from .test_loader import with_data

ROUNDS = 40


def sound(samples, rate_hz=16_000):
    encoded = io.BytesIO()
    soundfile.write(encoded, np.asarray(samples, np.float32), rate_hz, format="WAV")
    return encoded.getvalue()


def tone(count, level=0.3):
    return level * np.sin(np.arange(count) / 3)


def image(width, height, mode):
    encoded = io.BytesIO()
    Image.new(mode, (width, height)).save(encoded, "PNG")
    return encoded.getvalue()


AUDIO = [
    *(sound(tone(count)) for count in (1, 10, 159, 400, 1_279, 1_280, 16_000, 144_000)),
    sound(np.eye(1, 16_000, 8_000)[0]), sound(tone(16_000, 1e-3)),
    sound(tone(4_000), 8_000), sound(tone(24_000), 48_000),
]  # fmt: skip
PICTURES = [image(*shape) for shape in ((1, 1, "RGB"), (2000, 2, "L"), (2, 900, "RGBA"), (64, 64, "P"), (64, 64, "1"))]
TEXTS = ["a", "!!!", "привет", "", "x" * 5_000, " ".join(["word"] * 3_000), "\x00", "\u2028a", "<s>", "🙂"]
WORDS = [
    (), (Span("a", 0, 0),), (Span("a", 0, 10), Span("b", 10, 10)), (Span("!", 0, 100),), (Span("a", 500, 900),),
    (Span("a", 0, 100), Span("b", 99_000, 99_500)), tuple(Span("w", 50 * n, 50 * n + 40) for n in range(200)),
    (Span("", 0, 100),),
]  # fmt: skip


def odd_record(rng):
    def pick(values):
        return values[rng.integers(len(values))]

    codes = None if rng.random() < 0.3 else rng.integers(0, 64, (int(rng.integers(1, 60)), 4)).astype(np.int32)
    turns = tuple(Record("turn", (pick(TEXTS),), role=pick(["user", "assistant", "?"])) for _ in range(rng.integers(3)))
    texts = tuple(pick(TEXTS) for _ in range(rng.integers(3)))
    return Record("odd", texts, pick(AUDIO), pick(PICTURES), pick(TEXTS), pick(TEXTS), "", pick(WORDS), codes, turns)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_record_becomes_an_example_or_is_bad(config, split):
    codes = CodeCache("0" * 64, np.zeros(4, np.int32), {}, {})
    config = with_data(config, sources={"odd": "folder:nowhere"}, patches=256)
    materials, budget = load_materials(config, split, codes), Budget.from_config(config)
    rng, made = np.random.default_rng(0), dict.fromkeys(RECIPES, 0)
    for number in range(ROUNDS):
        record = odd_record(rng)
        for task, recipe in RECIPES.items():
            try:
                found = recipe.make(materials, record, np.random.default_rng(number))
                examples = found if isinstance(found, tuple) else (found,)
                for example in examples:
                    check_room(example, budget)
            except BadRecord as error:
                assert len(str(error)) > 8
                continue
            packer = Packer(budget)
            assert packer.add(examples[-1], 0)
            batch = assemble(packer)
            assert np.isfinite(batch.media.mel).all() and batch.timeline.text.max() < config.model.vocab_size
            made[task] += 1
    assert min(made.values()) > 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_exchange_becomes_a_dialogue_or_is_bad(config, split):
    codes = CodeCache("0" * 64, np.zeros(4, np.int32), {}, {})
    materials = load_materials(with_data(config, sources={"odd": "folder:nowhere"}, patches=256), split, codes)
    clips = [Record("r", audio=audio) for audio in AUDIO[1:]]
    between = [clip_of(materials, clip, "stop", np.random.default_rng(0), True) for clip in clips]
    cast = Cast({}, {}, {}, {}, *([clip for clip in between if clip.duration_ms < 600] for _ in range(3)))
    rng, made = np.random.default_rng(1), 0
    for number in range(3 * ROUNDS):
        record = odd_record(rng)
        frames = rng.integers(0, 90, rng.integers(5))
        reply = replace(
            odd_record(rng),
            audio=record.audio if rng.random() < 0.5 else None,
            fades={int(frame): rng.integers(0, 64, (8, 4)) for frame in frames},
        )
        try:
            example = own_dialogue_example(
                materials, cast, replace(record, spoken_reply=reply), np.random.default_rng(number)
            )
            check_room(example, Budget.from_config(materials.config))
        except BadRecord as error:
            assert len(str(error)) > 8
            continue
        assert np.isfinite(example.mel).all() and example.fields["text"].max() < config.model.vocab_size
        made += 1
    assert made > 10
