"""Chats in the words of a published model's template: what is asked is given, what is answered is learned."""

import dataclasses
import json

import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.input_pipeline.chat_template import ChatTemplate, load_chat_template
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.tokenizer import NUM_CONTROL, Tokenizer

# As Qwen's, without its tools.
QWEN = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi there"},
    {"role": "user", "content": "what is this"},
    {"role": "assistant", "content": "a dog"},
]


def test_only_answers_are_learned():
    parts = ChatTemplate(QWEN, {}, "x").parts(CHAT)
    assert "".join(text for text, _ in parts) == "".join(
        f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in CHAT
    )
    assert [text for text, is_answer in parts if is_answer] == ["hi there<|im_end|>\n", "a dog<|im_end|>\n"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "is not Jinja"),
        ("{{ raise_exception('roles must alternate') }}", "fails .roles must alternate"),
        ("{{ messages.__class__.__mro__ }}", "fails"),  # the sandbox lets nothing out
        ("{{ messages | length }}", "writes earlier turns anew"),
    ],
)
def test_templates_that_cannot_be_used(template, message):
    with pytest.raises(UserError, match=message):
        ChatTemplate(template, {}, "x").parts(CHAT)


def test_a_batch_of_templated_chats(config, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=alphabet, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    made.train_from_iterator(["hello there"], trainer)
    path = tmp_path / "tokenizer.json"
    path.write_text(made.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": QWEN}))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"turns": CHAT}) + "\n")
    tokenizer = Tokenizer(made.to_str().encode())
    own = dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, tokenizer=str(path), sources={"mine": f"folder:{tmp_path}"}, tasks={"written_qa": 1.0}, rows=1
        ),
        model=dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size),
    )
    loader = make_loader(own)
    timeline = next(loader).timeline
    loader.close()
    first = timeline.segment_ids[0] == 1
    learned = timeline.text_target[0][first][timeline.text_weight[0][first] > 0]
    end = made.token_to_id("<|im_end|>") + NUM_CONTROL
    assert np.sum(learned == end) == 2 and np.sum(timeline.text[0][first] == end) == 4
    assert tokenizer.decode(learned) == "hi there\na dog\n"
    assert load_chat_template(tmp_path / "spm.model") is None
