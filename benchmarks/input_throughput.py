"""Examples a second of each source: bare grain, this project's stream and torch.utils.data over the same records.

python -m benchmarks.input_throughput [--seconds=8] [--readers=decode,grain,stream,torch] [--workers=2] [--rounds=3]

The records are those of the sample corpus (ArrayRecord; speech as Opus, pictures as PNG). `decode` reads and decodes
them with bare grain and does nothing else; `grain` also makes the examples (augmentation, log-mel, patches, pieces) and
hands them out one by one; `stream` is the loader that training uses: the same examples mixed, packed and batched by
virtual shards with a resumable state; `torch` is `grain` with torch.utils.data.DataLoader in its place, where torch is
installed. Everything in one process; a second is one of CPU time of all its threads, so that other work does not count.
With --workers, so many processes of grain or torch read, and a second is one of the clock: the machine must have
nothing else to do. With --rounds the readers take turns so often, and the median is given. Of speech the stream holds
30 to 130 examples back, now more, now less: what it gives in less than 20 s is no measurement.
MB are those of the records as stored, tokens are positions.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from threadpoolctl import threadpool_limits

from configs import own_data
from omni_jax.config import Config
from omni_jax.config_dict import from_dict, to_dict
from omni_jax.input_pipeline import decode
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.input_pipeline.own_tasks import own_source
from omni_jax.input_pipeline.task_stream import shuffled_keys
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.tokenizer import Tokenizer, read_tokenizer
from omni_jax.input_pipeline.worker_process import WorkerIterator
from omni_jax.train import resolve

SOURCES = {"text": Task.TEXT, "speech": Task.ASR, "pictures": Task.SEE}
CORPUS = Path("data/corpus/picture_book")
WARM_UP = 400
GROUP = 16  # examples that are handed over together
ONE_BY_ONE = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)


class Rate(NamedTuple):
    examples: float
    tokens: float  # a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--readers", default="decode,grain,stream,torch")
    parser.add_argument("--sources", default="text,speech,pictures")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    threadpool_limits(limits=1, user_api="blas")  # as the loader has it; two threads would wait for each other
    readers = [name for name in chosen.readers.split(",") if name != "torch" or importlib.util.find_spec("torch")]
    print("| source | reader | examples/s | rounds | MB/s | tokens/s |\n|---|---|---|---|---|---|")
    for name in chosen.sources.split(","):
        config = source_config(name, chosen.workers)
        rates: dict[str, list[Rate]] = {reader: [] for reader in readers}
        for reader in readers * chosen.rounds:
            rates[reader].append(READERS[reader](config, SOURCES[name], chosen.seconds))
        for reader, measured in rates.items():
            print(row(name, reader, measured), flush=True)


def row(name: str, reader: str, rates: list[Rate]) -> str:
    """Of the round with the median rate; and the rates of all rounds in their order."""
    median = sorted(rates)[len(rates) // 2]
    rounds = ", ".join(f"{rate.examples:.0f}" for rate in rates)
    megabytes = median.examples * record_bytes(name) / 1e6
    return f"| {name} | {reader} | {median.examples:.0f} | {rounds} | {megabytes:.2f} | {median.tokens:.0f} |"


def source_config(name: str, workers: int = 1) -> Config:
    """The records of one kind alone, as a user's own source; what it needs of the shapes of `own_data.py:tiny`."""
    settings = own_data.get_config("tiny")
    with settings.unlocked():
        settings.data.sources = {name: f"array_record:{CORPUS / name}/1.0.0#train"}
        settings.data.tasks = {SOURCES[name].name.lower(): 1.0}
        settings.data.workers = workers
        settings.data.audio_slots *= name == "speech"
        settings.data.patches *= name == "pictures"
        if name == "pictures":  # alone they cost a position each: rows are as in stage perceive, which has the task
            settings.data.row_positions, settings.data.patches = 32, 512
    config = resolve(settings)
    vocab_size = Tokenizer(read_tokenizer(config.data.tokenizer)).vocab_size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=vocab_size))


def record_bytes(name: str) -> float:
    """Mean size of a stored record."""
    files = sorted((CORPUS / name / "1.0.0").glob("*-train.array_record-*"))
    return sum(file.stat().st_size for file in files) / len(grain.sources.ArrayRecordDataSource(files))


