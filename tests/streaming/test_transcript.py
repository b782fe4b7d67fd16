"""Ids of the text stream become text as they come."""

import io

import pytest
import sentencepiece

from omni_jax.streaming.transcript import Transcript, control_name
from omni_jax.types import Control


@pytest.fixture(scope="module")
def vocabulary():
    model = io.BytesIO()
    controls = [f"<{control.name}>" for control in Control if control > 3]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["this is a dog", "that is a cat", "a cat and a dog"] * 5),
        model_writer=model,
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        control_symbols=controls,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def test_pieces_and_controls(vocabulary):
    pieces = vocabulary.encode("that is a dog")
    ids = [Control.LISTEN, Control.SPEAK, pieces[0], Control.WAIT, *pieces[1:], Control.END_OF_TURN]
    transcript = Transcript(vocabulary)
    spoken = [transcript.push(int(piece)) for piece in ids]
    assert "".join(spoken) == " that is a dog"
    assert spoken[0] == spoken[1] == spoken[3] == spoken[-1] == ""
    assert Transcript(vocabulary).text(map(int, ids)) == "that is a dog"


def test_bytes_wait_for_a_whole_character(vocabulary):
    ids = vocabulary.encode("a \u00e9")
    transcript = Transcript(vocabulary)
    spoken = [transcript.push(piece) for piece in ids]
    assert spoken[-1] == "\u00e9" and spoken[-2] == ""


def test_broken_bytes_do_not_stop_the_stream(vocabulary):
    ids = [vocabulary.piece_to_id("<0xC3>"), *vocabulary.encode("dog")]
    assert Transcript(vocabulary).text(ids) == "\ufffd dog"


def test_control_names():
    assert control_name(Control.INTERRUPT) == "INTERRUPT" and control_name(max(Control) + 1) is None
