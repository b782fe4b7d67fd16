"""Step time, tokens/s and MFU of training steps on synthetic text, one row a model.

python -m benchmarks.train_step [--steps=10] [--peak_tflops=790] [--models=small,1b,moe,cpu]

Needs only jax, flax, optax and ml_collections besides this repository. `small` and `1b` are the sizes of
configs/sizes.py as text models, `moe` is 30b_a3b's layer cut to fit one GPU, `cpu` the dense model of docs/scaling.md.
MFU is by the convention of omni_jax/training/model_flops.py; without --peak_tflops the peak is this machine's own
rate for a large matrix product, measured first.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import benchmarks.annotations  # noqa: F401
from configs import pretrain
from omni_jax.config import Config, MeshConfig, resolve
from omni_jax.models import omni
from omni_jax.parallel.mesh import make_mesh
from omni_jax.planning.abstract_batch import abstract_batch
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.model_flops import count_parameters, model_flops
from omni_jax.training.omni_state import abstract_state, omni_optimizer
from omni_jax.training.state import TrainState, init_state
from omni_jax.training.step import lower_step
from omni_jax.types import Batch, Modality

CUTS = {
    "small": ("small", {}, {"rows": 16}),
    "1b": ("1b", {}, {"rows": 4}),
    "moe": ("qwen3_30b_a3b", {"num_layers": 4, "num_experts": 64}, {"rows": 4}),
    "cpu": (
        "1b",
        {
            **{"num_layers": 8, "embed_dim": 512, "mlp_dim": 1408, "num_heads": 8, "num_kv_heads": 4, "head_dim": 64},
            "rope_sections": (12, 10, 10),
            "qk_norm": False,
            "scan_layers": False,
        },
        {"rows": 4, "row_positions": 512},
    ),
}


def benchmark_config(name: str, remat: str) -> Config:
    """One device's training of text alone."""
    size, trunk, data = CUTS[name]
    config = resolve(pretrain.get_config(size))
    model = config.model
    model = dataclasses.replace(
        model,
        text_only=True,
        transformer=dataclasses.replace(model.transformer, remat=remat, **trunk),
        vocab_size=32_000 if name == "cpu" else model.vocab_size,
        compute_dtype="float32" if name == "cpu" else model.compute_dtype,
    )
    data = dataclasses.replace(config.data, written_media=False, audio_slots=0, patches=0, **data)
    return dataclasses.replace(config, model=model, data=data, mesh=MeshConfig(fsdp=1))


def full_batch(config: Config) -> Batch:
    """Rows of random text without padding."""
    batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract_batch(config))
    shape, timeline = batch.timeline.text.shape, batch.timeline
    text = jax.random.randint(jax.random.key(0), shape, 0, config.model.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(shape[1])[None, :, None], timeline.position_ids.shape)
    return batch._replace(
        timeline=timeline._replace(
            text=text,
            text_target=text,
            text_weight=jnp.ones(shape),
            modality=jnp.full(shape, Modality.TEXT, jnp.int32),
            segment_ids=jnp.ones(shape, jnp.int32),
            position_ids=positions,
        )
    )


def step_seconds(config: Config, steps: int) -> float:
    """Of one step, the fastest of `steps` after two for warming up."""
    step = make_step(config)
    return min([timed(step) for _ in range(steps + 2)][2:])


def timed(step: Callable[[], Any]) -> float:
    """Seconds until what `step` returns is there."""
    began = time.perf_counter()
    jax.block_until_ready(step())
    return time.perf_counter() - began


def make_step(config: Config) -> Callable[[], Any]:
    """A training step that goes on where its last call ended; returns the metrics."""
    mesh, optimizer = make_mesh(config.mesh, jax.devices()[:1]), omni_optimizer(config)
    state = _start(config, optimizer, abstract_state(config, mesh, optimizer))
    batch = full_batch(config)
    compiled = lower_step(config, mesh, optimizer, state, batch).compile()

    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return step


def _start(config: Config, optimizer: optax.GradientTransformation, abstract: TrainState) -> TrainState:
    return init_state(partial(omni.init_params, config.model), optimizer, 0, abstract)


def matmul_flops(dtype: str) -> float:
    """FLOPs a second of a large matrix product on the first device."""
    size = 2048 if jax.default_backend() == "cpu" else 16_384
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(a, a))
        taken.append(time.perf_counter() - began)
    return 2 * size**3 / min(taken)


def main() -> None:
    keep_freed_memory()  # as the trainer does, before JAX starts
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak_tflops", type=float, default=0.0)
    parser.add_argument("--models", default="cpu" if jax.default_backend() == "cpu" else "small,1b,moe")
    parser.add_argument("--remat", default="full,minimal,none")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("model  remat    parameters  step      tokens/s  MFU")
    for name in options.models.split(","):
        for remat in options.remat.split(","):
            config = benchmark_config(name, remat)
            peak = options.peak_tflops * 1e12 or matmul_flops(config.model.compute_dtype)
            seconds = step_seconds(config, options.steps)
            tokens = config.data.rows * config.data.row_positions / seconds
            mfu = model_flops(config) / seconds / peak
            billions = count_parameters(config).total / 1e9
            print(f"{name:6} {remat:8} {billions:8.3f} B  {seconds:7.3f} s {tokens:9.0f}  {mfu:.1%}", flush=True)


if __name__ == "__main__":
    main()
