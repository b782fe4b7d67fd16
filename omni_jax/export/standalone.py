"""Runs exported StableHLO programs with jax and flatbuffers alone. Copied into every export as load.py.

from load import Model
model = Model("exported")
state = model.start(seed=0)  # or model.start_with_picture(seed=0, picture=...)
state, said = model.frame(state, samples=..., exec_mask=...)  # said["samples"]: 80 ms at 24 kHz
"""

import hashlib
import json
from pathlib import Path

import jax
import ml_dtypes  # a part of every jax
import numpy as np
from jax import export

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "I8": np.int8, "I32": np.int32}


class Model:
    """Weights and programs of an export. Every program is compiled at its first call."""

    def __init__(self, directory):
        """Raises ValueError for a file that differs from the manifest's sha256."""
        self.directory = Path(directory)
        self.files = json.loads((self.directory / "manifest.json").read_text())["files"]
        self.table = json.loads(self._read("programs.json"))["programs"]
        self.weights = {}
        for part in ("model", "codec"):
            tensors = _tensors(self._read(f"{part}.safetensors"))
            self.weights.update({f"{part}/{name}": jax.device_put(array) for name, array in tensors})
        self._compiled = {}

    def start(self, **inputs):
        """The state of new calls; `seed` int."""
        return _state(self.call("start", inputs))

    def start_with_picture(self, **inputs):
        """`seed` int and `picture` [B, H, W, 3], RGB in [0, 1]."""
        return _state(self.call("start_with_picture", inputs))

    def frame(self, state, **inputs):
        """One 80 ms frame: `samples` [B, 1280] at 16 kHz, `exec_mask` [B]. Returns the new state and what is said."""
        outputs = self.call("frame", state | inputs)
        return _state(outputs), {name: value for name, value in outputs.items() if not name.startswith("state/")}

    def call(self, name, inputs):
        """Runs a program on arrays by name; returns its outputs by name."""
        if name not in self._compiled:
            self._compiled[name] = jax.jit(export.deserialize(bytearray(self._read(f"{name}.stablehlo"))).call)
        arrays = []
        for key, shape, dtype in self.table[name]["inputs"]:
            array = self.weights[key] if key in self.weights else inputs[key]
            if len(shape) != np.ndim(array) or any(a != b for a, b in zip(np.shape(array), shape) if b != "rows"):
                raise ValueError(f"{name}: {key} has shape {np.shape(array)}, want {tuple(shape)}")
            arrays.append(jax.numpy.asarray(array, dtype))
        return dict(zip(self.table[name]["outputs"], self._compiled[name](*arrays)))

    def _read(self, name):
        data = (self.directory / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files[name]["sha256"]:
            raise ValueError(f"{self.directory / name}: differs from manifest.json: copy the export again")
        return data


def _state(outputs):
    return {name: value for name, value in outputs.items() if name.startswith("state/")}


def _tensors(data):
    """(name, array) of a safetensors file: a length, a JSON header, the bytes."""
    length = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            yield name, np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
