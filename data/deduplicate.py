"""Drops repeated texts: equal ones by hash, near ones by MinHash (`pip install datasketch`).

python -m data.deduplicate --source=array_record:/data/cached/c4 --out=/data/clean/c4 [--threshold=0.8]

The first of equal or near texts is kept, and so is every text of a recording or a picture. OUT/duplicates.jsonl says
which record repeats which. Case, punctuation and space do not count; nearness is the Jaccard similarity of the sets of
5-word shingles (arXiv 2107.06499). With --exact only equal ones are dropped, which needs no further package. Texts are
read and hashed in parallel; what was kept so far is in the memory of one process.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import track

from data.example_files import record_fields, serialise, shard_path, write_shard
from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord, Reader

SHINGLE_WORDS = 5
PERMUTATIONS = 128
RECORDS_A_PART = 1000


class Mark(NamedTuple):
    """What a text is compared by: None where a record is kept whatever it says."""

    digest: bytes | None
    sketch: Any = None  # datasketch.MinHash, where near texts are looked for


class Seen:
    """The texts that were kept so far. `threshold` None: only equal texts are repeats."""

    def __init__(self, threshold: float | None):
        self._hashes: dict[bytes, int] = {}
        self._near = None if threshold is None else _near_index(threshold)

    def find_or_add(self, number: int, mark: Mark) -> tuple[int, str] | None:
        """(number of the earlier text, equal or near), or None for a new one, which is then remembered."""
        if mark.digest is None:
            return None
        if mark.digest in self._hashes:
            return self._hashes[mark.digest], "equal"
        if self._near is not None:
            found = self._near.query(mark.sketch)
            if found:
                return min(found), "near"
            self._near.insert(number, mark.sketch)
        self._hashes[mark.digest] = number
        return None


def _near_index(threshold: float):
    try:
        from datasketch import MinHashLSH
    except ImportError:
        raise UserError("near duplicates need datasketch: pip install datasketch, or pass --exact") from None
    return MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)


def _sketch(words: Sequence[str]):
    from datasketch import MinHash

    last = max(1, len(words) - SHINGLE_WORDS + 1)
    shingles = {" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in range(last)}
    sketch = MinHash(num_perm=PERMUTATIONS)
    sketch.update_batch(sorted(shingles))
    return sketch


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="FORMAT:PATH, as in data.sources")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train", help="part of the files' names")
    parser.add_argument("--threshold", type=float, default=0.8, help="Jaccard similarity from which a text is a repeat")
    parser.add_argument("--exact", action="store_true", help="only equal texts are repeats")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    seen = Seen(None if args.exact else args.threshold)
    reader = open_reader("source", args.source)
    args.out.mkdir(parents=True, exist_ok=True)
    kept, repeats, bad = sift(marks_of_all(args, len(reader)), seen, len(reader))
    with (args.out / "duplicates.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"record": a, "repeats": b, "how": how}) + "\n" for a, b, how in repeats)
    for shard in track(range(args.shards), description="writing"):
        write_shard(shard_path(args.out, args.split, shard, args.shards), _copies(reader, kept[shard :: args.shards]))
    print(f"{args.out}: kept {len(kept)} of {len(reader)}, {len(repeats)} repeats, {bad} unreadable")
    return 0


def marks_of_all(args: argparse.Namespace, records: int) -> Iterator[Mark | None]:
    """Of every record in order; None for one that cannot be read."""
    parts = [range(first, min(first + RECORDS_A_PART, records)) for first in range(0, records, RECORDS_A_PART)]
    mark = functools.partial(marks_of, args.source, not args.exact)
    workers = min(args.workers, len(parts))
    if workers < 2:
        yield from itertools.chain.from_iterable(map(mark, parts))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from itertools.chain.from_iterable(pool.map(mark, parts))


def marks_of(source: str, near: bool, part: range) -> list[Mark | None]:
    reader, marks = open_reader("source", source), []
    for index in part:
        try:
            record = reader[index]
        except BadRecord:
            marks.append(None)
            continue
        has_media = record.audio is not None or record.picture is not None
        words = [] if has_media else re.findall(r"\w+", " ".join(record.texts).lower())
        digest = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest() if words else None
        marks.append(Mark(digest, _sketch(words) if near and words else None))
    return marks


def sift(marks: Iterable[Mark | None], seen: Seen, total: int) -> tuple[list[int], list[tuple[int, int, str]], int]:
    """The records to keep, (record, what it repeats, how) of the others, and how many cannot be read."""
    kept, repeats, bad = [], [], 0
    for index, mark in enumerate(track(marks, description="comparing", total=total)):
        if mark is None:
            bad += 1
            continue
        found = seen.find_or_add(index, mark)
        if found is None:
            kept.append(index)
        else:
            repeats.append((index, *found))
    return kept, repeats, bad


def _copies(reader: Reader, indices: Sequence[int]) -> Iterator[bytes]:
    return (serialise(record_fields(reader[index])) for index in indices)


if __name__ == "__main__":
    run_main(main)
