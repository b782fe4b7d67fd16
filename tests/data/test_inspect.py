"""The page of examples: what it shows is what a batch holds."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
import soundfile
from input_pipeline.source_files import beep, write_folder, write_own
from PIL import Image

from configs import own_data
from data import inspect
from data.inspection import media
from data.inspection.shown import examples_of, of_every_task
from omni_jax.config import resolve
from omni_jax.errors import UserError
from omni_jax.input_pipeline import features
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.tasks import Task
from omni_jax.model_config import AudioEncoderConfig

TASKS = ("text", "asr", "caption", "hear", "see", "frame_asr", "spoken_qa", "written_qa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("inspect") / "folder")


@pytest.fixture
def config():
    return resolve(own_data.get_config("tiny"))


def arguments(folder, out, *more):
    tasks = [f"--config.data.tasks.{task}=1.0" for task in TASKS]
    sources = [f"--config.data.sources.mine={folder}", "--config.data.patches=1024", "--config.data.max_segments=32"]
    return ["--config=configs/own_data.py:tiny", f"--out={out}", *sources, *tasks, *more]


def test_the_page_shows_every_task_with_its_media(folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert inspect.main(arguments(folder, out, "--num=8")) == 0
    assert "8 examples of 8 tasks" in capsys.readouterr().out
    page = out.read_text()
    for task in TASKS:
        assert f"· {task} <small>" in page
    assert page.count("<audio controls") >= 4 and page.count('class="mel"') >= 4 and page.count('class="picture"') >= 2
    assert (
        page.count("<svg") == 8
        and "text loss" in page
        and "weight 1" in page
        and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    )
    encoded = re.search(r'class="picture" src="data:image/png;base64,([^"]+)"', page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (64, 64)


def test_own_codes_are_shown_without_a_codec(tmp_path):
    out, source = tmp_path / "page.html", write_own(tmp_path / "own")
    flags = [f"--config.data.sources.mine={source}", "--config.data.tasks.text=0", "--config.data.tasks.caption=0"]
    shape = ["--config.model.num_codebooks=4", "--config.model.codebook_size=64"]
    more = ["--config.data.tasks.asr=0", "--config.data.tasks.tts=1.0", "--config.data.speech_positions=16", *shape]
    assert inspect.main(["--config=configs/own_data.py:tiny", f"--out={out}", *flags, *more, "--num=1"]) == 0
    page = out.read_text()
    assert 'class="codes"' in page and "codes loss" in page and "training.codec_from makes them audible" in page


def test_wrong_flags_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="--num=none"):
        inspect.main(arguments(folder, tmp_path / "page.html", "--num=none"))
    with pytest.raises(UserError, match="there is no directory"):
        inspect.main(arguments(folder, tmp_path / "no" / "page.html"))


def test_media_go_to_their_own_example(folder, config):
    data = dataclasses.replace(
        config.data, sources={"mine": folder}, tasks=dict.fromkeys(TASKS, 1.0), patches=1024, max_segments=32
    )
    loader = make_loader(dataclasses.replace(config, data=data))
    batch = next(loader)
    loader.close()
    examples = list(examples_of(batch))
    assert sum(example.num_positions for example in examples) == (batch.timeline.segment_ids > 0).sum()
    assert sum(len(example.mel) for example in examples if example.mel is not None) == 8 * np.sum(
        batch.media.mel_segment_ids > 0
    )
    for example in examples:
        placed = example.fields["audio_index"] >= 0
        if placed.any():
            pool_mel = batch.media.mel.reshape(-1, batch.media.mel.shape[-1])
            row_pool = len(pool_mel) // len(batch.media.mel)
            first = example.fields["audio_index"][placed][0] * 8
            assert any(
                np.array_equal(pool_mel[g * row_pool + first : g * row_pool + first + 8], example.mel[:8])
                for g in range(len(batch.media.mel))
            )
        assert (example.mel is not None) == (placed.any() or example.task is Task.HEAR)
        assert (example.patches is not None) == ((example.fields["patch_index"] >= 0).any() or example.task is Task.SEE)
    chosen = of_every_task(examples, 4)
    assert len({example.task for example in chosen}) == 4


def test_patches_become_the_picture_again(config):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    uri = media.picture(*features.patches(image, config.model.vision))
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(again, image)


def test_sound_made_from_features_has_their_pitch():
    mel = features.log_mel(beep(6, seconds=1.0), AudioEncoderConfig())
    wav = media.heard_again(mel)
    spectrum = np.abs(np.fft.rfft(wav[2_000:10_000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(600, abs=30)
    encoded = base64.b64decode(media.sound(wav, 16_000).partition(",")[2])
    assert soundfile.info(io.BytesIO(encoded)).duration == 1.04  # whole 80 ms slots
