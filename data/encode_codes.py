"""Adds speech codes to a prepared source, so that training reads codes instead of running a codec.

python -m data.encode_codes --source=array_record:/data/ljspeech --codec=runs/quickstart/codec --out=/data/coded

Encodes on whatever device JAX has, in batches of clips of like length. Started again after a stop, it goes on with the
parts that are missing. `tts` and `frame_tts` then take their speech from the source (docs/data.md). Of a record with a
`reply_audio` that is encoded, and how it sounds when it breaks off: `dialogue` takes both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from rich.progress import track

from data.example_files import record_fields, serialise, shard_path, write_shard
from omni_jax.checkpoint import load_codec, params_sha256
from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.codes import TAIL_FRAMES, EncodeFn, build_code_cache, encode_clips
from omni_jax.input_pipeline.decode import decode_audio
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Reader
from omni_jax.input_pipeline.records import Quarantine
from omni_jax.input_pipeline.speech_sources import TTS_TAIL_FRAMES
from omni_jax.models import codec
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="FORMAT:PATH, as in data.sources")
    parser.add_argument("--codec", required=True, help="workdir of a trained codec")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train", help="part of the files' names")
    parser.add_argument("--records_per_shard", type=int, default=2000)
    parser.add_argument("--max_bad_fraction", type=float, default=0.01)
    args = parser.parse_args(arguments)
    config, params = load_codec(args.codec)

    def encode(wav: Float[np.ndarray, "B N"]) -> Int[np.ndarray, "B T Q"]:
        return np.asarray(codec.encode_codes(config.codec, params, wav))

    written = encode_source(args, encode, params_sha256(params))
    print(f"{args.out}: {written} examples with codes of {config.codec.num_codebooks} codebooks")
    return 0


def encode_source(args: argparse.Namespace, encode: EncodeFn, codec_sha256: str) -> int:
    """Returns how many examples have codes now. Raises DataError where too many are bad."""
    reader = open_reader("source", args.source)
    args.out.mkdir(parents=True, exist_ok=True)
    _claim(args.out / "codes.json", {"source": args.source, "codec_sha256": codec_sha256, "examples": len(reader)})
    quarantine = Quarantine(args.max_bad_fraction, args.out / "quarantine.jsonl")
    quarantine.seen[args.source] = len(reader)
    starts = range(0, len(reader), args.records_per_shard)
    for shard, first in enumerate(track(starts, description="encoding")):
        path = shard_path(args.out, args.split, shard, len(starts))
        if not path.exists():
            part = range(first, min(first + args.records_per_shard, len(reader)))
            write_shard(path, _encoded(reader, part, encode, quarantine, args.source))
    quarantine.check(args.source)
    return len(open_reader("out", f"array_record:{args.out}#{args.split}"))


def _claim(path: Path, values: dict) -> None:
    """Codes of two codecs must not be mixed in one directory."""
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))) != values:
        raise UserError(
            f"{path.parent} holds codes of {found['source']} under another codec or length: take another --out"
        )
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def _encoded(reader: Reader, part: range, encode: EncodeFn, quarantine: Quarantine, source: str) -> Iterator[bytes]:
    """The records of one shard that have own speech, in order: a spoken reply, or else their audio."""
    records, speech, replies = {}, {}, {}
    for index in part:
        try:
            record = reader[index]
            reply = record.spoken_reply
            spoken = record.audio if reply is None else reply.audio
            if spoken is None or record.kind:
                continue
            (speech if reply is None else replies)[str(index)] = decode_audio(spoken, SPEECH_SAMPLE_RATE_HZ)
            records[str(index)] = record
        except BadRecord as error:
            quarantine.add(source, reader.key(index), str(error), error.cause)
    coded, cache = encode_clips(speech, encode), build_code_cache(replies, encode, "")
    for index, record in records.items():
        if index in coded:
            yield serialise(record_fields(replace(record, codes=coded[index][: TTS_TAIL_FRAMES - TAIL_FRAMES])))
        else:
            reply = replace(record.spoken_reply, codes=cache.clips[index], fades=cache.fades.get(index, {}))
            yield serialise(record_fields(replace(record, spoken_reply=reply)))


if __name__ == "__main__":
    run_main(main)
