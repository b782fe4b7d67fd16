"""A seqio task or mixture as sharded, shuffled ArrayRecord files that training reads without TensorFlow.

python -m data.cache_tasks --name=librispeech_asr --split=train --out=/data/librispeech [--shards=64] [--examples=N]

Then train with --config.data.sources.librispeech=array_record:/data/librispeech. A mixture has no end: give --examples.
Every example goes to a random shard, and every shard is shuffled as a whole: a uniform shuffle of all of them.
Started again after a stop, it goes on with the shards that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from rich.progress import track

from data.example_files import OPTIONS, flac, serialise, shard_path, write_shard
from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.live_seqio import seqio_examples
from omni_jax.input_pipeline.readers.record import BadRecord

DESCRIPTION = "dataset.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of a registered task or mixture (data/tasks.py)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=0, help="at most so many; 0: all")
    args = parser.parse_args(arguments)
    written = cache(args)
    print(f"{args.out}: {written} examples in {args.shards} shards")
    return 0


def cache(args: argparse.Namespace) -> int:
    """Returns how many examples there are. Raises UserError for an unknown name, or another task's directory."""
    args.out.mkdir(parents=True, exist_ok=True)
    description = args.out / f"{args.split}-{DESCRIPTION}"
    wanted = {name: getattr(args, name) for name in ("name", "split", "shards", "seed", "examples")}
    state = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    if state and {name: state.get(name) for name in wanted} != wanted:
        raise UserError(f"{args.out} holds {state.get('name')}, made with other flags: take another --out")
    if not state:
        register_tasks(args)
        counts = scatter(args)
        state = wanted | {"examples_by_shard": counts}
        description.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    for shard in track(range(args.shards), description="shuffling shards"):
        shuffle_shard(args, shard)
    return sum(state["examples_by_shard"])


def scatter(args: argparse.Namespace) -> list[int]:
    """Writes every example into a random one of the loose shards; returns how many went where."""
    rng = np.random.default_rng(args.seed)
    writers = [ArrayRecordWriter(str(loose_path(args, shard)), OPTIONS) for shard in range(args.shards)]
    counts = [0] * args.shards
    for fields in track(examples(args), description=args.name, total=args.examples or None):
        shard = int(rng.integers(args.shards))
        writers[shard].write(serialise(fields))
        counts[shard] += 1
    for writer in writers:
        writer.close()
    return counts


def shuffle_shard(args: argparse.Namespace, shard: int) -> None:
    path, loose = shard_path(args.out, args.split, shard, args.shards), loose_path(args, shard)
    if not path.exists():
        reader = ArrayRecordReader(str(loose), "readahead_buffer_size:0")
        order = np.random.default_rng([args.seed, shard]).permutation(reader.num_records())
        write_shard(path, (reader.read([int(index)])[0] for index in order))
    loose.unlink(missing_ok=True)


def loose_path(args: argparse.Namespace, shard: int) -> Path:
    return args.out / f"{args.split}-{shard:05d}.loose"


def register_tasks(args: argparse.Namespace) -> None:
    """Before a bar shows progress: its thread and TensorFlow's lazy imports disturb each other.

    Raises UserError for a mixture without an end.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import seqio

    from data import tasks  # noqa: F401  (registers the tasks)

    if args.name in seqio.MixtureRegistry.names() and not args.examples:
        raise UserError(f"{args.name} is a mixture, which has no end: give --examples=N")


def examples(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The fields of our schema. Raises UserError for an unknown name."""
    limit = args.examples or -1  # TensorFlow's word for all of them
    for fields in seqio_examples(args.name, args.split, limit, args.seed):
        yield fields | {"audio": _compressed(fields["audio"])} if "audio" in fields else fields


def _compressed(audio: bytes) -> bytes:
    """WAV files become FLAC; what cannot be decoded stays as it is, and is found when it is read."""
    if not audio.startswith(b"RIFF"):
        return audio
    try:
        return flac(decode_audio(audio, rate := int.from_bytes(audio[24:28], "little")), rate)
    except BadRecord:
        return audio


if __name__ == "__main__":
    run_main(main)
