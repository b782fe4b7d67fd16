"""Does the model name what it sees? The word in the text stream, and in what a recogniser hears; held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_jax.evals.entries import mean_entry
from omni_jax.evals.examples import Call
from omni_jax.evals.transcripts import contains_words

NAME, NAME_HEARD = "picture_naming_accuracy", "picture_naming_accuracy_heard"
NUM_SHUFFLES = 100


def picture_naming(
    calls: Sequence[Call], texts: Sequence[str], classes: Sequence[str], seed: int = 0, name: str = NAME
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`picture_naming_accuracy`: the reply, of which `texts` has the words, names the picture's class and no other.

    Floor: the better of chance (1 / classes) and the same replies scored against shuffled pictures, which is what
    a model earns that names classes as often as it does but not because of the picture.
    """
    correct = [named_class(text, classes) == call.label for call, text in zip(calls, texts, strict=True)]
    records = [
        {"expected": call.label, "reply": text, "correct": bool(right)} | call.factors
        for call, text, right in zip(calls, texts, correct, strict=True)
    ]
    floor = max(1 / len(classes), _shuffled(calls, texts, classes, seed)) if calls else None
    factors = {factor: [call.factors[factor] for call in calls] for factor in ("picture", "voice")}
    return mean_entry(name, correct, factors, floor=floor), records


def named_class(text: str, classes: Sequence[str]) -> str | None:
    """The one class that `text` names; None when it names none or several."""
    named = [name for name in classes if contains_words(text, name)]
    return named[0] if len(named) == 1 else None


def _shuffled(calls: Sequence[Call], texts: Sequence[str], classes: Sequence[str], seed: int) -> float:
    named = [named_class(text, classes) for text in texts]
    labels = np.array([call.label for call in calls])
    rng = np.random.default_rng(seed)
    return float(np.mean([[a == b for a, b in zip(named, rng.permutation(labels))] for _ in range(NUM_SHUFFLES)]))
