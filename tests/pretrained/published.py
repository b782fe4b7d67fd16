"""Small models of `transformers` with random weights: the oracle, and where the golden files come from.

python -m tests.pretrained.published [NAME...]    writes tests/pretrained/golden/ again, or some of it (needs torch and
transformers 5)
"""

import shutil
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
NEW_TOKENS = 32
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXT_FAMILIES = ("gpt2", "gptj", "llama", "qwen2", "qwen3", "mixtral", "qwen3_moe")
# Golden shapes divide over a 2x2x2 mesh; the odd ones do not.
_LLAMA = {
    "golden": {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "intermediate_size": 24},
    "odd": {"vocab_size": 67, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5}
    | {"num_key_value_heads": 1, "intermediate_size": 37, "rms_norm_eps": 1e-5},
    "one": {"vocab_size": 33, "hidden_size": 28, "num_hidden_layers": 1, "num_attention_heads": 7}
    | {"num_key_value_heads": 7, "intermediate_size": 9, "rope_theta": 500_000.0},
}
_GPT = {
    "golden": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48},
    "odd": {"vocab_size": 67, "n_embd": 30, "n_layer": 3, "n_head": 3, "n_positions": 45, "n_inner": 37},
    "one": {"vocab_size": 33, "n_embd": 28, "n_layer": 1, "n_head": 7, "n_positions": 41, "layer_norm_epsilon": 1e-6},
}
SHAPES = tuple(_LLAMA)
_EXTRA = {
    ("llama", "odd"): {
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
        | {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    },
    ("llama", "one"): {"attention_bias": True, "tie_word_embeddings": True},
    ("qwen2", "odd"): {"tie_word_embeddings": True},
    ("qwen3", "golden"): {"head_dim": 6},
    ("qwen3", "odd"): {"head_dim": 10},
    ("qwen3", "one"): {"head_dim": 4},
    ("mixtral", "golden"): {"num_local_experts": 4},
    ("mixtral", "odd"): {"num_local_experts": 5, "num_experts_per_tok": 3},
    ("mixtral", "one"): {"num_local_experts": 2},
    ("gptj", "golden"): {"rotary_dim": 4},
    ("gptj", "odd"): {"rotary_dim": 6},
    ("gptj", "one"): {"rotary_dim": 2},
}
_QWEN3_MOE = {
    "golden": {"head_dim": 6, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    | {"mlp_only_layers": [0]},
    "odd": {"head_dim": 10, "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 11},
    "one": {"head_dim": 4, "num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 7},
}


def text_config(family, shape):
    """The configuration object of `transformers`."""
    import transformers

    classes = {
        "gpt2": transformers.GPT2Config,
        "gptj": transformers.GPTJConfig,
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "mixtral": transformers.MixtralConfig,
        "qwen3_moe": transformers.Qwen3MoeConfig,
    }
    values = (_GPT if family.startswith("gpt") else _LLAMA)[shape] | _EXTRA.get((family, shape), {})
    if family == "qwen3_moe":
        values |= _QWEN3_MOE[shape] | {"norm_topk_prob": True}
    return classes[family](**values, bos_token_id=0, eos_token_id=None, pad_token_id=0)


def text_model(family, shape, seed=0):
    import transformers

    model = transformers.AutoModelForCausalLM.from_config(text_config(family, shape))
    if family in ("mixtral", "qwen3_moe"):
        model.set_experts_implementation("eager")  # the grouped product wants widths that are multiples of four
    return randomise(model, seed)


def randomise(model, seed=0):
    """Every parameter random, biases and norms too, at a scale that keeps activations near one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("wpe.weight"):  # or GPT-2's tied head repeats the last token for ever
                parameter.copy_(2.0 * noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(parameter.mean().round() + 0.2 * noise)
    return model.eval()


def prompt(vocab_size):
    return np.random.default_rng(1).integers(1, vocab_size, (2, 7)).astype(np.int64)


def text_outputs(model):
    """Prompt ids, their logits, and the greedy continuation."""
    import torch

    ids = torch.tensor(prompt(model.config.vocab_size))
    with torch.no_grad():
        logits = model(ids).logits.float().numpy()
        said = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, attention_mask=torch.ones_like(ids))
    return {"ids": ids.numpy(), "logits": logits, "said": said[:, ids.shape[1] :].numpy()}


_TOWERS = {"golden": (12, 20, 2, 2), "odd": (18, 23, 3, 3), "one": (14, 9, 1, 7)}  # width, mlp, layers, heads
_SIDES = {"golden": 3, "odd": 5, "one": 2}  # patches
_PATCH = 4
VISION_FAMILIES = ("clip", "siglip", "siglip2")


def encoder_model(name, shape="golden", seed=0):
    import transformers

    width, mlp, layers, heads = _TOWERS[shape]
    if name == "whisper":
        config = transformers.WhisperConfig(
            d_model=width, encoder_layers=layers, decoder_layers=1, encoder_attention_heads=heads,
            decoder_attention_heads=2, encoder_ffn_dim=mlp, decoder_ffn_dim=20, vocab_size=16, num_mel_bins=10,
            max_source_positions=12, max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=3,
        )  # fmt: skip
        return randomise(transformers.WhisperModel(config), seed)
    side = _SIDES[shape]
    picture = {"patch_size": _PATCH} | (
        {"num_patches": side**2} if name == "siglip2" else {"image_size": side * _PATCH}
    )
    sizes = {"hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads}
    configs = {
        "clip": (transformers.CLIPVisionModel, transformers.CLIPVisionConfig),
        "siglip": (transformers.SiglipVisionModel, transformers.SiglipVisionConfig),
        "siglip2": (transformers.Siglip2VisionModel, transformers.Siglip2VisionConfig),
    }
    model, config = configs[name]
    return randomise(model(config(**sizes, **picture)), seed)


def recogniser_model(shape="golden", seed=0):
    """Whisper whole, with a generation_config.json that begins and ends a transcript."""
    import transformers

    width, heads, layers, words = {"golden": (12, 2, 2, 24), "odd": (20, 5, 3, 37), "one": (14, 7, 1, 19)}[shape]
    config = transformers.WhisperConfig(
        d_model=width, encoder_layers=2, decoder_layers=layers, encoder_attention_heads=2,
        decoder_attention_heads=heads, encoder_ffn_dim=20, decoder_ffn_dim=22, vocab_size=words, num_mel_bins=10,
        max_source_positions=12, max_target_positions=40, pad_token_id=2, bos_token_id=2, eos_token_id=2,
        decoder_start_token_id=3, suppress_tokens=[7], begin_suppress_tokens=[5, 2],
    )  # fmt: skip
    model = randomise(transformers.WhisperForConditionalGeneration(config), seed)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=3, eos_token_id=2, pad_token_id=2, bos_token_id=2, no_timestamps_token_id=8,
        suppress_tokens=[7], begin_suppress_tokens=[5, 2], max_length=40, is_multilingual=True,
        lang_to_id={"<|en|>": 4}, task_to_id={"transcribe": 6},
    )  # fmt: skip
    return model


def recogniser_outputs(model):
    """Log-mel, tokens, their logits, and the greedy transcript after the prompt (end tokens at its end)."""
    import torch

    mel = np.random.default_rng(0).standard_normal((2, 24, 10)).astype(np.float32)
    heard = torch.tensor(mel.transpose(0, 2, 1))
    text = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 6))
    prompt = torch.tensor([[3, 4, 6, 8]] * 2)
    with torch.no_grad():
        logits = model(input_features=heard, decoder_input_ids=torch.tensor(text)).logits.numpy()
        said = prompt
        for step in range(NEW_TOKENS):  # by hand: `generate` wants whole 30 s
            following = model(input_features=heard, decoder_input_ids=said).logits[:, -1]
            following[:, [7, 5, 2] if step == 0 else [7]] = -float("inf")
            chosen = following.argmax(-1)
            ended = (said[:, prompt.shape[1] :] == 2).any(-1)
            said = torch.cat([said, torch.where(ended, 2, chosen)[:, None]], dim=1)
    return {"mel": mel, "text": text, "logits": logits, "said": said[:, prompt.shape[1] :].numpy()}


def whisper_outputs(model):
    import torch

    mel = np.random.default_rng(0).standard_normal((2, 24, 10)).astype(np.float32)
    with torch.no_grad():
        hidden = model.encoder(torch.tensor(mel.transpose(0, 2, 1))).last_hidden_state.numpy()
    return {"mel": mel, "hidden": hidden}


def vision_outputs(name, model, rows=3, columns=3):
    """Two pictures of `rows` x `columns` patches, RGB in [0, 1], and their hidden states without a class token."""
    import torch

    pixels = np.random.default_rng(0).random((2, rows * _PATCH, columns * _PATCH, 3)).astype(np.float32)
    mean, std = (0.5, 0.5) if name != "clip" else (CLIP_MEAN, CLIP_STD)
    normed = ((pixels - mean) / std).astype(np.float32)
    patches = _patches(pixels)
    with torch.no_grad():
        if name == "siglip2":
            shapes = torch.tensor([[rows, columns]] * 2)
            mask = torch.ones(2, rows * columns, dtype=torch.int64)
            output = model(torch.tensor(_patches(normed)), pixel_attention_mask=mask, spatial_shapes=shapes)
        else:
            output = model(torch.tensor(normed.transpose(0, 3, 1, 2)))
    hidden = output.last_hidden_state.numpy()
    return {"patches": patches, "hidden": hidden[:, 1:] if name == "clip" else hidden}


def _patches(pixels):
    count, height, width, _ = pixels.shape
    blocks = pixels.reshape(count, height // _PATCH, _PATCH, width // _PATCH, _PATCH, 3)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, _PATCH * _PATCH * 3)


_MARKS = {"image_token_id": 61, "audio_token_id": 60, "video_token_id": 62, "vision_start_token_id": 63}
_MARKS |= {"audio_start_token_id": 59}
GRID = (4, 6)  # patches of the picture
MEL_FRAMES, HEARD = 150, 20  # of the clip, and what the tower makes of them
_THINKER_TEXT = {
    "golden": (16, 4, 2, 8, [2, 1, 1], 3),
    "odd": (20, 5, 1, 14, [3, 2, 2], 4),
    "one": (22, 3, 3, 10, [3, 1, 1], 2),
}
_THINKER_AUDIO = {"golden": (12, 2, 20, 2), "odd": (18, 3, 23, 3), "one": (10, 1, 9, 1)}
_THINKER_VISION = {"golden": (16, 2, 20, 4, [0, 2]), "odd": (24, 3, 25, 5, [1, 2, 4]), "one": (20, 1, 21, 1, [0])}


def thinker_model(shape="golden", seed=0):
    """Qwen3-Omni's thinker with both towers."""
    import transformers

    width, heads, kv, head_dim, sections, layers = _THINKER_TEXT[shape]
    hear_width, hear_heads, hear_mlp, hear_layers = _THINKER_AUDIO[shape]
    see_width, see_heads, see_mlp, see_layers, deep = _THINKER_VISION[shape]
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections}
    config = transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe.Qwen3OmniMoeThinkerConfig(
        text_config={"vocab_size": 64, "hidden_size": width, "intermediate_size": 24, "num_hidden_layers": layers}
        | {"num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head_dim, "num_experts": 4}
        | {"num_experts_per_tok": 2, "moe_intermediate_size": 12, "mlp_only_layers": [0], "rope_parameters": rope},
        audio_config={"d_model": hear_width, "encoder_layers": hear_layers, "encoder_attention_heads": hear_heads}
        | {"encoder_ffn_dim": hear_mlp, "output_dim": width, "n_window_infer": 100}
        | {"num_mel_bins": 10, "downsample_hidden_size": 6},
        vision_config={"depth": see_layers, "hidden_size": see_width, "num_heads": see_heads}
        | {"intermediate_size": see_mlp, "patch_size": _PATCH, "num_position_embeddings": 25}
        | {"out_hidden_size": width, "deepstack_visual_indexes": deep},
        **_MARKS,
    )  # fmt: skip
    name = "Qwen3OmniMoeThinkerForConditionalGeneration"
    model = getattr(transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe, name)(config)
    model.set_experts_implementation("eager")
    return randomise(model, seed)


def thinker_outputs(model):
    """A text with a picture and a clip in it: what goes in, logits, positions and the greedy continuation."""
    import torch

    rng = np.random.default_rng(0)
    rows, columns = GRID
    picture, clip = [63, *[61] * (rows * columns // 4), 5], [59, *[60] * HEARD, 6]
    ids = torch.tensor([[*rng.integers(1, 50, 5), *picture, *clip, *rng.integers(1, 50, 4)]])
    mel = rng.standard_normal((1, MEL_FRAMES, 10)).astype(np.float32)
    pixels = rng.random((1, rows * _PATCH, columns * _PATCH, 3)).astype(np.float32)
    patches = _patches(pixels)[0].reshape(rows // 2, 2, columns // 2, 2, -1).transpose(0, 2, 1, 3, 4)
    patches = patches.reshape(rows * columns, _PATCH, _PATCH, 3)
    film = np.repeat(2 * patches.transpose(0, 3, 1, 2)[:, :, None] - 1, 2, axis=2)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.tensor(mel.transpose(0, 2, 1)),
        "feature_attention_mask": torch.ones(1, MEL_FRAMES, dtype=torch.int64),
        "pixel_values": torch.tensor(film.reshape(rows * columns, -1)),
        "image_grid_thw": torch.tensor([[1, rows, columns]]),
    }
    with torch.no_grad():
        logits = model(**inputs).logits.numpy()
        said = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[:, ids.shape[1] :].numpy()
    positions, _ = model.model.get_rope_index(
        ids, inputs["image_grid_thw"], None, inputs["attention_mask"], False, torch.tensor([MEL_FRAMES])
    )
    place = {
        "positions": positions.permute(1, 2, 0).numpy().astype(np.int32),
        "patches": patches.reshape(1, rows * columns, -1),
    }
    return {"ids": ids.numpy(), "mel": mel, "logits": logits, "said": said} | place


def write_golden(name):
    shutil.rmtree(GOLDEN / name, ignore_errors=True)
    if name in TEXT_FAMILIES:
        model = text_model(name, "golden")
        outputs = text_outputs(model)
    elif name == "qwen3_omni":
        model = thinker_model()
        outputs = thinker_outputs(model)
    elif name == "whisper_whole":
        model = recogniser_model()
        outputs = recogniser_outputs(model)
    else:
        model = encoder_model(name)
        outputs = whisper_outputs(model) if name == "whisper" else vision_outputs(name, model)
    model.save_pretrained(GOLDEN / name, max_shard_size="10KB" if name == "qwen3" else "1GB")
    if name in (*TEXT_FAMILIES, "qwen3_omni"):
        (GOLDEN / name / "generation_config.json").unlink()
    np.savez(GOLDEN / name / "expected.npz", **outputs)


if __name__ == "__main__":
    for name in sys.argv[1:] or (*TEXT_FAMILIES, "whisper", "whisper_whole", "qwen3_omni", *VISION_FAMILIES):
        write_golden(name)
