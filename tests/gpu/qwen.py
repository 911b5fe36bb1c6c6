# SPDX-License-Identifier: Apache-2.0
"""What parity.py and speed.py share: a published shape with random weights, as a transformers model and as a checkpoint
folder. No network, and of the repository only config.json files and the demo model's tokenizer are needed.
"""
import contextlib
import copy
import gc
import inspect
import json
import pathlib
import shutil
import warnings

import torch
from safetensors.torch import save_file
from transformers import (DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig,
                          Qwen3VLMoeForConditionalGeneration)

DEMO = pathlib.Path(__file__).resolve().parents[2] / "samples/demo-model"
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "video_preprocessor_config.json"]

warnings.filterwarnings("ignore", category=FutureWarning)


def is_sparse(config):
    return "num_experts" in config["text_config"]


def read_config(path, layers=None):
    """A config.json's content, with the demo tokenizer's special tokens in it: random weights do not mind. With `layers`
    the decoder has only the first so many."""
    config = json.loads(pathlib.Path(path).read_text())
    if layers:
        config["text_config"]["num_hidden_layers"] = layers
    demo = json.loads((DEMO / "config.json").read_text())
    for key in ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"]:
        config[key] = demo[key]
    for key in ["bos_token_id", "eos_token_id"]:
        config["text_config"][key] = demo["text_config"][key]
    config["text_config"]["vocab_size"] = max(config["text_config"]["vocab_size"], demo["text_config"]["vocab_size"])
    return config


def exact_float32():
    """float32 products and convolutions as such, not in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def give_memory_back(device):
    """What torch keeps for later, so that another process can have it."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def without_initialisation():
    try:
        from transformers.initialization import no_init_weights
    except ImportError:
        from transformers.modeling_utils import no_init_weights
    with no_init_weights():
        yield


def create_model(config, device, dtype):
    """Not initialised. What is computed from the configuration (frequencies) stays float32, as after loading."""
    kinds = [(Qwen3VLConfig, Qwen3VLForConditionalGeneration), (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration)]
    shape_of, kind = kinds[is_sparse(config)]
    shape = shape_of.from_dict(copy.deepcopy(config))  # which it changes
    shape._attn_implementation = "sdpa"
    with without_initialisation(), torch.device(device):
        torch.set_default_dtype(dtype)  # experts in float32 and then in bfloat16 would not fit
        model = kind(shape).eval()
        torch.set_default_dtype(torch.float32)
    if dtype == torch.float32 and is_sparse(config):
        model.set_experts_implementation("eager")  # grouped products know bfloat16 alone
    cast_parameters(model, dtype)
    model.tie_weights()
    return model.requires_grad_(False)


def cast_parameters(model, dtype):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def fill(name, parameter, generator):
    """Values of a size that keeps activations near 1; rounded to bfloat16, so that all see the same weights."""
    noise = torch.randn(parameter.shape, generator=generator, device=parameter.device)
    if "norm" in name and name.endswith("weight"):
        # Sharper attention than chance would give: scores of a deviation of 2.
        noise = noise * 0.1 + (1.5 if "q_norm" in name else 1)
    elif name.endswith("bias"):
        noise *= 0.1
    elif "embed_tokens" in name or "lm_head" in name:
        # Some words are much likelier than others, so that the best is often sure.
        share = torch.rand(parameter.shape[0], 1, generator=generator, device=parameter.device)
        noise *= 0.02 * share.clamp(min=1e-7) ** -0.25
    elif ".experts." in name:  # of all experts, [expert, out, in]
        noise *= parameter.shape[-1] ** -0.5
    else:
        noise *= parameter[0].numel() ** -0.5
    parameter.copy_(noise.bfloat16())


@torch.no_grad()
def randomise(model, seed):
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in model.named_parameters():  # a tied head is not listed twice
        fill(name, parameter, generator)


def write_checkpoint(model, config, folder):
    """The folder that scenelog reads: bfloat16, the published names, one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER_FILES:
        if (DEMO / name).exists():
            shutil.copy(DEMO / name, folder / name)
    tensors = {name: p.detach().bfloat16().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")


def tower(model, patches, grid):
    """Visual features and the DeepStack features."""
    out = model.model.visual(patches, grid_thw=grid)
    if isinstance(out, tuple):
        return out
    return out.pooler_output, out.deepstack_features


def new_cache(model):
    return DynamicCache(config=model.config.text_config)


def decode(model, cache, positions, ids=None, embeds=None, mask=None, deepstack=None):
    """Logits [batch, vocab] of the last row; the cache grows."""
    inputs = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds, "visual_pos_masks": mask,
                                                        "deepstack_visual_embeds": deepstack}
    language = model.model.language_model
    name = "cache" if "cache" in inspect.signature(language.forward).parameters else "past_key_values"
    out = language(position_ids=positions, use_cache=True, **inputs, **{name: cache})
    return model.lm_head(out.last_hidden_state[:, -1])


def prefill(model, ids, positions, features, deepstack, cache):
    embeds = model.model.language_model.embed_tokens(ids)
    mask = ids == model.config.video_token_id
    embeds = embeds.masked_scatter(mask[..., None].expand_as(embeds), features.to(embeds.dtype))
    return decode(model, cache, positions, embeds=embeds, mask=mask, deepstack=deepstack)


def patches_of(pixels, patch, merge):
    """[T, H, W, 3] bytes to rows in merge order; columns channel, time, y, x."""
    frames, height, width, _ = pixels.shape
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    x = x.reshape(frames // 2, 2, 3, height // patch // merge, merge, patch, width // patch // merge, merge, patch)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * 2 * patch * patch)


def size(text):
    width, height = text.split("x")
    return int(width), int(height)
