"""Published vocabularies: byte-level and SentencePiece-like tokenizer.json, and SentencePiece models of others."""

import dataclasses
import io
import json

import numpy as np
import pytest
import sentencepiece

from omni_jax.errors import UserError
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.tokenizer import NUM_CONTROL, Tokenizer, load_tokenizer
from omni_jax.streaming.transcript import Transcript
from omni_jax.types import Control

TEXT = ["this is a dog", "that is a cat", "a cat and a dog, isn't it?", "un caf\u00e9 \u4f60"] * 5
KINDS = ("byte_level", "metaspace", "sentencepiece")


def byte_level(tokenizers):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def metaspace(tokenizers):
    """As Llama 2's and Mixtral's."""
    hexadecimal = [f"<0x{byte:02X}>" for byte in range(256)]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("\u2581", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2581", "merged_with_next")
    marks = ["<unk>", "<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=marks + hexadecimal, limit_alphabet=24, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    # The published files have the bytes in the vocabulary alone, and no cut at words: no piece goes across them.
    values = json.loads(made.to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] in marks]
    return json.dumps(values | {"pre_tokenizer": None})


@pytest.fixture(scope="module")
def models():
    tokenizers = pytest.importorskip("tokenizers")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=(model := io.BytesIO()),
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return {
        "byte_level": byte_level(tokenizers).to_str().encode(),
        "metaspace": metaspace(tokenizers).encode(),
        "sentencepiece": model.getvalue(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_published_ids_stand_behind_the_control_tokens(models, kind):
    import tokenizers

    tokenizer, text = Tokenizer(models[kind]), "a cat and a dog, isn't it?"
    assert tokenizer.published
    if kind == "sentencepiece":
        expected = sentencepiece.SentencePieceProcessor(model_proto=models[kind]).encode(text)
    else:
        # Byte-level vocabularies tell " a" from "a": every word is written as one inside a sentence.
        theirs = tokenizers.Tokenizer.from_str(models[kind].decode())
        expected = theirs.encode(" " + text if kind == "byte_level" else text).ids
    assert tokenizer.encode(text) == [piece + NUM_CONTROL for piece in expected]
    assert tokenizer.encode_word("cat") == tuple(tokenizer.encode("a cat"))[len(tokenizer.encode("a")) :]
    assert tokenizer.decode([Control.SPEAK, *tokenizer.encode(text), Control.END_OF_TURN]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_characters_in_several_pieces(models, kind):
    tokenizer, text = Tokenizer(models[kind]), "un \u20ac \u4f60 dog"
    ids = tokenizer.encode(text)
    assert any(tokenizer.is_byte(i) for i in ids)
    assert tokenizer.decode(ids) == Transcript(tokenizer).text(ids) == text
    assert Transcript(tokenizer).text([*ids[:2], Control.WAIT]).startswith("un")


def test_a_batch_in_a_published_vocabulary(models, config, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(models["byte_level"])
    data = dataclasses.replace(config.data, tokenizer=str(tmp_path / "tokenizer.json"), rows=1)
    model = dataclasses.replace(config.model, vocab_size=NUM_CONTROL + 304)  # rows beyond the pieces, as Qwen has them
    loader = make_loader(dataclasses.replace(config, data=data, model=model))
    text = next(loader).timeline.text[0]
    loader.close()
    words = Tokenizer(models["byte_level"]).decode(text[text >= NUM_CONTROL])
    assert "comes after" in words and np.max(text) < model.vocab_size


def test_bytes_need_no_file():
    tokenizer, text = load_tokenizer("bytes", NUM_CONTROL + 256), "un \u20ac \u4f60 dog"
    assert tokenizer.vocab_size == NUM_CONTROL + 256
    assert tokenizer.encode(text) == [byte + NUM_CONTROL for byte in f" {text}".encode()]
    assert tokenizer.decode(tokenizer.encode(text)) == Transcript(tokenizer).text(tokenizer.encode(text)) == text


def test_a_vocabulary_that_does_not_fit_is_an_error(models, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(models["byte_level"])
    with pytest.raises(UserError, match="pieces with the 20 control tokens but model"):
        load_tokenizer(path, 300)
    with pytest.raises(UserError, match=r"is no tokenizer\.json"):
        Tokenizer(b'{"model": 1}')
