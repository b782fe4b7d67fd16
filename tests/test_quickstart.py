"""The quickstart's bookkeeping: what it trains from what, what it skips, what it measures."""

import dataclasses
import json

import numpy as np
import pytest
from input_pipeline.conftest import write_corpus

from omni_jax import quickstart
from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.config import DataConfig, EvalConfig
from omni_jax.errors import UserError
from omni_jax.training.stages import STAGES, is_complete


def save(config, workdir, step):
    checkpointer = Checkpointer(workdir)
    checkpointer.save(Manifest(step, config, (0, 1)), {"w": np.zeros(1)}, {"count": np.zeros(1)})
    checkpointer.close()


def test_each_stage_starts_from_the_one_before_and_from_the_codec():
    sources = {
        stage: (config.training.init_from, config.training.codec_from)
        for stage in STAGES
        for config in [quickstart.stage_config(stage, "tiny", "runs/q")]
    }
    assert sources == {
        "codec": ("", ""),
        "pretrain": ("", ""),
        "perceive": ("runs/q/pretrain", ""),
        "align": ("runs/q/perceive", "runs/q/codec"),
        "duplex": ("runs/q/align", "runs/q/codec"),
    }


def test_all_omni_stages_train_the_same_model_in_every_size():
    for size in ("tiny", "small"):
        configs = [quickstart.stage_config(stage, size, "x") for stage in ("pretrain", "perceive", "align", "duplex")]
        assert all(config.model == configs[0].model for config in configs)
        codec = quickstart.stage_config("codec", size, "x").codec
        assert (codec.num_codebooks, codec.codebook_size) == (
            configs[0].model.num_codebooks,
            configs[0].model.codebook_size,
        )


def test_a_finished_stage_is_kept(tmp_path, capsys):
    config = quickstart.stage_config("pretrain", "tiny", tmp_path)
    save(config, tmp_path / "pretrain", config.training.steps)
    quickstart.train_if_needed(config, tmp_path, tmp_path / "pretrain")
    assert capsys.readouterr().out == "pretrain: finished before, kept\n"
    assert not (tmp_path / "resources.json").exists()


def test_a_stage_that_ended_before_its_first_checkpoint_is_not_finished(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert not is_complete(quickstart.stage_config("pretrain", "tiny", tmp_path), tmp_path)


def test_an_unfinished_stage_of_another_config_is_an_error_and_costs_are_counted(tmp_path):
    config = quickstart.stage_config("pretrain", "tiny", tmp_path)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, corpus=str(write_corpus(tmp_path))))
    save(dataclasses.replace(config, seed=1), tmp_path / "pretrain", 1)
    with pytest.raises(UserError, match="seed: 1 -> 0"):
        quickstart.train_if_needed(config, tmp_path, tmp_path / "pretrain")
    first = json.loads((tmp_path / "resources.json").read_text())
    with pytest.raises(UserError, match="seed: 1 -> 0"):
        quickstart.train_if_needed(config, tmp_path, tmp_path / "pretrain")
    second = json.loads((tmp_path / "resources.json").read_text())
    assert second["wall_seconds"] > first["wall_seconds"] > 0
    assert second["seconds"] == {"pretrain": second["wall_seconds"]}
    assert second["peak_memory_bytes"] > 50e6


def test_without_the_corpus_nothing_starts(tmp_path):
    config = quickstart.stage_config("codec", "tiny", tmp_path)
    config = dataclasses.replace(config, data=DataConfig(corpus=str(tmp_path / "corpus")))
    with pytest.raises(UserError, match="make corpus"):
        quickstart.run_quickstart({"codec": config}, EvalConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match="unknown size 'big'"):
        quickstart.main(["--size=big", "--workdir=x"])
