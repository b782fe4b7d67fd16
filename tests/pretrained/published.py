"""Small models of `transformers` with random weights: the oracle, and where the golden files come from.

python -m tests.pretrained.published    writes tests/pretrained/golden/ again (needs torch and transformers 5)
"""

import shutil
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
NEW_TOKENS = 32
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

    return randomise(transformers.AutoModelForCausalLM.from_config(text_config(family, shape)), seed)


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


def write_golden():
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for family in TEXT_FAMILIES:
        model = text_model(family, "golden")
        model.save_pretrained(GOLDEN / family, max_shard_size="10KB" if family == "qwen3" else "1GB")
        (GOLDEN / family / "generation_config.json").unlink()
        np.savez(GOLDEN / family / "expected.npz", **text_outputs(model))


if __name__ == "__main__":
    write_golden()
