"""Every command of the README is run, in its order, in a directory that looks like a clone after the quickstart.

The model has random weights, and a few flags are added that make the work short; the commands are the README's own.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from input_pipeline.source_files import write_folder
from small_run import small_run

from data import inspect
from omni_jax import evaluate, generate, train
from omni_jax.export import __main__ as export
from omni_jax.models.codec import __main__ as codec
from omni_jax.report import __main__ as report

ROOT = Path(__file__).parent.parent
MAINS = {
    "data.inspect": inspect.main,
    "omni_jax.generate": generate.main,
    "omni_jax.train": train.main,
    "omni_jax.evaluate": evaluate.main,
    "omni_jax.report": report.main,
    "omni_jax.export": export.main,
    "omni_jax.models.codec": codec.main,
}
EVAL_COUNTS = ("pictures", "facts", "repeats", "interruptions", "backchannels", "pauses", "turn_dialogues")
EVAL_COUNTS += ("spoken_replies", "ceiling_replies", "timed_calls", "text_batches")
SHORTER = {
    "omni_jax.train": [
        *("--config.training.steps=2", "--config.data.rows=8", "--config.data.row_positions=64"),
        *("--config.model.transformer.num_layers=1", "--config.model.transformer.num_experts=0"),
        *("--config.model.audio.num_layers=1", "--config.model.vision.num_layers=1", "--config.optimizer.name=adamw"),
        *("--config.model.text_posteriors=False", "--config.loss.ctc=0.0", "--config.model.depth.num_layers=1"),
    ],
    "omni_jax.evaluate": ["--config.rows=2", "--config.call_frames=75", *(f"--config.{key}=1" for key in EVAL_COUNTS)],
    "omni_jax.generate": ["--max_seconds=3"],
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """configs, data and docs as they are; the run is small. Commands of one module share it, as a user's would."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("configs", "data", "docs"):
        (root / name).symlink_to(ROOT / name)
    (root / "my").mkdir()
    write_folder(root / "my" / "folder")
    (root / "runs").mkdir()
    small = tmp_path_factory.mktemp("small")
    (root / "runs" / "quickstart").symlink_to(small_run(small))
    (root / "corpus").symlink_to(small / "corpus")
    return root


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_command_runs(command, clone, monkeypatch):
    monkeypatch.chdir(clone)
    if command[0] == "make":
        assert shutil.which("make"), "the README asks for make"
        printed = subprocess.run(["make", "-C", str(ROOT), "-n", *command[1:]], capture_output=True, text=True)
        assert printed.returncode == 0, printed.stderr
        runs = {"quickstart": "omni_jax.quickstart", "demo": "omni_jax.demo", "test": "pytest"}
        assert runs[command[1]] in printed.stdout
        return
    assert command[:2] == [".venv/bin/python", "-m"], f"the test does not know how to run {command}"
    module, arguments = command[2], command[3:]
    shorter = SHORTER.get(module, [])
    if module == "omni_jax.train":  # the shipped corpus takes longer to decode than to train on
        shorter = [*shorter, f"--config.data.corpus={clone / 'corpus'}"]
    assert MAINS[module]([*arguments, *shorter]) == 0
    for argument in arguments:
        if argument.startswith("--out="):
            assert Path(argument.removeprefix("--out=")).exists()
