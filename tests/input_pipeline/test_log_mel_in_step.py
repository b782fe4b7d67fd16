"""Log-mel that the step makes of the samples is the host's, augmentation and the edges of examples included."""

import jax
import numpy as np
import pytest

from input_pipeline.test_loader import assert_same, with_data
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.sound_frames import VALUES, with_log_mel

HEARD = {"asr": 0.3, "hear": 0.01, "spoken_qa": 0.3, "dialogue": 0.4}
ROUNDING = 2e-4  # of log-mel, whose unit is 40 dB; quiet bins beside loud ones are the worst


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_step_makes_what_the_host_would_have_made(config, codes, split):
    host, step = (
        make_loader(with_data(config, tasks=HEARD, log_mel=place, rows_per_pool=2), split, codes)
        for place in ("host", "step")
    )
    of_host, of_step = next(host), next(step)
    host.close(), step.close()
    assert of_step.media.mel.shape[-1] == VALUES and of_step.media.mel_segment_ids.max() > 1
    num_mels = config.model.audio.num_mels
    for media in (
        with_log_mel(of_step.media, num_mels),
        jax.jit(with_log_mel, static_argnums=1)(of_step.media, num_mels),
    ):
        np.testing.assert_allclose(media.mel, of_host.media.mel, atol=ROUNDING)
    assert_same(of_step._replace(media=of_host.media), of_host)
    assert_same(of_step.media._replace(mel=of_host.media.mel), of_host.media)
