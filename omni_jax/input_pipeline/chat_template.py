"""Chats as a published model was trained on them: the Jinja template of its `tokenizer_config.json`.

The template is run in Jinja's sandbox, as transformers does. What the assistant says is the difference between the chat
up to its turn, with the prompt to answer, and the chat with the turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omni_jax.errors import UserError

FILE = "tokenizer_config.json"
MAX_TEMPLATE_BYTES = 1 << 20
MARKS = ("bos_token", "eos_token", "unk_token", "pad_token")  # templates name them


class Part(NamedTuple):
    """A stretch of a rendered chat; the assistant's are what is learned."""

    text: str
    is_answer: bool


class ChatTemplate:
    """Raises UserError for a template that is none, when it is made and when it is used."""

    def __init__(self, template: str, marks: Mapping[str, str], name: str):
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._name, self._marks, self._error = name, dict(marks), jinja2.TemplateError
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = self._raise
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise UserError(f"{name}: its chat template is not Jinja ({error})") from None

    def parts(self, messages: Sequence[Mapping[str, str]]) -> list[Part]:
        """`messages`: role (system, user or assistant) and content, in order."""
        parts, done = [], ""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._render(messages[:number], add_generation_prompt=True)
            answered = self._render(messages[: number + 1], add_generation_prompt=False)
            if not (asked.startswith(done) and answered.startswith(asked)):
                raise UserError(f"{self._name}: its chat template writes earlier turns anew: it cannot be trained on")
            parts += [Part(asked[len(done) :], False), Part(answered[len(asked) :], True)]
            done = answered
        return parts

    def _render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, tools=None, **self._marks
            )
        except (self._error, TypeError, ArithmeticError, LookupError, RecursionError) as error:
            raise UserError(f"{self._name}: its chat template fails ({error})") from None

    def _raise(self, message: str) -> None:
        raise self._error(message)


def load_chat_template(tokenizer: str | Path) -> ChatTemplate | None:
    """The template that lies beside a `tokenizer.json`; None where there is none. Raises UserError."""
    path = Path(tokenizer).with_name(FILE)
    if Path(tokenizer).suffix != ".json" or not path.is_file():
        return None
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        raise UserError(f"{path} has {path.stat().st_size} bytes: is it the right file?")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        template = values.get("chat_template")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is no {FILE} ({error})") from None
    if isinstance(template, list):  # several, by name
        template = next(
            (t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None
        )
    if not isinstance(template, str):
        return None
    return ChatTemplate(template, {name: _mark(values.get(name)) for name in MARKS}, str(path))


def _mark(value: Any) -> str:
    """A special token, which may be an object with its content."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""
