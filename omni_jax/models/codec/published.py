"""What the published codecs share: an encoder and a decoder that stream by themselves, and a quantiser between them."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float, Int

from omni_jax.nn.stream import State


class PublishedCodec(nnx.Module):
    """Subclasses set `encoder`, `decoder` and `quantizer`."""

    aligned = True  # offline, `decode`'s sample n belongs to the encoder's sample n

    def encode(self, wav: Float[Array, "B N"]) -> Int[Array, "B T Q"]:
        return self.quantizer.encode(self.encoder(wav))

    def decode(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B N"]:
        return self.decoder(self.quantizer.decode(codes))

    def encode_step(self, wav: Float[Array, "B N"], state: State) -> tuple[Int[Array, "B T Q"], State]:
        latents, state = self.encoder.step(wav, state)
        return self.quantizer.encode(latents), state

    def decode_step(self, codes: Int[Array, "B T Q"], state: State) -> tuple[Float[Array, "B N"], State]:
        return self.decoder.step(self.quantizer.decode(codes), state)
