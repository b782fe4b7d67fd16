"""Word times from CTC: the best of all paths is found, and times come back from clear labels."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from input_pipeline.conftest import serialise
from input_pipeline.source_files import beep, own_record, write_array_records
from models.tiny import MODEL

from data.align_words import Timer, recogniser
from data.forced_alignment import END_LAG_MS, START_LAG_MS, DoesNotFit, align, word_spans
from omni_jax.config import Config
from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord
from omni_jax.models import omni


def collapsed(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


@pytest.mark.parametrize("labels", [(1,), (1, 2), (2, 2), (1, 2, 1)])
def test_the_best_path_is_found(labels):
    for seed in range(5):
        log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), size=6))
        paths = [path for path in itertools.product(range(3), repeat=6) if collapsed(path) == labels]
        best = max(paths, key=lambda path: log_probs[np.arange(6), path].sum())
        found = align(log_probs, labels)
        assert tuple(0 if at < 0 else labels[at] for at in found) == best


def test_words_are_timed_where_their_letters_are():
    text, frames = "hi you-too", 40
    labels = features.labels(text)
    log_probs = np.full((frames, 32), -8.0)
    log_probs[:, 0] = -0.01
    for number, label in enumerate(labels):
        log_probs[3 * number + 2, 0], log_probs[3 * number + 2, label] = -8.0, -0.01
    spans = word_spans(log_probs, "Hi, you-too 7")
    assert [span.text for span in spans] == ["Hi,", "you", "too"]
    assert (spans[0].start_ms, spans[0].end_ms) == (0, 120 - END_LAG_MS)
    start, end = 20 * (3 * 3 + 2), 20 * (3 * 5 + 3)
    assert (spans[1].start_ms, spans[1].end_ms) == (max(start - START_LAG_MS, spans[0].end_ms), end - END_LAG_MS)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DoesNotFit):
        align(np.zeros((3, 32)), (1, 1, 2))
    with pytest.raises(DoesNotFit):
        word_spans(np.zeros((30, 32)), "1234")


def test_a_model_times_a_source(tmp_path):
    """Random weights: only that times are in order, inside the audio, and that unsure ones can be dropped."""
    write_array_records(tmp_path, [serialise({**own_record(n), "words": []}) for n in range(2)])
    record = open_reader("x", f"array_record:{tmp_path}")[0]
    model = dataclasses.replace(MODEL, audio=dataclasses.replace(MODEL.audio, ctc_vocab=32))
    shapes = jax.eval_shape(functools.partial(omni.init_params, model), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), shapes)
    codec = dataclasses.replace(Config().codec, num_codebooks=model.num_codebooks, codebook_size=model.codebook_size)
    log_probs = recogniser(Config(model=model, codec=codec), params)
    assert log_probs(beep(0)).shape == (28, 32)  # 0.5 s are 7 slots
    timed = Timer(log_probs, -100.0)(record)
    edges = [ms for word in timed.words for ms in (word.start_ms, word.end_ms)]
    assert edges == sorted(edges) and edges[-1] <= 560 and len(timed.words) == 2
    with pytest.raises(BadRecord, match="not sure of its text"):
        Timer(log_probs, -0.01)(record)
