"""An exported directory reads back bit for bit in every precision, says what it is, and a damaged one is noticed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax.config import Config, MeshConfig
from omni_jax.config_dict import to_dict
from omni_jax.errors import UserError
from omni_jax.export.archive import Bundle, describe, read_archive, write_archive, write_companions
from omni_jax.export.arrays import flatten, read_arrays, unflatten
from omni_jax.export.directory import whole_or_absent
from omni_jax.export.precision import unpack
from omni_jax.export.sharded import write_sharded
from omni_jax.models import omni

AXES = omni.param_axes(MODEL)


@pytest.fixture(scope="module")
def bundle():
    config = Config(size="tiny", seed=3, model=MODEL, codec=CODEC)
    return Bundle(config, *weights(), b"\x00model", 7, {"corpus": "beeps"}, "CC-BY-4.0")


def _export(directory, bundle, dtype="float32"):
    stored = bundle.stored(dtype)
    with whole_or_absent(directory) as partial:
        write_archive(partial, bundle, stored)
        describe(partial, bundle, stored)
    return directory


def _unpacked(stored):
    return jax.tree.map(jnp.asarray, unpack(jax.device_get(stored.model)))


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_round_trip_is_bit_equal(dtype, tmp_path, bundle):
    read = read_archive(_export(tmp_path / "out", bundle, dtype))
    assert (read.config, read.tokenizer_model, read.step) == (bundle.config, b"\x00model", 7)
    assert (read.data_card, read.license) == ({"corpus": "beeps"}, "CC-BY-4.0")
    _assert_equal(read.params, _unpacked(bundle.stored(dtype)))
    _assert_equal(read.codec_params, bundle.codec_params)
    if dtype == "float32":
        _assert_equal(read.params, bundle.params)


def test_int8_errs_by_half_a_step_and_only_in_matrices(bundle):
    stored, axes, shrunk = flatten(jax.device_get(bundle.stored("int8").model)), flatten(AXES), 0
    for name, original in flatten(jax.device_get(bundle.params)).items():
        if name in stored:
            np.testing.assert_array_equal(stored[name], original)
            continue
        int8, scale = stored[f"{name}/int8"], stored[f"{name}/scale"]
        assert int8.dtype == np.int8 and len(set(axes[name].names) - {"layers", "expert", "codebook", "small"}) > 1
        assert np.all(np.abs(int8 * scale - original) <= 0.501 * np.broadcast_to(scale, original.shape))
        assert scale.size * 32 <= original.size
        shrunk += original.size
    assert shrunk > 0.5 * sum(leaf.size for leaf in jax.tree.leaves(bundle.params))


def test_orbax_arrays_lie_as_the_mesh_wants_and_read_back(tmp_path, bundle):
    stored = bundle.stored("int8")
    with whole_or_absent(tmp_path / "out") as partial:
        write_sharded(partial, stored, AXES, MeshConfig(fsdp=2, tensor=2))
        write_companions(partial, bundle)
        describe(partial, bundle, stored)
    _assert_equal(read_archive(tmp_path / "out").params, _unpacked(stored))
    served = ocp.StandardCheckpointer().restore(tmp_path / "out" / "model")  # as a server without this project does
    _assert_equal(served, stored.model)
    leaf = flatten(served)["transformer/dense/attention/query/int8"]
    assert leaf.sharding.spec == PartitionSpec(None, ("fsdp", "expert"), "tensor", None)
    assert leaf.addressable_shards[0].data.size * 4 == leaf.size


def test_a_mesh_of_more_devices_than_there_are(tmp_path, bundle):
    with pytest.raises(UserError, match="wants 64 devices, there are 8: on a CPU set JAX_NUM_CPU_DEVICES=64"):
        write_sharded(tmp_path, bundle.stored("float32"), AXES, MeshConfig(fsdp=1, tensor=64))


def test_the_manifest_says_what_is_inside(tmp_path, bundle):
    manifest = json.loads((_export(tmp_path / "out", bundle, "int8") / "manifest.json").read_text())
    tensor = manifest["tensors"]["model"]["text_embedding/int8"]
    assert tensor == {"shape": [MODEL.vocab_size, MODEL.transformer.embed_dim], "dtype": "int8"}
    assert manifest["license"] == {"weights": "CC-BY-4.0", "code": "Apache-2.0", "data": "see data_card"}
    assert manifest["training_config"] == json.loads(json.dumps(to_dict(bundle.config)))
    assert manifest["versions"]["jax"] == jax.__version__
    assert set(manifest["files"]) == {"model.safetensors", "codec.safetensors", "config.json", "tokenizer.model"}
    assert all(len(entry["sha256"]) == 64 and entry["bytes"] for entry in manifest["files"].values())


def test_flat_names():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(nested)) == nested
    with pytest.raises(ValueError, match="holds '/'"):
        flatten({"a/b": 1})


def test_an_existing_directory_is_not_touched(tmp_path, bundle):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        _export(tmp_path / "out", bundle)
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_export_leaves_nothing(tmp_path):
    message = r"cannot be written \(No space left on device\)"
    with pytest.raises(UserError, match=message), whole_or_absent(tmp_path / "out") as partial:
        (partial / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def _flip_a_byte(directory):
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _edit_manifest(old, new):
    def edit(directory):
        path = directory / "manifest.json"
        path.write_text(path.read_text().replace(old, new))

    return edit


_DAMAGE = {
    "model.safetensors: differs from its manifest": _flip_a_byte,
    "codec.safetensors: missing": lambda directory: (directory / "codec.safetensors").unlink(),
    "export version 99": _edit_manifest('"export_version": 2', '"export_version": 99'),
    "manifest.json: not readable": lambda directory: (directory / "manifest.json").write_text("{"),
    "'../model.safetensors' lies outside": _edit_manifest('"model.safetensors": {', '"../model.safetensors": {'),
}


@pytest.mark.parametrize("message", _DAMAGE)
def test_damage_is_noticed(message, tmp_path, bundle):
    directory = _export(tmp_path / "out", bundle)
    _DAMAGE[message](directory)
    with pytest.raises(UserError, match=message):
        read_archive(directory)


def test_pickles_are_never_read(tmp_path):
    """A pickle in the place of the weights is refused before anything in it could run."""
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UserError, match="not readable as safetensors"):
        read_arrays(tmp_path / "model.safetensors")
