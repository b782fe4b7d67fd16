"""Any source as ArrayRecord of the project's schema: audio mono, resampled, levelled, in FLAC; bad records set aside.

python -m data.prepare --source=parquet:/data/common_voice/train-*.parquet --out=/data/prepared/common_voice

Runs in parallel, a shard a process. Started again after a stop, it makes the shards that are missing. What it drops is
in OUT/quarantine.jsonl; OUT/card.md describes what came out (data/card.py).
"""

from __future__ import annotations

import argparse
import json
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

from data.card import Statistics, write_card
from data.example_files import flac, record_fields, serialise, shard_path, write_shard
from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.augment import at_level
from omni_jax.input_pipeline.decode import decode_audio, decode_picture
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Reader
from omni_jax.input_pipeline.records import Quarantine
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

LEVEL_DBFS = -23.0  # of the louder half of a clip, as in the sample corpus
PEAK = 0.98
SHARD_STATE = "{:05d}.done.json"


class Job(NamedTuple):
    """One shard: examples first .. last - 1 of the source."""

    source: str
    out: Path
    split: str
    shard: int
    count: int
    first: int
    last: int
    rate_hz: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="FORMAT:PATH, as in data.sources")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train", help="part of the files' names")
    parser.add_argument("--records_per_shard", type=int, default=2000)
    parser.add_argument("--rate_hz", type=int, default=SPEECH_SAMPLE_RATE_HZ)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--max_bad_fraction", type=float, default=0.01)
    args = parser.parse_args(arguments)
    kept, bad = prepare(args)
    print(f"{args.out}: {kept} examples, {bad} set aside (quarantine.jsonl), card.md")
    return 0


def prepare(args: argparse.Namespace) -> tuple[int, int]:
    """Returns how many records were kept and how many set aside. Raises DataError where those are too many."""
    reader = open_reader("source", args.source)
    jobs = plan(args, len(reader))
    args.out.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(args.workers, len(jobs))), mp_context=spawn) as pool:
        states = list(track(pool.map(run_job, jobs), description="preparing shards", total=len(jobs)))
    (args.out / "quarantine.jsonl").unlink(missing_ok=True)
    quarantine = Quarantine(args.max_bad_fraction, args.out / "quarantine.jsonl")
    quarantine.seen[args.source] = len(reader)
    for lost in reader.lost:
        quarantine.add(args.source, lost.key, lost.reason, lost.cause, lost.records)
    for state in states:
        for key, cause, reason in state["bad"]:
            quarantine.add(args.source, key, reason, cause)
    statistics = Statistics.merged([Statistics(**state["statistics"]) for state in states])
    write_card(args.out, args.source, statistics, quarantine.counts(args.source))
    quarantine.check(args.source)
    return statistics.examples, sum(quarantine.counts(args.source).values())


def plan(args: argparse.Namespace, examples: int) -> list[Job]:
    if args.records_per_shard < 1:
        raise UserError(f"--records_per_shard={args.records_per_shard}: want 1 or more")
    count = -(-examples // args.records_per_shard)
    edges = np.linspace(0, examples, count + 1).round().astype(int).tolist()
    return [
        Job(args.source, args.out, args.split, shard, count, edges[shard], edges[shard + 1], args.rate_hz)
        for shard in range(count)
    ]


def run_job(job: Job) -> dict:
    """Writes a shard, and beside it what it holds and what it lacks; a shard that is there is left as it is."""
    done = job.out / SHARD_STATE.format(job.shard)
    path = shard_path(job.out, job.split, job.shard, job.count)
    fingerprint = [str(value) for value in job]
    if done.is_file() and path.is_file():
        state = json.loads(done.read_text(encoding="utf-8"))
        if state["job"] == fingerprint:
            return state
        raise UserError(f"{job.out} was made from {state['job'][0]} with other flags: take another --out")
    statistics, bad = Statistics(), []
    write_shard(path, _records(open_reader("source", job.source), job, statistics, bad))
    state = {"job": fingerprint, "statistics": vars(statistics), "bad": bad}
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(done)
    return state


def _records(reader: Reader, job: Job, statistics: Statistics, bad: list) -> Iterator[bytes]:
    for index in range(job.first, job.last):
        try:
            record = reader[index]
            seconds = 0.0
            if record.audio is not None:
                wav = levelled(decode_audio(record.audio, job.rate_hz))
                record, seconds = replace(record, audio=flac(wav, job.rate_hz)), len(wav) / job.rate_hz
            reply = record.spoken_reply
            if reply is not None and reply.audio is not None:
                wav = levelled(decode_audio(reply.audio, job.rate_hz))
                record = replace(record, spoken_reply=replace(reply, audio=flac(wav, job.rate_hz)))
            size = decode_picture(record.picture).shape[:2] if record.picture is not None else None
            encoded = serialise(record_fields(record))
        except BadRecord as error:
            bad.append([reader.key(index), str(error.cause), str(error)])
            continue
        statistics.add(record, seconds, size)
        yield encoded


def levelled(wav: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """At LEVEL_DBFS, or as near as the loudest sample lets it."""
    scaled = at_level(wav, LEVEL_DBFS)
    return scaled * min(1.0, PEAK / max(float(np.abs(scaled).max()), 1e-6))


if __name__ == "__main__":
    run_main(main)
