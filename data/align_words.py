"""Adds word times to a prepared source, from the CTC head of a trained `align` stage (or a later one).

python -m data.align_words --source=array_record:/data/librispeech --workdir=runs/quickstart/align --out=/data/timed

Words are timed to 20 ms where the recogniser is sure of them; --least_log_prob drops what it is not sure of, and the
counts say how much that was. `frame_asr` and `frame_tts` need such times. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.progress import track

from data.example_files import record_fields, serialise, shard_path, write_shard
from data.forced_alignment import DoesNotFit, align, word_spans
from omni_jax.checkpoint import load_params
from omni_jax.config import Config
from omni_jax.errors import run_main
from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Reader, Record
from omni_jax.input_pipeline.records import Quarantine
from omni_jax.models import omni
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, MEL_FRAMES_PER_SLOT

BUCKET_SLOTS = 25  # clips are padded to whole buckets of 2 s, for few compilations

LogProbs = Callable[[Float[np.ndarray, "N"]], Float[np.ndarray, "W U"]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="FORMAT:PATH, as in data.sources")
    parser.add_argument("--workdir", required=True, help="of a trained align stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train", help="part of the files' names")
    parser.add_argument("--records_per_shard", type=int, default=2000)
    parser.add_argument("--least_log_prob", type=float, default=-3.0, help="mean over the letters' frames, in nats")
    parser.add_argument("--max_bad_fraction", type=float, default=0.2)
    args = parser.parse_args(arguments)
    config, params = load_params(args.workdir)
    reader = open_reader("source", args.source)
    args.out.mkdir(parents=True, exist_ok=True)
    quarantine = Quarantine(args.max_bad_fraction, args.out / "quarantine.jsonl")
    quarantine.seen[args.source] = len(reader)
    timer = Timer(recogniser(config, params), args.least_log_prob)
    starts = range(0, len(reader), args.records_per_shard)
    for shard, first in enumerate(track(starts, description="timing words")):
        path = shard_path(args.out, args.split, shard, len(starts))
        if not path.exists():
            part = range(first, min(first + args.records_per_shard, len(reader)))
            write_shard(path, timed(reader, part, timer, quarantine, args.source))
    quarantine.check(args.source)
    counts = quarantine.counts(args.source)
    print(f"{args.out}: {len(reader) - sum(counts.values())} of {len(reader)} examples with word times; {counts}")
    return 0


def recogniser(config: Config, params: dict) -> LogProbs:
    """16 kHz audio -> log-probabilities of CTC labels at 50 Hz."""

    @jax.jit
    def encode(params: dict, mel: jax.Array, segment_ids: jax.Array) -> jax.Array:
        encoder = omni.bind(config.model, params).audio_encoder
        encoded = encoder(mel.astype(config.model.compute_dtype), segment_ids)
        return jax.nn.log_softmax(encoder.ctc_logits(encoded).astype(jnp.float32))

    def log_probs(wav: Float[np.ndarray, "N"]) -> Float[np.ndarray, "W U"]:
        mel = features.log_mel(wav, config.model.audio)
        slots = len(mel) // MEL_FRAMES_PER_SLOT
        padded = slots + -slots % BUCKET_SLOTS
        mel = np.pad(mel, ((0, (padded - slots) * MEL_FRAMES_PER_SLOT), (0, 0)))
        segment_ids = (np.arange(padded) < slots).astype(np.int32)
        found = np.asarray(encode(params, mel[None], segment_ids[None]))[0]
        return found[: slots * config.model.audio.ctc_subframes]

    return log_probs


class Timer:
    """Gives a record its word times. Raises BadRecord where they cannot be found."""

    def __init__(self, log_probs: LogProbs, least_log_prob: float):
        self._log_probs, self._least = log_probs, least_log_prob

    def __call__(self, record: Record) -> Record:
        if record.spoken_reply is not None and record.spoken_reply.audio is not None:
            record = replace(record, spoken_reply=self._timed(record.spoken_reply))
        return self._timed(record)

    def _timed(self, record: Record) -> Record:
        if record.audio is None or not record.texts:
            raise BadRecord(Cause.SCHEMA, "it has no audio with a text")
        log_probs = self._log_probs(decode_audio(record.audio, LISTEN_SAMPLE_RATE_HZ))
        text = record.texts[0]
        try:
            words = word_spans(log_probs, text)
        except DoesNotFit as error:
            raise BadRecord(Cause.SCHEMA, str(error)) from None
        mean = confidence(log_probs, " ".join(word.text for word in words))
        if mean < self._least:
            raise BadRecord(Cause.UNREADABLE, f"the recogniser is not sure of its text: {mean:.2f} nats a letter")
        return replace(record, words=words)


def confidence(log_probs: Float[np.ndarray, "W U"], text: str) -> float:
    """Mean log-probability of the letters on the best path, over the frames that they take."""
    labels = np.array(features.labels(text))
    path = align(log_probs, labels.tolist())
    said = np.flatnonzero(path >= 0)
    return float(np.mean(log_probs[said, labels[path[said]]]))


def timed(reader: Reader, part: range, timer: Timer, quarantine: Quarantine, source: str) -> Iterator[bytes]:
    for index in part:
        try:
            yield serialise(record_fields(timer(reader[index])))
        except BadRecord as error:
            quarantine.add(source, reader.key(index), str(error), error.cause)


if __name__ == "__main__":
    run_main(main)
