"""Text of the evaluation: normalisation, and words that a reply names."""

from __future__ import annotations

import re

import jiwer


def normalise(text: str) -> str:
    """Lowercase words separated by one blank; apostrophes stay, hyphens part words, other punctuation goes."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower().replace("’", "'")))


def word_errors(expected: str, got: str) -> tuple[int, int]:
    """(errors, words of `expected`) after normalisation; an empty `got` counts every word as an error."""
    expected, got = normalise(expected), normalise(got)
    words = len(expected.split())
    if not words:
        raise ValueError("expected='' has no words: a word error rate is not defined")
    if not got:
        return words, words
    measures = jiwer.process_words(expected, got)
    return measures.substitutions + measures.deletions + measures.insertions, words


def contains_words(text: str, words: str) -> bool:
    """Whether the words of `words` stand in `text` in a row, whole words only."""
    return f" {normalise(words)} " in f" {normalise(text)} "
