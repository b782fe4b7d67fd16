"""The contracts between the packages: what one training example, one batch and one streaming step look like.

Axis letters, one meaning each, used in every shape comment and annotation:
    B batch rows            T timeline positions     S cached positions     L layers
    D embedding             H query heads            K key/value heads      Dh head dimension
    F mlp width             V vocabulary             E experts              C expert capacity
    Q codebooks             N audio samples          A 12.5 Hz audio slots  M mel bins
    P picture patches       G media pools            Ns speech positions    U CTC labels
    Z media segments        W pieces of a tag        A8, A4 8 and 4 times A
Masks are True where something is real or may be attended to. Index -1 means "absent", which contributes zero to
the input embedding and is distinct from the PAD token and from silence codes. Weight 0 means "not a target".
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from jaxtyping import Array, Float, Int

ABSENT = -1

SPEECH_SAMPLE_RATE_HZ = 24_000  # codec input and output
LISTEN_SAMPLE_RATE_HZ = 16_000  # encoder input
FRAME_RATE_HZ = 12.5
FRAME_SPEECH_SAMPLES = 1_920  # 80 ms at 24 kHz
FRAME_LISTEN_SAMPLES = 1_280  # 80 ms at 16 kHz
MEL_FRAMES_PER_SLOT = 8  # 100 Hz log-mel -> 12.5 Hz
PHONES_PER_SLOT = 4  # phone labels at 50 Hz
TURN_DELAY_FRAMES = 2  # so much later TurnHead names a frame's state: at the onset of a sound nobody knows it yet
WHISPER_FRAMES_PER_SLOT = 4  # its encoder's outputs at 50 Hz


class Modality(IntEnum):
    """What a position carries; selects the modality embedding and the loss term."""

    PADDING = 0
    TEXT = 1  # a text token alone
    AUDIO = 2  # one 80 ms slot of heard audio alone
    PATCH = 3  # one pooled picture patch
    SPEECH = 4  # own speech codes alone
    FRAME = 5  # one 80 ms step of the frame grid: heard audio, own text and own codes together


class Control(IntEnum):
    """Ids of the reserved pieces, identical in every vocabulary that this project trains."""

    PAD = 0  # packing padding, never a target
    UNK = 1
    BOS = 2
    EOS = 3
    LISTEN = 4  # frame grid: own silence
    WAIT = 5  # frame grid: speaking, between own words (PAD in the literature)
    EPAD = 6  # frame grid: a word starts at the next frame
    SPEAK = 7  # takes the EPAD slot before the first word of a turn
    INTERRUPT = 8  # semantic interruption: first frame after the last kept word
    BACKCHANNEL = 9  # takes the EPAD slot before an own backchannel
    END_OF_TURN = 10  # first frame after the last word of a turn
    ASR = 11
    TTS = 12
    CAPTION = 13
    ANSWER = 14
    FRAME_ASR = 15
    FRAME_TTS = 16
    DIALOGUE = 17
    IMAGE = 18
    AUDIO = 19


class TurnState(IntEnum):
    """What the user is doing in a frame (TurnHead's classes, `Timeline.turn_state`)."""

    IDLE = 0  # silence or noise
    TURN = 1  # speaking to the assistant
    PAUSE = 2  # silent inside an unfinished turn
    BACKCHANNEL = 3  # "mm-hm" while the assistant speaks
    INTERRUPT = 4  # speaking to stop the assistant
    SIDE_TALK = 5  # speaking to somebody else


class Event(IntEnum):
    """Labelled by construction at one frame; used by evaluation, never an input."""

    NONE = 0
    END_OF_USER_TURN = 1  # last frame with user speech of a turn that wants an answer
    INTERRUPT = 2  # the interrupting word is identifiable
    BACKCHANNEL = 3
    SIDE_TALK = 4
    NOISE = 5
    PAUSE = 6


class Timeline(NamedTuple):
    """T positions on one axis. Targets are stored already shifted: device code never computes `x[:, 1:]`.

    Position i carries the user's complete frame i and the model's own text and codes of step i; `*_target[i]` is
    what the model must say at step i + 1. Every field has leading axes [B, T], so that one permutation reorders all.
    """

    text: Int[Array, "B T"]
    text_target: Int[Array, "B T"]
    text_weight: Float[Array, "B T"]
    codes: Int[Array, "B T Q"]  # acoustic codebooks are already delayed against codebook 0
    codes_target: Int[Array, "B T Q"]
    codes_weight: Float[Array, "B T Q"]
    audio_index: Int[Array, "B T"]  # slot of the group's audio pool
    patch_index: Int[Array, "B T"]  # pooled patch of the group's picture pool
    modality: Int[Array, "B T"]
    position_ids: Int[Array, "B T 3"]  # TM-RoPE (time, height, width)
    segment_ids: Int[Array, "B T"]  # 0 = padding; attention never crosses a segment
    user_vad: Int[Array, "B T"]  # 0, 1 or ABSENT
    turn_state: Int[Array, "B T"]  # TurnState of the frame TURN_DELAY_FRAMES before, or ABSENT
    event: Int[Array, "B T"]  # Event


class Media(NamedTuple):
    """Encoder inputs, packed into pools. Pool g belongs to rows [g B/G, (g+1) B/G)."""

    mel: Float[Array, "G A8 M"]  # log-mel at 100 Hz, 8 frames a slot
    mel_segment_ids: Int[Array, "G A"]  # a slot; 0 = padding
    patches: Float[Array, "G P X"]  # flattened RGB pixels in [0, 1]; 2x2 blocks contiguous, 4 patches a pooled patch
    patch_positions: Int[Array, "G P 2"]  # (row, column)
    patch_segment_ids: Int[Array, "G P"]  # 0 = padding
    ctc_labels: Int[Array, "G Z U"]  # characters of segment z + 1 of the audio pool, 0-padded; 0 is the blank
    ctc_weight: Float[Array, "G Z"]  # 0 where a segment has no transcript
    tags: Int[Array, "G Z W"]  # pieces that name picture z + 1 of the pool, 0-padded
    phones: Int[Array, "G A4"]  # the phone that sounds, at 50 Hz; ABSENT where the corpus has no timings
    words: Int[Array, "G A"]  # the piece that has just been heard, WAIT between words; ABSENT without timings


class Batch(NamedTuple):
    timeline: Timeline
    media: Media
    speech_index: Int[Array, "B Ns"]  # positions whose codes are trained at all codebooks; ABSENT-padded
    task: Int[Array, "B T"]  # input_pipeline.tasks.Task of each position, for metrics by task


class MoEStats(NamedTuple):
    """Summed over layers, over real positions only."""

    load_balance_loss: Float[Array, ""]
    router_z_loss: Float[Array, ""]
    expert_share: Float[Array, "L E"]  # share of routed positions, sums to 1 a layer
    router_entropy: Float[Array, ""]
    dropped_share: Float[Array, ""]  # of all choices, mean over layers: see nn.experts.mix_experts


class Projection(NamedTuple):
    """From hidden states to logits, which a loss computes in chunks."""

    matrix: Float[Array, "*Q D V"]  # of text, or stacked of Q codebooks
    bias: Float[Array, " V"] | None = None


class ModelOutput(NamedTuple):
    hidden: Float[Array, "B T D"]  # after the final norm; text logits are computed from it in chunks
    semantic_hidden: Float[Array, "B T W"] | None  # codebook 0 at every position; None without speech
    codes_hidden: Float[Array, "B Ns Q1 W"] | None  # codebooks 1 to Q - 1 at `speech_index`
    vad_logits: Float[Array, "B T"] | None  # None in a model of text alone
    turn_logits: Float[Array, "B T R"] | None  # R = len(TurnState); TURN_DELAY_FRAMES before
    ctc_logits: Float[Array, "G W U"] | None  # W = A * ctc_subframes
    phone_logits: Float[Array, "G A4 K"] | None
    word_logits: Float[Array, "G A V"] | None
    tag_logits: Float[Array, "G Z V"] | None
    moe: MoEStats
