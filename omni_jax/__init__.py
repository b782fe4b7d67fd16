"""omni_jax: train, evaluate, stream and export models that hear, see, read, write and speak."""

__version__ = "0.1.0"
