"""Offline work: corpus recipes, TFDS builders, tokenizer training. Never imported by `omni_jax`."""
