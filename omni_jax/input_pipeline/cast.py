"""Who can say what in a dialogue: the user's questions with their replies, and what can come between."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_jax.errors import UserError
from omni_jax.input_pipeline.corpus import PICTURE_REPLY, Picture, SpeechClip
from omni_jax.input_pipeline.materials import Materials

QUESTION_KINDS = ("picture_question", "fact_question", "repeat_request", "greeting", "tell")
# Words that make clear that the assistant is to stop.
STOP_WORDS = ("stop", "wait", "hold", "enough", "quiet", "hang")
UNTIMED_STOP_MS = 400  # where a clip has no word times


@dataclass(frozen=True)
class Cast:
    """Clips by what they are for. `questions` holds only those whose reply is among the assistant's clips."""

    questions: dict[str, list[SpeechClip]]
    replies: dict[str, SpeechClip]  # by text
    picture_replies: dict[str, list[SpeechClip]]  # by label, in a fixed order of wordings
    pictures: dict[str, list[Picture]]  # by label
    stops: list[SpeechClip] = field(default_factory=list)
    backchannels: list[SpeechClip] = field(default_factory=list)
    side_talks: list[SpeechClip] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        return sorted(set(self.pictures) & set(self.picture_replies))

    def reply(self, question: SpeechClip, label: str | None) -> SpeechClip:
        """The same question about the same picture is always answered in the same words."""
        if question.reply != PICTURE_REPLY:
            return self.replies[question.reply]
        wordings = self.picture_replies[label]
        return wordings[zlib.crc32(question.text.encode()) % len(wordings)]


def make_cast(materials: Materials, assistant: list[SpeechClip] | None = None) -> Cast:
    """The split's users, and the answers of `assistant`; by default those with codes, which can be put on a stage.

    Raises UserError where the corpus has no question with an answer.
    """
    replies = {clip.text: clip for clip in (materials.replies() if assistant is None else assistant)}
    picture_replies: dict[str, list[SpeechClip]] = {}
    for clip in sorted(replies.values(), key=lambda clip: clip.text):
        if is_picture_reply(clip):
            picture_replies.setdefault(clip.slot, []).append(clip)
    pictures: dict[str, list[Picture]] = {}
    for picture in materials.pictures():
        pictures.setdefault(picture.label, []).append(picture)
    users = materials.speech("user")
    can_show = bool(set(pictures) & set(picture_replies))
    questions = {
        kind: [
            clip
            for clip in users
            if clip.kind == kind and (clip.reply in replies or (clip.reply == PICTURE_REPLY and can_show))
        ]
        for kind in QUESTION_KINDS
    }
    questions = {kind: clips for kind, clips in questions.items() if clips}
    if not questions:
        raise UserError("no data for task dialogue: no question of a user has a reply among the assistant's clips")
    return Cast(questions, replies, picture_replies, pictures, *_by_kind(users, "stop", "backchannel", "side_talk"))


def is_picture_reply(clip: SpeechClip) -> bool:
    """Replies to "what is this?" have the picture's class as slot and "{a}" (the noun with its article) as template."""
    return clip.kind == "reply" and (clip.template.startswith("picture") or "{a}" in clip.template)


def stop_word_end_ms(words: Sequence, duration_ms: float) -> float:
    """When the first word that asks to stop has been said, from the start of the clip."""
    ends = [word.end_ms for word in words if word.text in STOP_WORDS]
    return float(ends[0]) if ends else min(float(UNTIMED_STOP_MS), duration_ms)


def _by_kind(clips: list[SpeechClip], *kinds: str) -> list[list[SpeechClip]]:
    return [[clip for clip in clips if clip.kind == kind] for kind in kinds]
