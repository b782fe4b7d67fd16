"""The stream of an omni stage: the sources of its tasks, and the virtual shards that mix and pack them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omni_jax.config import Config
from omni_jax.input_pipeline.codes import CodeCache
from omni_jax.input_pipeline.dialogue import dialogue_source
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.input_pipeline.mixing import asked_tasks, make_mixture
from omni_jax.input_pipeline.own_tasks import own_source
from omni_jax.input_pipeline.packed_stream import PackedDataset
from omni_jax.input_pipeline.packing import Budget, assemble_parts
from omni_jax.input_pipeline.shards import Shard, ShardedDataset
from omni_jax.input_pipeline.speech_sources import (
    asr_source,
    frame_asr_source,
    frame_tts_source,
    hear_source,
    reading_source,
    tts_source,
)
from omni_jax.input_pipeline.spoken_qa import spoken_qa_source, written_qa_source
from omni_jax.input_pipeline.task_stream import TaskExamples, TaskStream
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.text_tasks import caption_source, picture_qa_source, see_source, text_source

SOURCES = {
    Task.TEXT: text_source,
    Task.ASR: asr_source,
    Task.TTS: tts_source,
    Task.FRAME_ASR: frame_asr_source,
    Task.FRAME_TTS: frame_tts_source,
    Task.CAPTION: caption_source,
    Task.PICTURE_QA: picture_qa_source,
    Task.DIALOGUE: dialogue_source,
    Task.HEAR: hear_source,
    Task.SEE: see_source,
    Task.SPOKEN_QA: spoken_qa_source,
    Task.WRITTEN_QA: written_qa_source,
    Task.READING: reading_source,
}


def make_stream(
    config: Config, split: str, codes: CodeCache | None, workdir: str | Path | None, shards: Sequence[int]
) -> ShardedDataset:
    """The rows of the chosen virtual shards, batch after batch; arguments and errors as of `loader.make_loader`."""
    materials = load_materials(config, split, codes, workdir)
    sources = {
        task: own_source(materials, task) if config.data.sources else SOURCES[task](materials)
        for task in asked_tasks(config.data)
    }
    examples = {task: TaskExamples(source, task, config.seed) for task, source in sources.items()}
    mixture = make_mixture(config.data, {task: source.num_keys for task, source in sources.items()})
    firsts = {task: TaskStream(made, task, Shard()).draw()[1] for task, made in examples.items()}
    costs = {task: mixture.cost(example.num_positions) for task, example in firsts.items()}
    count = config.data.virtual_shards
    budget = Budget.from_config(config).of_rows(config.data.rows // count)
    parts = {
        shard: PackedDataset(examples, mixture, costs, budget, config.seed, Shard(shard, count)) for shard in shards
    }
    return ShardedDataset(parts, assemble_parts)
