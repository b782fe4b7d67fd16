"""An exported directory reads back bit for bit, and a damaged one is noticed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.export.arrays import flatten, read_arrays, unflatten
from omni_jax.export.directory import read_export, write_export


@pytest.fixture
def trees():
    params = {
        "trunk": {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4), "scale": jnp.ones((), jnp.bfloat16)},
        "embed": jnp.arange(6, dtype=jnp.int32),
    }
    return params, {"decoder": {"bias": jnp.full((2,), 0.1)}}


def test_round_trip_is_bit_equal(tmp_path, trees):
    write_export(tmp_path / "out", Config(size="tiny", seed=3), *trees, b"\x00model", step=7)
    config, params, codec_params, tokenizer_model, step = read_export(tmp_path / "out")
    assert (config, tokenizer_model, step) == (Config(size="tiny", seed=3), b"\x00model", 7)
    for written, read in zip(trees, (params, codec_params)):
        assert jax.tree.structure(written) == jax.tree.structure(read)
        for a, b in zip(jax.tree.leaves(written), jax.tree.leaves(read)):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_flat_names():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(nested)) == nested
    with pytest.raises(ValueError, match="holds '/'"):
        flatten({"a/b": 1})


def test_an_existing_directory_is_not_touched(tmp_path, trees):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_export(tmp_path / "out", Config(), *trees, b"", step=0)
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_export_leaves_nothing(tmp_path, trees, monkeypatch):
    def full_disk(path, params):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omni_jax.export.directory.write_arrays", full_disk)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        write_export(tmp_path / "out", Config(), *trees, b"", step=0)
    assert not list(tmp_path.iterdir())


def _flip_a_byte(directory):
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _another_version(directory):
    path = directory / "manifest.json"
    path.write_text(path.read_text().replace('"export_version": 1', '"export_version": 99'))


_DAMAGE = {
    "model.safetensors: differs from its manifest": _flip_a_byte,
    "codec.safetensors: missing": lambda directory: (directory / "codec.safetensors").unlink(),
    "export version 99": _another_version,
    "manifest.json: not readable": lambda directory: (directory / "manifest.json").write_text("{"),
}


@pytest.mark.parametrize("message", _DAMAGE)
def test_damage_is_noticed(message, tmp_path, trees):
    directory = write_export(tmp_path / "out", Config(), *trees, b"model", step=0)
    _DAMAGE[message](directory)
    with pytest.raises(UserError, match=message):
        read_export(directory)


def test_pickles_are_never_read(tmp_path, trees):
    """A pickle in the place of the weights is refused before anything in it could run."""
    directory = write_export(tmp_path / "out", Config(), *trees, b"model", step=0)
    (directory / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UserError, match="not readable as safetensors"):
        read_arrays(directory / "model.safetensors")
