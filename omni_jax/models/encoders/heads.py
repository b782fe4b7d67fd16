"""Auxiliary heads on the slots of an audio encoder: CTC over characters, and phones where their times are known."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from omni_jax.model_config import AudioEncoderConfig
from omni_jax.nn.mlp import Linear
from omni_jax.types import PHONES_PER_SLOT


class SlotHeads:
    """What the audio encoders share. Expects `cfg` of the class."""

    def make_slot_heads(self, cfg: AudioEncoderConfig, rngs: nnx.Rngs) -> None:
        width = cfg.slot_dim
        self.ctc = Linear(width, cfg.ctc_subframes * cfg.ctc_vocab, ("embed", "small"), rngs, bias=True)
        self.phone = Linear(width, PHONES_PER_SLOT * cfg.num_phones, ("embed", "small"), rngs, bias=True)

    def ctc_logits(self, encoded: Float[Array, "G A D"]) -> Float[Array, "G W U"]:
        """`ctc_subframes` predictions a slot; label 0 is the blank."""
        groups, slots, _ = encoded.shape
        return self.ctc(encoded).reshape(groups, slots * self.cfg.ctc_subframes, self.cfg.ctc_vocab)

    def phone_logits(self, encoded: Float[Array, "G A D"]) -> Float[Array, "G A4 K"]:
        """The phone that sounds, at 50 Hz."""
        groups, slots, _ = encoded.shape
        return self.phone(encoded).reshape(groups, slots * PHONES_PER_SLOT, self.cfg.num_phones)
