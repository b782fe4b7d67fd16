"""Host memory that reading a published model takes beyond its arrays, against the largest published tensor.

python -m benchmarks.import_memory [--layers=8] [--width=1024] [--resumed]

Writes a Llama of random weights into a temporary directory. On a CPU the arrays are host memory themselves, so their
bytes are subtracted from the peak of the resident set. With --resumed another process has read the model before, and
has left all parts but the last. Linux only.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path

import jax
import numpy as np

from omni_jax.config import MeshConfig
from omni_jax.models import binding
from omni_jax.models.language import LanguageModel
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained import kept_parts
from omni_jax.pretrained.exporting import tensor_sources
from omni_jax.pretrained.families import TEXT_FAMILIES
from omni_jax.pretrained.importing import Imported, load_model
from omni_jax.pretrained.tensor_writer import write_tensors

MB = 1e6
PART_BYTES = 100e6  # smaller parts, because the model is small, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--resumed", action="store_true")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        directory, kept = Path(root) / "published", Path(root) / "parts"
        largest = write_model(directory, flags.layers, flags.width)
        if flags.resumed:
            first = multiprocessing.get_context("spawn").Process(target=read, args=(directory, kept))
            first.start()
            first.join()
        mesh = make_mesh(MeshConfig())
        warm_up(mesh)
        before = status_kb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
        model = read(directory, kept)
        peak = status_kb("VmHWM")
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    beyond = (peak - before) * 1024 - arrays
    print("| arrays MB | largest tensor MB | peak beyond the arrays MB | of the largest tensor |")
    print("|---|---|---|---|")
    print(f"| {arrays / MB:.0f} | {largest / MB:.0f} | {beyond / MB:.0f} | {beyond / largest:.2f} |")


def read(directory: Path, kept: Path) -> Imported:
    kept_parts.PART_BYTES = PART_BYTES
    return load_model(directory, make_mesh(MeshConfig()), kept=kept)


def write_model(directory: Path, layers: int, width: int) -> int:
    """Writes the model one random tensor at a time; returns the bytes of the largest."""
    directory.mkdir(parents=True, exist_ok=True)
    values = {"model_type": "llama", "vocab_size": 32_000, "hidden_size": width, "intermediate_size": 4 * width}
    values |= {"num_hidden_layers": layers, "num_attention_heads": width // 64, "rms_norm_eps": 1e-6}
    (directory / "config.json").write_text(json.dumps(values))
    family = TEXT_FAMILIES["llama"]
    cfg = family.read_config(values)
    shapes = jax.eval_shape(lambda: binding.init_params(LanguageModel, cfg, jax.random.key(0)))
    sources = tensor_sources(family, cfg, shapes, np.dtype(np.float32))
    rng = np.random.default_rng(0)
    random = {
        name: source._replace(make=lambda shape=source.shape: rng.random(shape, np.float32))
        for name, source in sources.items()
    }
    write_tensors(directory, random)
    return max(source.num_bytes for source in random.values())


def warm_up(mesh: jax.sharding.Mesh) -> None:
    """Starts the runtime, so that its own memory is not counted."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), 1, 64)
        load_model(directory, mesh)


def status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


if __name__ == "__main__":
    main()
