"""`python -m omni_jax.models.codec`: speech to a file of codes and back, and files that are not what they should be."""

import jax
import numpy as np
import pytest
import soundfile

from omni_jax.checkpoint import Checkpointer, Manifest
from omni_jax.codec_config import CodecConfig, DacConfig
from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.model_config import ModelConfig
from omni_jax.models import codec
from omni_jax.models.codec.__main__ import main
from omni_jax.pretrained.codecs import save_codec_directory

TINY = CodecConfig(
    num_codebooks=2, codebook_size=8, latent_dim=4, encoder_dim=8, decoder_dim=8, num_phones=4, conv_kernel=3
)
DAC = DacConfig(16_000, encoder_dim=2, strides=(2, 5), decoder_dim=8, num_codebooks=2, codebook_size=16)


def save_codec(workdir, seed):
    config = Config(stage="codec", codec=TINY, model=ModelConfig(num_codebooks=2, codebook_size=8))
    params = codec.init_params(TINY, jax.random.key(seed))
    params["codebooks"] = jax.random.normal(jax.random.key(seed + 1), params["codebooks"].shape)
    checkpointer = Checkpointer(workdir)
    checkpointer.save(Manifest(1, config, (0, 0)), params, {"none": np.zeros(1)})
    checkpointer.close()
    return params


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("codec")
    return workdir, save_codec(workdir, 0)


@pytest.fixture(scope="module")
def encoded(trained):
    workdir, _ = trained
    time = np.arange(20_000) / 48_000
    stereo = np.stack([0.3 * np.sin(2 * np.pi * 300 * time)] * 2, axis=1)
    soundfile.write(workdir / "speech.wav", stereo, 48_000)
    main(["encode", f"--workdir={workdir}", f"--audio={workdir / 'speech.wav'}", f"--out={workdir / 'codes.npz'}"])
    return workdir / "codes.npz"


def decode(workdir, codes, out):
    return main(["decode", f"--workdir={workdir}", f"--codes={codes}", f"--out={out}"])


def test_codes_and_back(trained, encoded):
    workdir, params = trained
    with np.load(encoded, allow_pickle=False) as arrays:
        codes, num_samples = arrays["codes"], int(arrays["num_samples"])
    assert num_samples == 10_000 and codes.shape == (6, 2)  # 48 kHz stereo became 24 kHz mono
    decode(workdir, encoded, workdir / "again.wav")
    wav, rate = soundfile.read(workdir / "again.wav", dtype="float32")
    late = codec.decoder_latency_samples(TINY)
    padded = np.pad(codes, ((0, 2), (0, 0)), mode="edge")[None].astype(np.int32)
    expected = np.asarray(codec.decode_codes(TINY, params, padded))[0, late : late + 10_000]
    assert rate == 24_000
    np.testing.assert_allclose(wav, expected, atol=1e-3)


def test_codes_of_another_codec_are_refused(encoded, tmp_path):
    save_codec(tmp_path, 7)
    with pytest.raises(UserError, match="use the codec"):
        decode(tmp_path, encoded, tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_values_beyond_the_codebook_and_other_counts_of_codebooks_are_refused(trained, encoded, tmp_path):
    with np.load(encoded) as arrays:
        saved = dict(arrays)
    for wrong in (saved["codes"] + 8, saved["codes"] - 8, saved["codes"][:, :1], saved["codes"][:0]):
        np.savez(tmp_path / "wrong.npz", **saved | {"codes": wrong})
        with pytest.raises(UserError, match=r"want \[frames, 2\] with values from 0 to 7"):
            decode(trained[0], tmp_path / "wrong.npz", tmp_path / "out.wav")


def test_audio_that_is_not_numbers_is_refused(trained, tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.1]), 24_000, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinity"):
        main(["encode", f"--workdir={trained[0]}", f"--audio={tmp_path / 'nan.wav'}", f"--out={tmp_path / 'c.npz'}"])
    assert not (tmp_path / "c.npz").exists()


def test_a_published_codec_and_less_than_a_frame(tmp_path):
    """Three samples are one frame of codes and three samples again; another codec does not take them."""
    directories = [tmp_path / "one", tmp_path / "other"]
    for seed, directory in enumerate(directories):
        save_codec_directory(directory, DAC, jax.jit(codec.init_params, static_argnums=0)(DAC, jax.random.key(seed)))
    soundfile.write(tmp_path / "short.wav", np.array([0.1, -0.1, 0.2]), 16_000)
    files = [f"--audio={tmp_path / 'short.wav'}", f"--out={tmp_path / 'codes.npz'}"]
    main(["encode", f"--weights={directories[0]}", *files])
    with np.load(tmp_path / "codes.npz") as arrays:
        assert arrays["codes"].shape == (1, 2)
    files = [f"--codes={tmp_path / 'codes.npz'}", f"--out={tmp_path / 'again.wav'}"]
    main(["decode", f"--weights={directories[0]}", *files])
    assert len(soundfile.read(tmp_path / "again.wav")[0]) == 3
    with pytest.raises(UserError, match="is not the codec of these codes"):
        main(["decode", f"--weights={directories[1]}", *files])


def test_a_file_that_is_not_codes_is_refused(trained, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "pickled.npz", codes=np.array([{"a": 1}], object))
    for name in ("text.npz", "pickled.npz"):
        with pytest.raises(UserError, match=f"{name}: not a file of codes"):
            decode(trained[0], tmp_path / name, tmp_path / "out.wav")


def test_a_folder_is_evaluated(trained, encoded, tmp_path):
    """A table with a row a recording and one a codebook, and a picture a recording; one is shorter than a frame."""
    workdir, _ = trained
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("long", 9_000), ("short", 700)):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(count), 24_000)
    main(["evaluate", f"--workdir={workdir}", f"--folder={folder}", f"--out={tmp_path / 'report'}"])
    table = (tmp_path / "report" / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(("| long", "| short", "| mean", "| 0 ", "| 1 "))]
    assert len(rows) == 5 and "nan" not in table
    assert {path.name for path in (tmp_path / "report").glob("*.png")} == {"long.png", "short.png"}


def test_a_folder_without_recordings_is_refused(trained, tmp_path):
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no recording")):
        with pytest.raises(UserError, match=message):
            main(["evaluate", f"--workdir={trained[0]}", f"--folder={folder}", f"--out={tmp_path / 'report'}"])
