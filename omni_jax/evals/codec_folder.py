"""A codec on a folder of recordings: how much each loses on the way through the codes, as a table with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int

from omni_jax import dsp
from omni_jax.errors import UserError
from omni_jax.models import codec
from omni_jax.streaming.audio_files import read_recording

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MAX_FILES = 1000
MEL_WINDOWS = {512: 80, 2048: 160}
COLUMNS = ("file", "seconds", "mel", "stft", "si_sdr_db")
FLOOR = 1e-5
PADDED_FRAMES = 25  # silence at the end makes recordings of like length, so that few programs are compiled


def evaluate_folder(cfg: codec.AnyCodecConfig, params: Any, folder: Path, out: Path) -> str:
    """Writes table.md, codes' use and a picture a recording to `out`; returns the table. Raises UserError."""
    paths = _recordings(folder)
    out.mkdir(parents=True, exist_ok=True)
    rows, codes = [], []
    for path in paths:
        wav = read_recording(path, cfg.sample_rate_hz).samples
        decoded, found = there_and_back(cfg, params, wav)
        rows.append((path.name, len(wav) / cfg.sample_rate_hz, *distances(wav, decoded, cfg.sample_rate_hz)))
        codes.append(found)
        _picture(out / f"{path.stem}.png", wav, decoded, cfg.sample_rate_hz)
    table = f"{_table(rows)}\n{_use_table(np.concatenate(codes), cfg.codebook_size)}"
    (out / "table.md").write_text(table, encoding="utf-8")
    return table


def distances(real: Float[np.ndarray, " N"], fake: Float[np.ndarray, " N"], rate_hz: int) -> tuple[float, float, float]:
    """L1 of log10 mel, relative L1 of STFT magnitudes (means over two resolutions), and SI-SDR in dB."""
    mels, stfts = [], []
    for window, num_mels in MEL_WINDOWS.items():
        short = max(0, window - len(real))
        spectra = [np.abs(dsp.stft(np.pad(wav, (0, short)), window, window // 4)) for wav in (real, fake)]
        filters = dsp.mel_filterbank(rate_hz, window, num_mels)
        logs = [np.log10(np.maximum(spectrum @ filters, FLOOR)) for spectrum in spectra]
        mels.append(np.mean(np.abs(logs[0] - logs[1])))
        stfts.append(np.mean(np.abs(spectra[0] - spectra[1])) / (np.mean(spectra[0]) + FLOOR))
    return float(np.mean(mels)), float(np.mean(stfts)), si_sdr_db(real, fake)


def si_sdr_db(real: Float[np.ndarray, " N"], fake: Float[np.ndarray, " N"]) -> float:
    """Scale-invariant signal-to-distortion ratio (arXiv:1811.02508)."""
    real, fake = real - real.mean(), fake - fake.mean()
    target = real * np.dot(real, fake) / (np.dot(real, real) + 1e-12)
    noise = fake - target
    return float(10 * np.log10((np.dot(target, target) + 1e-12) / (np.dot(noise, noise) + 1e-12)))


def codebook_use(codes: Int[np.ndarray, "T Q"], size: int) -> list[tuple[float, float]]:
    """Of each level: the share of codes that occur, and the entropy as a share of log2(size)."""
    uses = []
    for level in codes.T:
        share = np.bincount(level, minlength=size) / len(level)
        entropy = -np.sum(share[share > 0] * np.log2(share[share > 0]))
        uses.append((float(np.mean(share > 0)), float(entropy / np.log2(size))))
    return uses


def _recordings(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give the folder with the recordings")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: holds no recording: want files that end in {', '.join(SUFFIXES)}")
    if len(paths) > MAX_FILES:
        raise UserError(f"{folder}: holds {len(paths)} recordings, at most {MAX_FILES} are read: give fewer")
    return paths


def there_and_back(
    cfg: codec.AnyCodecConfig, params: Any, wav: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, "T Q"]]:
    """The recording decoded, in time with it, and its codes."""
    late = codec.decoder_latency_samples(cfg)
    unit = PADDED_FRAMES * cfg.hop_samples
    padded = np.pad(wav, (0, late + -(len(wav) + late) % unit))
    codes = codec.encode_codes(cfg, params, padded[None])
    decoded = np.asarray(codec.decode_codes(cfg, params, codes))[0, late : late + len(wav)]
    return decoded, np.asarray(codes)[0, : -(-len(wav) // cfg.hop_samples)]


def _table(rows: Sequence[tuple]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    means = ("mean", *np.mean([row[1:] for row in rows], axis=0))
    lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |" for name, *values in [*rows, means]]
    return "\n".join(lines) + "\n"


def _use_table(codes: Int[np.ndarray, "T Q"], size: int) -> str:
    lines = ["| codebook | codes used | entropy |", "|---|---|---|"]
    lines += [f"| {q} | {used:.1%} | {entropy:.1%} |" for q, (used, entropy) in enumerate(codebook_use(codes, size))]
    return "\n".join(lines) + "\n"


def _picture(path: Path, real: Float[np.ndarray, " N"], fake: Float[np.ndarray, " N"], rate_hz: int) -> None:
    figure, panels = plt.subplots(2, 1, figsize=(6, 4), sharex=True)
    for axes, wav, title in zip(panels, (real, fake), ("recording", "decoded")):
        padded = np.pad(wav, (0, max(0, 1024 - len(wav))))
        level = 20 * np.log10(np.abs(dsp.stft(padded, 1024, 256)).T + FLOOR)
        extent = (0, len(padded) / rate_hz, 0, rate_hz / 2000)
        axes.imshow(level, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=-50, vmax=40)
        axes.set_ylabel(f"{title}, kHz")
    panels[1].set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    plt.close(figure)
