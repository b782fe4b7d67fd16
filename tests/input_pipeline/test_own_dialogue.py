"""Exchanges of one's own, from audio files to full-duplex dialogues that can be interrupted."""

import argparse
import json

import numpy as np
import pytest
import soundfile

from data import encode_codes
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.types import Control, Event, Modality

from .conftest import loudness_codes
from .source_files import RATE_HZ, beep
from .test_own_tasks import own_config

REPLY = "the red dog runs all day and the small cat sits by the big tree"
EXCHANGES = 6


def write_exchanges(root):
    root.mkdir()
    spoken = {"ask": ("what is this", 1.0), "well": (REPLY, 3.6), "stop": ("okay stop", 0.5), "hm": ("mm-hm", 0.3)}
    lines = []
    for number in range(EXCHANGES):
        for name, (_, seconds) in spoken.items():
            soundfile.write(root / f"{name}{number}.wav", beep(number, seconds), RATE_HZ)
        starts = [240 * i for i in range(len(REPLY.split()))]
        words = [[word, start, start + 200] for word, start in zip(REPLY.split(), starts, strict=True)]
        lines += [
            {"audio": f"ask{number}.wav", "text": spoken["ask"][0], "reply": REPLY, "reply_audio": f"well{number}.wav",
             "reply_words": words},
            {"audio": f"stop{number}.wav", "text": spoken["stop"][0], "kind": "stop"},
            {"audio": f"hm{number}.wav", "text": spoken["hm"][0], "kind": "backchannel"},
        ]  # fmt: skip
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"folder:{root}"


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """The folder, and its exchanges with the codes of a stand-in for a codec."""
    root = tmp_path_factory.mktemp("own")
    folder = write_exchanges(root / "folder")
    args = argparse.Namespace(source=folder, out=root / "coded", split="train", records_per_shard=4, max_bad_fraction=0)
    assert encode_codes.encode_source(args, loudness_codes, "a" * 64) == EXCHANGES
    return folder, f"array_record:{root / 'coded'}"


def test_replies_are_coded_with_the_ways_to_break_off(coded):
    reader = open_reader("x", coded[1])
    reply = reader[0].spoken_reply
    assert len(reader) == EXCHANGES and reader[0].codes is None and reader[0].reply == REPLY
    assert reply.codes.shape == (45 + 8, 4) and len(reply.words) == len(REPLY.split())
    assert list(reply.fades) == list(range(6, 45 - 8, 2))
    assert all(tail.shape == (8, 4) and not tail[-1].any() for tail in reply.fades.values())


def test_they_become_dialogues_with_interruptions(config, codes, coded):
    folder, exchanges = coded
    loader = make_loader(own_config(config, ("dialogue",), asides=folder, exchanges=exchanges), codes=codes)
    batches = [next(loader) for _ in range(3)]
    loader.close()
    timeline = [np.concatenate(parts) for parts in zip(*(batch.timeline for batch in batches), strict=True)]
    timeline = batches[0].timeline._make(timeline)
    assert {Modality.TEXT, Modality.FRAME} <= set(np.unique(timeline.modality))
    assert {Event.END_OF_USER_TURN, Event.INTERRUPT, Event.BACKCHANNEL} <= set(np.unique(timeline.event))
    interrupted = (timeline.text == Control.INTERRUPT).sum()
    assert interrupted == (timeline.event == Event.INTERRUPT).sum()
    assert (timeline.text == Control.END_OF_TURN).sum() >= (timeline.text == Control.SPEAK).sum() - interrupted > 0
    assert timeline.codes.max() > 10  # the reply sounds
