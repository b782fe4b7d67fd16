"""Speech recognition and synthesis, each as a whole ("audio, then text") and on the frame grid with a stated delay.

On the grid the delay in frames is a part of the prompt, in words, as a user would ask for it: without it the model
could only guess how long to wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.monologue import (
    FILL_WEIGHT,
    TRANSITION_WEIGHT,
    WORD_WEIGHT,
    PlacedWord,
    text_weights,
    write_turn,
)
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Example, Frames, Layout, delay_codes, delay_states
from omni_jax.input_pipeline.tokenizer import Tokenizer
from omni_jax.types import FRAME_RATE_HZ, MEL_FRAMES_PER_SLOT, Control, Modality, TurnState

FRAME_MS = 1000.0 / FRAME_RATE_HZ
ASR_DELAYS = {3: "three", 6: "six", 12: "twelve", 25: "twenty five"}
TTS_DELAYS = {0: "zero", 3: "three", 6: "six", 12: "twelve", 25: "twenty five"}

Mel = Float[np.ndarray, "_A8 M"]
Codes = Int[np.ndarray, "_F Q"]


def placed_words(words: Sequence[Span], tokenizer: Tokenizer, start_frame: int = 0) -> list[PlacedWord]:
    """Words of a clip that starts at `start_frame`, each in the frame in which it starts to sound."""
    return [PlacedWord(start_frame + int(word.start_ms / FRAME_MS), tokenizer.encode_word(word.text)) for word in words]


def end_frame(words: Sequence[Span]) -> int:
    """The first frame of a clip after its last word."""
    return int(np.ceil(words[-1].end_ms / FRAME_MS))


def asr_example(mel: Mel, pieces: Sequence[int], labels: Sequence[int], num_codebooks: int) -> Example:
    """AUDIO, the heard slots, ASR, the text, EOS."""
    layout = Layout(Task.ASR, num_codebooks).text([Control.AUDIO]).audio(mel).text([Control.ASR])
    return layout.text([*pieces, Control.EOS], 1.0).finish(labels)


def hear_example(task: Task, mel: Mel, labels: Sequence[int], num_codebooks: int) -> Example:
    """AUDIO, and speech that stays in the pool."""
    return Layout(task, num_codebooks).text([Control.AUDIO]).unplaced_audio(mel).finish(labels)


def tts_example(pieces: Sequence[int], codes: Codes, acoustic_delay: int) -> Example:
    """TTS, the text, AUDIO, then own speech; its text stream says WAIT, and END_OF_TURN in the last frame."""
    layout = Layout(Task.TTS, codes.shape[1]).text([Control.TTS, *pieces, Control.AUDIO])
    text = np.full(len(codes), Control.WAIT, np.int32)
    text[-1] = Control.END_OF_TURN
    weight = np.full(len(codes), FILL_WEIGHT / 4, np.float32)
    weight[-1] = TRANSITION_WEIGHT
    frames = Frames(text, weight, delay_codes(codes, acoustic_delay), np.ones(len(codes), np.float32))
    return layout.frames(frames, None, Modality.SPEECH).finish()


def frame_asr_example(
    mel: Mel,
    words: Sequence[Span],
    voiced: Int[np.ndarray, "F"],
    delay_frames: int,
    tokenizer: Tokenizer,
    labels: Sequence[int],
    num_codebooks: int,
) -> Example:
    """FRAME_ASR, the delay, then frames: each word `delay_frames` after the frame in which it ends.

    `mel` must last long enough for the delayed text; `voiced` is user_vad by frame.
    """
    num_frames = len(mel) // MEL_FRAMES_PER_SLOT
    placed = [
        PlacedWord(int(word.end_ms / FRAME_MS) + delay_frames, tokenizer.encode_word(word.text)) for word in words
    ]
    text = np.full(num_frames, Control.LISTEN, np.int32)
    write_turn(text, placed, placed[-1].start_frame)
    speaking = np.flatnonzero(voiced)
    state = np.full(num_frames, TurnState.IDLE, np.int32)
    state[speaking[0] : speaking[-1] + 1] = TurnState.TURN
    frames = Frames(text, text_weights(text), user_vad=voiced, turn_state=delay_states(state))
    prompt = [Control.FRAME_ASR, *tokenizer.encode(ASR_DELAYS[delay_frames])]
    return Layout(Task.FRAME_ASR, num_codebooks).text(prompt).frames(frames, mel).finish(labels)


def draw_tts_delay(rng: np.random.Generator) -> int:
    """Frames; half of the time none, as in a dialogue."""
    return 0 if rng.random() < 0.5 else int(rng.choice([delay for delay in TTS_DELAYS if delay]))


def frame_tts_example(
    words: Sequence[Span],
    codes: Codes,
    silence: Int[np.ndarray, "Q"],
    delay_frames: int,
    acoustic_delay: int,
    tokenizer: Tokenizer,
) -> Example:
    """FRAME_TTS, the delay, then frames: the text at the times of the speech drives it, `delay_frames` later.

    The text is given, so only its speech is a target, and END_OF_TURN. A silent frame makes room for SPEAK.
    """
    lead = np.tile(silence, (1 + delay_frames, 1))
    codes = np.concatenate([lead, codes])
    text = np.full(len(codes), Control.LISTEN, np.int32)
    write_turn(text, placed_words(words, tokenizer, start_frame=1), 1 + end_frame(words))
    weight = np.where(text == Control.END_OF_TURN, WORD_WEIGHT, 0.0).astype(np.float32)
    frames = Frames(text, weight, delay_codes(codes, acoustic_delay), np.ones(len(codes), np.float32))
    prompt = [Control.FRAME_TTS, *tokenizer.encode(TTS_DELAYS[delay_frames])]
    return Layout(Task.FRAME_TTS, codes.shape[1]).text(prompt).frames(frames, None).finish()
