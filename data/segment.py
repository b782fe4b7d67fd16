"""Cuts long recordings into utterances at their silences, for corpora of whole talks, books or calls.

python -m data.segment --source=folder:my/recordings --out=/data/segmented [--longest_s=20]

Needs two packages more (data/vad.py). Of a recording with timed words an utterance gets the words in it as its text.
One with a transcript but no times keeps it if it fits as a whole, and is set aside if not; one without text gives
utterances without text, which the stage `codec` trains on. Records without audio are left out. Runs in parallel, a
shard a process; started again, it makes the shards that are missing.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.progress import track

from data.example_files import flac, record_fields, serialise, shard_path, write_shard
from data.vad import Detector, Spans, speech_spans
from omni_jax.errors import run_main
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Cause, Reader, Record
from omni_jax.input_pipeline.records import Quarantine
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

MAX_RECORDING_SECONDS = 4 * 3600.0

Bad = tuple[str, Cause, str]  # key, cause, reason


class Job(NamedTuple):
    """One shard: some records of the source."""

    source: str
    path: Path
    part: range
    longest_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="FORMAT:PATH, as in data.sources")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train", help="part of the files' names")
    parser.add_argument("--longest_s", type=float, default=20.0)
    parser.add_argument("--recordings_per_shard", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--max_bad_fraction", type=float, default=0.01)
    args = parser.parse_args(arguments)
    Detector()  # or an error that says what to install
    reader = open_reader("source", args.source)
    args.out.mkdir(parents=True, exist_ok=True)
    quarantine = Quarantine(args.max_bad_fraction, args.out / "quarantine.jsonl")
    quarantine.seen[args.source] = len(reader)
    for key, cause, reason in itertools.chain.from_iterable(run_all(args, len(reader))):
        quarantine.add(args.source, key, reason, cause)
    quarantine.check(args.source)
    made = open_reader("out", f"array_record:{args.out}#{args.split}")
    print(f"{args.out}: {len(made)} utterances of {len(reader)} records; {quarantine.counts(args.source)}")
    return 0


def run_all(args: argparse.Namespace, records: int) -> Iterator[list[Bad]]:
    """The bad records of every shard that was missing."""
    starts = range(0, records, args.recordings_per_shard)
    jobs = [
        Job(
            args.source,
            shard_path(args.out, args.split, shard, len(starts)),
            range(first, min(first + args.recordings_per_shard, records)),
            args.longest_s,
        )
        for shard, first in enumerate(starts)
    ]
    missing = [job for job in jobs if not job.path.exists()]
    with ProcessPoolExecutor(
        max(1, min(args.workers, len(missing))), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        yield from track(pool.map(run_job, missing), description="cutting recordings", total=len(missing))


def run_job(job: Job) -> list[Bad]:
    bad: list[Bad] = []
    write_shard(job.path, utterances(open_reader("source", job.source), job, Detector(), bad))
    return bad


def utterances(reader: Reader, job: Job, detector: Detector, bad: list[Bad]) -> Iterator[bytes]:
    """What is bad is added to `bad`."""
    for index in job.part:
        try:
            record = reader[index]
            if record.audio is None:
                continue
            heard = decode_audio(record.audio, LISTEN_SAMPLE_RATE_HZ, MAX_RECORDING_SECONDS)
            spans = speech_spans(detector(heard), 1000.0 * job.longest_s)
            parts = list(cut(record, spans, job.longest_s))
            wav = decode_audio(record.audio, SPEECH_SAMPLE_RATE_HZ, MAX_RECORDING_SECONDS)
        except BadRecord as error:
            bad.append((reader.key(index), error.cause, str(error)))
            continue
        for utterance, span in parts:
            yield serialise(record_fields(replace(utterance, audio=flac(_stretch(wav, span), SPEECH_SAMPLE_RATE_HZ))))


def cut(record: Record, spans: Spans, longest_s: float) -> Iterator[tuple[Record, tuple[float, float]]]:
    """The recording's utterances, still with all its audio, and where each lies. Raises BadRecord."""
    if not spans:
        raise BadRecord(Cause.EMPTY, "nobody speaks in it")
    if record.texts and not record.words:
        whole = (spans[0][0], spans[-1][1])
        if whole[1] - whole[0] > 1000.0 * longest_s:
            raise BadRecord(Cause.TOO_LONG, "its transcript has no times: python -m data.align_words can add them")
        yield record, whole
        return
    for number, (start, end) in enumerate(spans):
        inside = [word for word in record.words if start <= (word.start_ms + word.end_ms) / 2 < end]
        words = tuple(
            Span(word.text, max(0, round(word.start_ms - start)), max(0, round(min(word.end_ms, end) - start)))
            for word in inside
        )
        texts = (" ".join(word.text for word in words),) if words else ()
        yield replace(record, key=f"{record.key}#{number}", texts=texts, words=words, codes=None), (start, end)


def _stretch(wav: Float[np.ndarray, "N"], span: tuple[float, float]) -> Float[np.ndarray, " M"]:
    first, last = (round(ms * SPEECH_SAMPLE_RATE_HZ / 1000) for ms in span)
    return wav[first:last]


if __name__ == "__main__":
    run_main(main)
