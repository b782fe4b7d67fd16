"""The trainer's command line: what a user can get wrong is one line, and Ctrl-C loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from input_pipeline.conftest import write_corpus

from omni_jax import train
from omni_jax.checkpoint import Checkpointer, Manifest, load_manifest
from omni_jax.errors import run_main
from omni_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config.model.transformer.num_layers=1",
    "--config.model.transformer.num_dense_layers=0",
    "--config.model.transformer.embed_dim=32",
    "--config.model.transformer.head_dim=16",
    "--config.model.transformer.rope_sections=(4,2,2)",
    "--config.data.rows=8",
    "--config.data.row_positions=64",
    "--config.training.tensorboard=False",
    "--config.training.log_every=1",
]


def error_line(capsys, *arguments):
    """Runs the trainer, which must end with exit code 2 and one line on stderr; returns that line."""
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: train.main(arguments))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_a_config_file_that_is_not_there(capsys, tmp_path):
    line = error_line(capsys, "--config=configs/pretrian.py:tiny", f"--workdir={tmp_path}")
    assert "configs/pretrian.py" in line


def test_flags_are_missing(capsys):
    assert "--workdir=DIR" in error_line(capsys, "--config=configs/pretrain.py:tiny")
    assert "--config=configs/<stage>.py:<size>" in error_line(capsys, "--workdir=x")


def test_an_unknown_size(capsys, tmp_path):
    line = error_line(capsys, "--config=configs/pretrain.py:gigantic", f"--workdir={tmp_path}")
    assert "unknown size 'gigantic': want one of tiny, voice, small" in line


def test_an_unknown_config_key(capsys, tmp_path):
    line = error_line(
        capsys, "--config=configs/pretrain.py:tiny", f"--workdir={tmp_path}", "--config.optimizer.learning_rat=1"
    )
    assert "learning_rat" in line


def test_a_stage_without_its_codec(capsys, tmp_path):
    line = error_line(capsys, "--config=configs/align.py:tiny", f"--workdir={tmp_path}")
    assert "give --config.training.codec_from=<workdir of a trained codec>" in line


def test_a_codec_that_was_not_trained(capsys, tmp_path):
    line = error_line(
        capsys,
        "--config=configs/align.py:tiny",
        f"--workdir={tmp_path}/align",
        f"--config.training.codec_from={tmp_path}/codec",
    )
    assert f"{tmp_path}/codec" in line
    assert "train the stage first" in line


def test_a_workdir_that_is_a_file(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = error_line(capsys, "--config=configs/pretrain.py:tiny", f"--workdir={tmp_path}/file")
    assert f"{tmp_path}/file" in line


def test_a_corpus_that_is_not_there(capsys, tmp_path):
    line = error_line(
        capsys,
        "--config=configs/pretrain.py:tiny",
        f"--workdir={tmp_path}/run",
        f"--config.data.corpus={tmp_path}/nowhere",
    )
    assert f"{tmp_path}/nowhere" in line


def test_a_workdir_of_another_config(capsys, tmp_path):
    workdir, flags = (
        tmp_path / "run",
        ["--config=configs/pretrain.py:tiny", f"--config.data.corpus={write_corpus(tmp_path)}"],
    )
    config, *_ = train.parse_flags(["train", *flags, "--workdir=x", "--config.seed=3"])
    checkpointer = Checkpointer(workdir)
    checkpointer.save(Manifest(1, config, (0, 1)), {"w": np.zeros(1)}, {"count": np.zeros(1)})
    checkpointer.close()
    line = error_line(capsys, *flags, f"--workdir={workdir}")
    assert f"{workdir} holds a run of another config" in line
    assert "seed: 3 -> 0" in line
    assert load_manifest(workdir).config == config


def start(workdir, corpus, steps):
    """The trainer as its own process."""
    command = [sys.executable, "-m", "omni_jax.train", "--config=configs/pretrain.py:tiny", f"--workdir={workdir}"]
    command += [*SMALL, f"--config.data.corpus={corpus}", f"--config.training.steps={steps}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_the_next_start_goes_on(tmp_path):
    workdir, corpus = tmp_path / "run", write_corpus(tmp_path)
    process = start(workdir, corpus, 100_000)
    deadline = time.monotonic() + 300
    while len(read_metrics(workdir)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "saving a checkpoint" in output
    assert "Traceback" not in error
    step = load_manifest(workdir).step
    assert step >= 3
    process = start(workdir, corpus, step + 2)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert [record["step"] for record in read_metrics(workdir)] == list(range(1, step + 3))
    assert f"{step + 2} steps done" in output
