"""A seqio task or mixture as it is, for small runs: its first examples, taken when the run starts and kept in memory.

seqio does not promise the same order at the next start, so a run on it does not resume exactly, and says so.
`python -m data.cache_tasks` makes files of it, on which it does. TensorFlow is imported here and nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omni_jax.input_pipeline.readers.record import Lost, Record
from omni_jax.input_pipeline.readers.record_fields import field_names, record_of
from omni_jax.input_pipeline.records import DataError

MOST_EXAMPLES = 20_000


class LiveReader:
    """The first MOST_EXAMPLES of a registered task or mixture. Raises DataError where it is not registered."""

    def __init__(self, name: str, split: str, rename: Mapping[str, str]):
        self._name, self._split, self._rename = name, split, dict(rename)
        self.lost: Sequence[Lost] = ()
        self._examples = list(seqio_examples(name, split, MOST_EXAMPLES))
        if not self._examples:
            raise DataError(f"seqio:{name} has no examples of split {split}")
        print(
            f"seqio:{name}: {len(self._examples)} examples are read live, so this run does not resume exactly: for "
            f"that, make files of it (python -m data.cache_tasks --name={name})",
            file=sys.stderr,
        )

    def __len__(self) -> int:
        return len(self._examples)

    def kinds(self) -> dict[frozenset[str], Sequence[int]]:
        kinds: dict[frozenset[str], list[int]] = {}
        for index, fields in enumerate(self._examples):
            present = [name for name, value in fields.items() if len(value)]
            kinds.setdefault(field_names(present, self._rename), []).append(index)
        return kinds

    def __getitem__(self, index: int) -> Record:
        fields = {name: value for name, value in self._examples[index].items() if len(value)}
        return record_of(self.key(index), fields, self._rename)

    def key(self, index: int) -> str:
        return f"{self._name}-{self._split}[{index}]"


def seqio_examples(name: str, split: str, limit: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The fields of our schema, out of the features that seqio hands over: `limit` of them, or all of a task."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import seqio
    except ImportError:
        raise DataError(f"seqio:{name} needs packages: pip install seqio tensorflow") from None
    names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if name not in names:
        raise DataError(
            f"seqio:{name}: want one of {', '.join(sorted(names)) or 'the registered tasks, of which there are none'}; "
            "python -m data.train_live registers those of data/tasks.py before it trains"
        )
    provider = seqio.get_mixture_or_task(name)
    mixed = isinstance(provider, seqio.Mixture)
    more = {"copy_pretokenized": True, "num_epochs": None} if mixed else {"num_epochs": 1}
    dataset = provider.get_dataset(None, split, shuffle=mixed, seed=seed, **more).take(limit)
    vocabularies = {name: feature.vocabulary for name, feature in provider.output_features.items()}
    for element in dataset.as_numpy_iterator():
        yield own_fields(element, vocabularies)


def own_fields(element: Mapping[str, np.ndarray], vocabularies: Mapping[str, Any]) -> dict[str, Any]:
    """T5's inputs and targets as text and reply; with one of them alone, it is the text."""
    inputs, targets = (_text(element, name, vocabularies) for name in ("inputs", "targets"))
    text, reply = (inputs, targets) if inputs and targets else (inputs or targets, "")
    media = {name: bytes(element.get(name, b"")) for name in ("picture", "audio")}
    texts = [line for line in text.split("\n") if line] if media["picture"] else text
    return {"text": texts, "reply": reply} | {name: content for name, content in media.items() if content}


def _text(element: Mapping[str, np.ndarray], name: str, vocabularies: Mapping[str, Any]) -> str:
    """The text before it was tokenised, where the task has kept it."""
    kept = element.get(f"{name}_pretokenized")
    if kept is not None:
        return (kept if isinstance(kept, bytes) else kept.item()).decode("utf-8")
    tokens = element.get(name)
    return "" if tokens is None else vocabularies[name].decode([int(token) for token in tokens])