def decoded(config: Config, task: Task, seconds: float) -> Rate:
    """Reading and decoding alone."""
    materials = load_materials(config, "train")
    own = materials.own
    keys = own.keys((frozenset(),), frozenset(), "train")

    def read(key: int) -> int:
        record = own.read(*keys[key])
        if record.audio is not None:
            decode.decode_audio(record.audio, 16_000)
        if record.picture is not None:
            decode.decode_picture(record.picture)
        return 0

    dataset = grain.MapDataset.range(len(keys)).shuffle(seed=0).repeat().map(read)
    return timed(iterator_of(dataset, config), lambda read: (len(read), 0), seconds, config)


def bare(config: Config, task: Task, seconds: float) -> Rate:
    if config.data.workers == 1:
        return timed(iterator_of(examples_of(config, task), config), count_examples, seconds, config)
    if not flags.FLAGS.is_parsed():  # grain asks for flags of its own
        flags.FLAGS.mark_as_parsed()
    parts = [Part(config, task, index) for index in range(config.data.workers)]
    # The stream's worker processes: at the end grain's own wait up to 25 s each, with their last group in a full pipe.
    workers = [WorkerIterator(part, config.data.prefetch) for part in parts]
    rate = timed(taken_in_turn(workers), count_examples, seconds, config)
    for worker in workers:
        worker.close()
    return rate


def examples_of(config: Config, task: Task) -> grain.MapDataset:
    """With grain's own means."""
    source = own_source(load_materials(config, "train"), task)
    return shuffled_keys(source.num_keys, config.seed).random_map(source.build, seed=config.seed)


class Part(grain.IterDataset):
    """The examples of one worker; what makes them cannot be sent, so that it is made there."""

    def __init__(self, config: Config, task: Task, index: int):
        super().__init__()
        self._values, self._task, self._index = to_dict(config), task, index

    def __iter__(self) -> grain.DatasetIterator:
        threadpool_limits(limits=1, user_api="blas")
        config = from_dict(Config, self._values)
        mine = examples_of(config, self._task)[self._index :: config.data.workers]
        return iter(mine.to_iter_dataset(ONE_BY_ONE).batch(GROUP, batch_fn=list))


def taken_in_turn(workers: list[WorkerIterator]) -> Iterator[list]:
    """Groups of examples, one of each in turn."""
    for worker in workers:
        worker.start_prefetch()
    while True:
        yield from map(next, workers)


def iterator_of(dataset: grain.MapDataset, config: Config) -> Iterator[list]:
    """Groups of examples, as a process hands them over."""
    grouped = dataset.to_iter_dataset(ONE_BY_ONE).batch(GROUP, batch_fn=list)
    if config.data.workers > 1:
        if not flags.FLAGS.is_parsed():  # grain asks for flags of its own
            flags.FLAGS.mark_as_parsed()
        grouped = grouped.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.data.workers))
    return iter(grouped)


def stream(config: Config, task: Task, seconds: float) -> Rate:
    loader = make_loader(config)
    rate = timed(loader, count_batch, seconds, config)
    loader.close()
    return rate


def torch_loader(config: Config, task: Task, seconds: float) -> Rate:
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    dataset = examples_of(config, task)

    class Examples(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            share = get_worker_info()
            mine = dataset if share is None else dataset[share.id :: share.num_workers]
            return iter(mine.to_iter_dataset(ONE_BY_ONE))

    processes = 0 if config.data.workers == 1 else config.data.workers
    made = DataLoader(Examples(), batch_size=GROUP, collate_fn=_as_it_is, num_workers=processes)
    return timed(iter(made), count_examples, seconds, config)


def _as_it_is(group: list) -> list:
    return group


READERS = {"decode": decoded, "grain": bare, "stream": stream, "torch": torch_loader}


def count_examples(group: list) -> tuple[int, int]:
    parts = [part for made in group for part in (made if isinstance(made, tuple) else (made,))]
    return len(group), sum(part.num_positions for part in parts)


def count_batch(batch: Any) -> tuple[int, int]:
    segments = batch.timeline.segment_ids
    return int(segments.max(1).sum()), int(np.count_nonzero(segments))


def timed(iterator: Iterator[Any], count: Callable[[Any], tuple[int, int]], seconds: float, config: Config) -> Rate:
    """What comes within `seconds`, once caches and workers are warm."""
    clock = time.process_time if config.data.workers == 1 else time.perf_counter
    warm = 0
    while warm < WARM_UP:
        warm += count(next(iterator))[0]
    examples = tokens = 0
    began = clock()
    while clock() - began < seconds:
        new = count(next(iterator))
        examples, tokens = examples + new[0], tokens + new[1]
    taken = clock() - began
    return Rate(examples / taken, tokens / taken)


if __name__ == "__main__":
    main()
