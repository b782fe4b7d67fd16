"""Generate, end to end on random weights: a trained workdir, its export, and everything that can be wrong."""

import io

import numpy as np
import pytest
import sentencepiece
import soundfile
from PIL import Image
from streaming.tiny import CODEC, MODEL, weights

from omni_jax import generate
from omni_jax.checkpoint import Checkpointer, Manifest, params_sha256
from omni_jax.config import Config, DataConfig
from omni_jax.errors import run_main
from omni_jax.export import __main__ as export
from omni_jax.export.bundle import load_bundle
from omni_jax.types import Control


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a quickstart leaves behind, as far as generate and export read it."""
    root = tmp_path_factory.mktemp("run")
    params, codec_params = weights()
    data = DataConfig(tokenizer=str(_tokenizer(root / "spm.model")))
    codec_sha256 = params_sha256(codec_params)
    for stage, tree, sha256 in (("codec", codec_params, ""), ("duplex", params, codec_sha256)):
        config = Config(stage=stage, model=MODEL, codec=CODEC, data=data)
        checkpointer = Checkpointer(root / stage)
        checkpointer.save(Manifest(12, config, key_data=(0, 0), codec_sha256=sha256), tree, {"count": np.zeros(())})
        checkpointer.close()
    return root


@pytest.fixture(scope="module")
def exported(workdir):
    directory = workdir.parent / f"{workdir.name}_exported"
    export.main([f"--workdir={workdir}", f"--out={directory}"])
    return directory


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "question.wav"
    time = np.arange(12_000) / 24_000
    soundfile.write(path, np.stack([0.2 * np.sin(2 * np.pi * 300 * time)] * 2, axis=1), 24_000)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)).save(path)
    return path


def _tokenizer(path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat and a dog sat on a mat", "the dog is not a cat"] * 9),
        model_writer=model,
        vocab_size=MODEL.vocab_size,
        model_type="bpe",
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        control_symbols=[f"<{control.name}>" for control in Control if control > 3],
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def _generate(workdir, question, out, *flags):
    return generate.main([f"--workdir={workdir}", f"--audio={question}", f"--out={out}", "--max_seconds=1.6", *flags])


def test_answers_and_reports(workdir, question, picture, tmp_path, capsys):
    assert _generate(workdir, question, tmp_path / "answer.wav", f"--image={picture}") == 0
    printed = capsys.readouterr().out
    wav, sample_rate_hz = soundfile.read(tmp_path / "answer.wav")
    assert sample_rate_hz == 24_000 and len(wav) == 1.68 * 24_000 and np.abs(wav).max() > 0
    assert "mixed 2 channels to one" in printed and "resampled from 24000 Hz to 16000 Hz" in printed
    for expected in ("0.08 s  user ", "text: ", "time to first audio: ", "real-time factor: ", "wrote "):
        assert expected in printed
    assert [path.name for path in tmp_path.iterdir()] == ["answer.wav"]


def test_export_answers_the_same(workdir, exported, question, tmp_path):
    """The same samples, so the same weights, codec, tokenizer and configuration; another seed answers otherwise."""
    for name, directory, seed in (("a", workdir, 3), ("b", exported, 3), ("c", exported, 4)):
        _generate(directory, question, tmp_path / f"{name}.wav", f"--seed={seed}")
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("flags", [["--dtype=bfloat16"], ["--dtype=int8"], ["--format=orbax"]], ids=str)
def test_every_stored_form_talks(flags, workdir, exported, question, tmp_path):
    """Orbax holds the same weights and says the same; rounded ones of a random model may say something else."""
    export.main([f"--workdir={workdir}", f"--out={tmp_path / 'export'}", *flags])
    _generate(tmp_path / "export", question, tmp_path / "answer.wav")
    assert soundfile.read(tmp_path / "answer.wav")[0].any()
    if "--format=orbax" in flags:
        _generate(exported, question, tmp_path / "expected.wav")
        assert (tmp_path / "answer.wav").read_bytes() == (tmp_path / "expected.wav").read_bytes()


def test_bundles_are_equal(workdir, exported):
    trained, loaded = load_bundle(workdir), load_bundle(exported)
    assert (trained.config, trained.step, trained.tokenizer_model) == (loaded.config, 12, loaded.tokenizer_model)
    assert params_sha256(trained.params) == params_sha256(loaded.params)
    assert params_sha256(trained.codec_params) == params_sha256(loaded.codec_params)
    assert load_bundle(workdir / "duplex").step == 12


def _damaged(path, keep: int):
    cut = path.with_name(f"cut_{keep}{path.suffix}")
    cut.write_bytes(path.read_bytes()[:keep])
    return cut


_BAD_INPUT = {
    "audio_missing": (lambda f: {"audio": "nowhere.wav"}, "nowhere.wav: no such file"),
    "audio_truncated": (lambda f: {"audio": _damaged(f["audio"], 5_000)}, "truncated WAV"),
    "audio_is_a_picture": (lambda f: {"audio": f["image"]}, "not readable as audio"),
    "picture_missing": (lambda f: {"image": "nowhere.png"}, "nowhere.png: no such file"),
    "picture_truncated": (lambda f: {"image": _damaged(f["image"], 500)}, "damaged picture"),
    "picture_is_audio": (lambda f: {"image": f["audio"]}, "not a picture that can be read"),
    "out_in_no_directory": (lambda f: {"out": f["out"].parent / "no" / "a.wav"}, "make it with mkdir -p"),
    "workdir_missing": (lambda f: {"workdir": "runs/none"}, "runs/none: no such directory"),
    "workdir_untrained": (lambda f: {"workdir": f["out"].parent}, "neither an export nor a trained workdir"),
    "workdir_of_codec": (lambda f: {"workdir": f["workdir"] / "codec"}, "holds a codec alone"),
    "temperature": (lambda f: {"text_temperature": -1}, "--text_temperature=-1.0: want 0 to 10"),
    "max_seconds": (lambda f: {"max_seconds": 0}, "--max_seconds=0.0: want 0.08 to 3600"),
}


@pytest.mark.parametrize("case", _BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(case, workdir, question, picture, tmp_path, capsys):
    flags = {"workdir": workdir, "audio": question, "image": picture, "out": tmp_path / "answer.wav"}
    changed, message = _BAD_INPUT[case]
    arguments = [f"--{name}={value}" for name, value in (flags | changed(flags)).items()]
    with pytest.raises(SystemExit) as left:
        run_main(lambda: generate.main(arguments))
    errors = capsys.readouterr().err
    assert left.value.code == 2
    assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_play_without_a_player_is_said_before_anything_is_computed(workdir, question, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        run_main(lambda: _generate(workdir, question, tmp_path / "answer.wav", "--play"))
    assert left.value.code == 2 and "no audio player found" in capsys.readouterr().err
    assert not (tmp_path / "answer.wav").exists()


def test_a_failing_player_leaves_the_answer(workdir, question, tmp_path, capsys, monkeypatch):
    player = tmp_path / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\necho no sound card >&2\nexit 1\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(player.parent))
    with pytest.raises(SystemExit) as left:
        run_main(lambda: _generate(workdir, question, tmp_path / "answer.wav", "--play"))
    assert left.value.code == 2 and "aplay failed (no sound card)" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "answer.wav").frames == 1.68 * 24_000


def test_interrupting_leaves_nothing_behind(workdir, question, tmp_path, capsys, monkeypatch):
    def ctrl_c(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "stream_call", ctrl_c)
    with pytest.raises(SystemExit) as left:
        run_main(lambda: _generate(workdir, question, tmp_path / "answer.wav"))
    assert left.value.code == 130 and capsys.readouterr().err == "interrupted\n"
    assert not list(tmp_path.iterdir())


def test_another_codec_is_refused(workdir, question, tmp_path, capsys):
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "duplex").symlink_to(workdir / "duplex")
    _, codec_params = weights()
    other = codec_params | {"codebooks": codec_params["codebooks"] + 1}
    checkpointer = Checkpointer(copy / "codec")
    config = Config(stage="codec", model=MODEL, codec=CODEC)
    checkpointer.save(Manifest(1, config, key_data=(0, 0)), other, {"count": np.zeros(())})
    checkpointer.close()
    with pytest.raises(SystemExit):
        run_main(lambda: _generate(copy, question, tmp_path / "answer.wav"))
    assert "use the codec that it was trained with" in capsys.readouterr().err
