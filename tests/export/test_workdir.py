"""Parameters alone, as a workdir: rounded, small, and taken by whatever takes a trained run."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import small_run

from omni_jax.checkpoint import CheckpointError, load_codec, load_manifest, load_params, params_sha256, save_params
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.export.__main__ import main
from omni_jax.export.bundle import load_bundle


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


def _export(source, out, dtype="bfloat16"):
    return main([f"--workdir={source}", f"--out={out}", "--format=workdir", f"--dtype={dtype}"])


def _assert_rounded(before, after):
    def check(old, new):
        assert new.dtype == jnp.float32
        np.testing.assert_array_equal(new, old.astype(jnp.bfloat16).astype(jnp.float32))

    jax.tree.map(check, before, after)


def test_a_run_is_written_with_a_model_that_is_bound_to_the_rounded_codec(run, tmp_path):
    out = tmp_path / "voice"
    assert _export(run, out) == 0
    config, codec = load_codec(out / "codec")
    before_config, before = load_codec(run / "codec")
    assert config == before_config
    _assert_rounded(before, codec)
    assert params_sha256(codec) != params_sha256(before)
    assert load_manifest(out / "duplex").codec_sha256 == params_sha256(codec)
    _assert_rounded(load_params(run / "duplex")[1], load_bundle(out).params)
    assert not [path for path in out.rglob("*.txt") if str(tmp_path) in path.read_text()]


def test_what_rounding_leaves_zero_takes_no_room(tmp_path):
    exact, out = tmp_path / "exact", tmp_path / "out"  # 1 MB: Orbax's bookkeeping varies by tens of kB between saves
    weights = jax.random.normal(jax.random.key(0), (512, 512))
    save_params(exact, Config(stage="codec"), {"weights": weights})
    assert _export(exact, out) == 0
    assert _size(out) < 0.6 * _size(exact)


def test_a_codec_alone(run, tmp_path):
    out = tmp_path / "codec"
    assert _export(run / "codec", out, "float32") == 0
    jax.tree.map(np.testing.assert_array_equal, load_codec(run / "codec")[1], load_codec(out)[1])


def test_a_codec_that_the_model_was_not_trained_with_is_refused(run, tmp_path):
    mixed = tmp_path / "mixed"
    _export(run / "codec", mixed / "codec")
    config, params = load_params(run / "duplex")
    config = replace(config, training=replace(config.training, codec_from=str(tmp_path / "gone")))
    save_params(mixed / "duplex", config, params, load_manifest(run / "duplex").codec_sha256)
    with pytest.raises(CheckpointError, match="trained with"):
        _export(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_codec_that_the_training_took_is_found_beside_another_one(run, tmp_path):
    _export(run / "codec", tmp_path / "codec")  # rounded, so another one
    config, params = load_params(run / "duplex")
    config = replace(config, training=replace(config.training, codec_from=str(run / "codec")))
    save_params(tmp_path / "duplex", config, params, load_manifest(run / "duplex").codec_sha256)
    assert params_sha256(load_bundle(tmp_path).codec_params) == params_sha256(load_codec(run / "codec")[1])
    assert _export(tmp_path, tmp_path / "out") == 0


def test_a_stage_without_a_codec_does_not_borrow_one(run, tmp_path):
    config, params = load_params(run / "duplex")
    save_params(tmp_path / "pretrain", replace(config, stage="pretrain"), params)
    (tmp_path / "codec").symlink_to(run / "codec")
    with pytest.raises(UserError, match="trained without a codec"):
        load_bundle(tmp_path / "pretrain")


def test_int8_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="float32 or bfloat16"):
        _export(run, tmp_path / "out", "int8")


def _size(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
