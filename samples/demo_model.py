# SPDX-License-Identifier: Apache-2.0
"""The demo model's shape and words: configuration, tokenizer, prompt layout, batched forward, and its folder on disk.

Used by train.py and by evaluate.py --reference. Needs torch, transformers and tokenizers.

    demo_model.py DIR [--experts 4]         write DIR with random weights (the final shape, for tests)
    demo_model.py DIR --from DIR [--fp8]    write a trained model again, its linear layers in FP8
"""
import argparse
import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import world

PROMPT = (Path(__file__).parent / "prompt.txt").read_text()
PATCH = 16
TOKENS = 24           # at most, per pair of frames, after the 2x2 merge
CANVAS = (128, 192)   # height and width that a 3:2 picture gets
BPE_SIZE = 502
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
         "<|image_pad|>", "<|video_pad|>", "<think>", "</think>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
CHOSEN = 2            # experts for a token, where there are any
SHARD_BYTES = 12_000_000
BLOCK = 128           # FP8 weights have one scale for each square of so many rows and columns


def build_tokenizer():
    """A byte-level BPE of the Qwen2 family, learnt from the prompt, from answers of the world, and from its words."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    rng = random.Random(1)
    texts = [PROMPT, "user\n", "assistant\n", "<12.2 seconds>"] * 500
    by_kind = {}
    for t in world.SENTENCES:
        by_kind.setdefault(world.kind_of(t), []).append(t)
    for _ in range(300):
        texts.append(world.answer([(1.5, 4.0, rng.choice(by_kind[k])) for k in sorted(by_kind)]))
    texts += ["What is visible now? Where is it? yes no left right top middle bottom day night red green person car "
              "moves opens closes enters leaves the and of to in is on at with for that this"] * 20
    trainer = trainers.BpeTrainer(vocab_size=BPE_SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tok.train_from_iterator(texts, trainer)
    assert tok.get_vocab_size() == BPE_SIZE, tok.get_vocab_size()
    tok.add_tokens([AddedToken(t, normalized=False, special="think" not in t) for t in ADDED])
    return tok


def load_tokenizer(folder):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def config_dict(tok, experts=0):
    tid = tok.token_to_id
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": tid("<|endoftext|>"), "dtype": "bfloat16",
        "eos_token_id": tid("<|im_end|>"), "head_dim": 64, "hidden_act": "silu", "hidden_size": 320,
        "initializer_range": 0.02, "intermediate_size": 896, "max_position_embeddings": 32768,
        "model_type": "qwen3_vl_text", "num_attention_heads": 6, "num_hidden_layers": 8, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"},
        "rope_theta": 10000, "tie_word_embeddings": True, "use_cache": True, "vocab_size": tok.get_vocab_size()}
    vision = {
        "deepstack_visual_indexes": [1, 3], "depth": 6, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 192,
        "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 768, "model_type": "qwen3_vl",
        "num_heads": 4, "num_position_embeddings": 256, "out_hidden_size": 320, "patch_size": PATCH,
        "spatial_merge_size": 2, "temporal_patch_size": 2}
    moe = ""
    if experts:
        moe = "_moe"
        text.update(model_type="qwen3_vl_moe_text", num_experts=experts, num_experts_per_tok=CHOSEN, norm_topk_prob=True,
                    moe_intermediate_size=text["intermediate_size"] // experts, decoder_sparse_step=2, mlp_only_layers=[])
        vision["model_type"] = "qwen3_vl_moe"
    return {
        "architectures": [f"Qwen3VL{moe[1:].capitalize()}ForConditionalGeneration"], "dtype": "bfloat16",
        "image_token_id": tid("<|image_pad|>"), "model_type": "qwen3_vl" + moe, "text_config": text,
        "tie_word_embeddings": True, "transformers_version": "4.57.0", "video_token_id": tid("<|video_pad|>"),
        "vision_config": vision, "vision_end_token_id": tid("<|vision_end|>"),
        "vision_start_token_id": tid("<|vision_start|>")}


def build_model(tok, experts=0):
    """The dense model. Experts are parts of a dense MLP's width and a router that weighs them: the same arithmetic."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    cfg = Qwen3VLConfig(**json.loads(json.dumps(config_dict(tok))))
    hf = Qwen3VLForConditionalGeneration(cfg).float()
    hf.experts = experts
    for lay in sparse_layers(hf):
        lay.mlp.router = torch.nn.Linear(cfg.text_config.hidden_size, experts, bias=False)
        torch.nn.init.normal_(lay.mlp.router.weight, std=0.02)
    return hf


def sparse_layers(hf):
    return hf.model.language_model.layers[1::2] if hf.experts else []


def canvas(height, width):
    """The size that the model's own video processor gives to frames of this size (all larger than the canvas)."""
    beta = (height * width / (TOKENS * 1024)) ** 0.5
    return max(32, int(height / beta / 32 + 1e-9) * 32), max(32, int(width / beta / 32 + 1e-9) * 32)


# ---- prompt layout -------------------------------------------------------------------------------------------------

def prefix(tok, samples, size=CANVAS, prompt=PROMPT):
    """Token ids and positions [L][3] of a window sampled at these times, up to the answer; the answer's position."""
    rows, cols = size[0] // PATCH // 2, size[1] // PATCH // 2
    enc = lambda s: tok.encode(s, add_special_tokens=False).ids
    start, end, pad = (tok.token_to_id(t) for t in ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>"))
    times = list(samples) + ([samples[-1]] if len(samples) % 2 else [])
    ids, pos = [], []
    p = 0

    def text(new):
        nonlocal p
        for i in new:
            ids.append(i)
            pos.append((p, p, p))
            p += 1

    text(enc("<|im_start|>user\n"))
    for a, b in zip(times[::2], times[1::2]):
        text(enc("<%.1f seconds>" % ((a + b) / 2)) + [start])
        for r in range(rows):
            for c in range(cols):
                ids.append(pad)
                pos.append((p, p + r, p + c))
        p += max(rows, cols)
        text([end])
    text(enc(prompt) + enc("<|im_end|>\n<|im_start|>assistant\n"))
    return ids, pos, p


# ---- forward, batched by hand over the parameters of the transformers model -----------------------------------------

def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


def linear(x, w, b=None):
    return F.linear(x, w.to(x.dtype), None if b is None else b.to(x.dtype))


def layer_norm(x, w, b):
    return F.layer_norm(x.float(), (x.shape[-1],), w, b, 1e-6).to(x.dtype)


def rms_norm(x, w):
    y = x.float()
    return w.to(x.dtype) * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def vision_weights(blk):
    return [p for m in (blk.norm1, blk.attn.qkv, blk.attn.proj, blk.norm2, blk.mlp.linear_fc1, blk.mlp.linear_fc2)
            for p in (m.weight, m.bias)]


def vision_block(x, cos, sin, heads, weights):
    n1, n1b, qkv, qkvb, proj, projb, n2, n2b, fc1, fc1b, fc2, fc2b = weights
    n, l, c = x.shape
    q, k, v = linear(layer_norm(x, n1, n1b), qkv, qkvb).view(n, l, 3, heads, c // heads).unbind(2)
    cos, sin = cos[:, None], sin[:, None]
    o = F.scaled_dot_product_attention(rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2),
                                       v.transpose(1, 2))
    x = x + linear(o.transpose(1, 2).reshape(n, l, c), proj, projb)
    return x + linear(F.gelu(linear(layer_norm(x, n2, n2b), fc1, fc1b), approximate="tanh"), fc2, fc2b)


def merge(x, norm, after, fc1, fc2):
    """Four patches to one visual token; `after`: the norm comes after the four were put together."""
    n, l, c = x.shape
    x = x if after else layer_norm(x, norm.weight, norm.bias)
    x = x.reshape(n, l // 4, 4 * c)
    x = layer_norm(x, norm.weight, norm.bias) if after else x
    return linear(F.gelu(linear(x, fc1.weight, fc1.bias)), fc2.weight, fc2.bias)


def text_weights(lay):
    att = lay.self_attn
    return [m.weight for m in (lay.input_layernorm, att.q_proj, att.k_proj, att.v_proj, att.q_norm, att.k_norm,
                               att.o_proj, lay.post_attention_layernorm, lay.mlp.gate_proj, lay.mlp.up_proj,
                               lay.mlp.down_proj, getattr(lay.mlp, "router", None)) if m is not None]


def route(h, router):
    """The weight of each expert for each token, and how uneven they are used (1: evenly)."""
    p = F.linear(h.float(), router).softmax(-1)
    best, which = p.topk(CHOSEN, -1)
    weights = torch.zeros_like(p).scatter(-1, which, best / best.sum(-1, keepdim=True))
    share = (weights > 0).float().mean((0, 1)) / CHOSEN
    return weights, p.shape[-1] * (share * p.mean((0, 1))).sum()


def text_layer(x, cos, sin, weights, cache=None):
    """The layer's output; with a router, how uneven its experts are used too."""
    n1, wq, wk, wv, nq, nk, wo, n2, gate, up, down, *router = weights
    b, l, _ = x.shape
    dim = nq.shape[0]
    h = rms_norm(x, n1)
    cos, sin = cos[:, None], sin[:, None]
    q = rotate(rms_norm(linear(h, wq).view(b, l, -1, dim), nq), cos, sin).transpose(1, 2)
    k = rotate(rms_norm(linear(h, wk).view(b, l, -1, dim), nk), cos, sin).transpose(1, 2)
    v = linear(h, wv).view(b, l, -1, dim).transpose(1, 2)
    causal = True
    if cache is not None:
        k, v = cache.put(k, v)
        causal = l > 1
    rep = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
    o = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    x = x + linear(o.transpose(1, 2).reshape(b, l, -1), wo)
    h = rms_norm(x, n2)
    inner = F.silu(linear(h, gate)) * linear(h, up)
    if not router:
        return x + linear(inner, down), None
    by_expert, uneven = route(h, router[0])
    inner = inner * by_expert.repeat_interleave(inner.shape[-1] // by_expert.shape[-1], -1).to(inner.dtype)
    return x + linear(inner, down), uneven


def many(f, compiled, dims=1):
    """f compiled once for any size of the leading axes of its leading tensor (and of the first of the others)."""
    if not compiled:
        return f
    run = torch.compile(f)

    def call(x, *rest):
        for d in range(dims):
            torch._dynamo.maybe_mark_dynamic(x, d)
        for t in rest:
            if torch.is_tensor(t) and t.shape[0] == x.shape[dims - 1]:
                torch._dynamo.maybe_mark_dynamic(t, 0)
        return run(x, *rest)

    return call


class Cache:
    """Keys and values of one layer."""

    def __init__(self):
        self.k = self.v = None

    def put(self, k, v):
        if self.k is not None:
            k, v = torch.cat((self.k, k), 2), torch.cat((self.v, v), 2)
        self.k, self.v = k, v
        return k, v


class Net(torch.nn.Module):
    """The same arithmetic as transformers' forward, for many windows of one layout at once."""

    def __init__(self, hf, tok, compile_blocks=False):
        super().__init__()
        self.text_config = config_dict(tok)["text_config"]
        self.hf, self.dtype = hf, torch.float32  # the type of activations
        self.vis, self.lang = hf.model.visual, hf.model.language_model
        self.vision_block = many(vision_block, compile_blocks, dims=2)
        self.text_layer = many(text_layer, compile_blocks, dims=2)
        self.layouts = {}

    def layout(self, gh, gw, dev):
        """Constants of one patch grid, in merge order: rotary cos and sin, weights of the position table."""
        if (gh, gw) in self.layouts:
            return self.layouts[gh, gw]
        hh, ww = torch.meshgrid(torch.arange(gh), torch.arange(gw), indexing="ij")
        merged = lambda x: x.reshape(gh // 2, 2, gw // 2, 2).permute(0, 2, 1, 3).reshape(-1)
        hh, ww = merged(hh), merged(ww)
        dim = self.vis.config.hidden_size // self.vis.config.num_heads
        freq = 10000.0 ** (-torch.arange(0, dim // 2, 2).float() / (dim // 2))
        ang = torch.cat([hh[:, None] * freq, ww[:, None] * freq], -1)
        ang = torch.cat([ang, ang], -1)
        side = int(self.vis.config.num_position_embeddings ** 0.5)
        table = torch.zeros(gh * gw, side * side)
        y, x = hh * (side - 1) / (gh - 1), ww * (side - 1) / (gw - 1)
        y0, x0 = y.long(), x.long()
        y1, x1 = (y0 + 1).clamp(max=side - 1), (x0 + 1).clamp(max=side - 1)
        dy, dx = y - y0, x - x0
        for yy, xx, w in ((y0, x0, (1 - dy) * (1 - dx)), (y0, x1, (1 - dy) * dx), (y1, x0, dy * (1 - dx)),
                          (y1, x1, dy * dx)):
            table.index_put_((torch.arange(gh * gw), yy * side + xx), w, accumulate=True)
        self.layouts[gh, gw] = ang.cos().to(dev), ang.sin().to(dev), table.to(dev)
        return self.layouts[gh, gw]

    def patches(self, frames):
        """[N, 2, 3, height, width] in -1..1 -> [N, patches, 1536]."""
        n, _, _, h, w = frames.shape
        x = frames.view(n, 2, 3, h // 32, 2, PATCH, w // 32, 2, PATCH)
        return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(n, h * w // PATCH ** 2, -1)

    def see(self, frames):
        """Pairs of frames -> [main, deepstack...], each [N, tokens, hidden]."""
        vis = self.vis
        w = vis.patch_embed.proj
        x = linear(self.patches(frames), w.weight.flatten(1), w.bias)
        cos, sin, table = self.layout(frames.shape[-2] // PATCH, frames.shape[-1] // PATCH, x.device)
        x = x + (table @ vis.pos_embed.weight).to(x.dtype)
        outs = []
        for i, blk in enumerate(vis.blocks):
            x = self.vision_block(x, cos, sin, vis.config.num_heads, vision_weights(blk))
            if i in vis.config.deepstack_visual_indexes:
                m = vis.deepstack_merger_list[len(outs)]
                outs.append(merge(x, m.norm, True, m.linear_fc1, m.linear_fc2))
        m = vis.merger
        return [merge(x, m.norm, False, m.linear_fc1, m.linear_fc2)] + outs

    def angles(self, pos):
        """Positions [L, 3] -> cos and sin [L, head_dim], interleaved axes."""
        cfg = self.text_config
        section = cfg["rope_scaling"]["mrope_section"]
        half = cfg["head_dim"] // 2
        freq = cfg["rope_theta"] ** (-torch.arange(half, device=pos.device).float() / half)
        axis = torch.zeros(half, dtype=torch.long, device=pos.device)
        axis[1:section[1] * 3:3] = 1
        axis[2:section[2] * 3:3] = 2
        ang = pos.float()[:, axis] * freq
        ang = torch.cat([ang, ang], -1)
        return ang.cos(), ang.sin()

    def read(self, ids, pos, seen=None, spots=None, caches=None, tap=None):
        """Hidden states [B, L, hidden]; spots: where the visual tokens stand (the same in each row).

        tap: a layer whose output is returned too (for the training's helper heads), and the mean unevenness of experts.
        """
        x = self.lang.embed_tokens(ids)
        cos, sin = self.angles(pos)
        if seen:
            x = x.to(seen[0].dtype).index_copy(1, spots, seen[0])
        else:
            x = x.to(self.dtype)
        tapped, uneven = None, []
        for i, lay in enumerate(self.lang.layers):
            x, u = self.text_layer(x, cos, sin, text_weights(lay), caches[i] if caches else None)
            uneven += [] if u is None else [u]
            if seen and i + 1 < len(seen):
                x = x.index_add(1, spots, seen[i + 1])
            if i == tap:
                tapped = x
        x = rms_norm(x, self.lang.norm.weight)
        if tap is None:
            return x
        return x, tapped, torch.stack(uneven).mean() if uneven else x.new_zeros(())

    def logits(self, hidden):
        return F.linear(hidden, self.lang.embed_tokens.weight.to(hidden.dtype))


@torch.no_grad()
def generate(net, tok, frames, samples, limit=500):
    """Greedy answers for windows of one layout. frames: [B, pairs, 2, 3, height, width] in -1..1, in net.dtype."""
    dev = frames.device
    ids, pos, p = prefix(tok, samples, tuple(frames.shape[-2:]))
    b = frames.shape[0]
    pad = tok.token_to_id("<|video_pad|>")
    spots = torch.tensor([i for i, t in enumerate(ids) if t == pad], device=dev)
    seen = [s.reshape(b, len(spots), -1) for s in net.see(frames.flatten(0, 1))]
    caches = [Cache() for _ in net.lang.layers]
    row = torch.tensor(ids, device=dev).expand(b, -1)
    h = net.read(row, torch.tensor(pos, device=dev), seen, spots, caches)[:, -1:]
    stop = tok.token_to_id("<|im_end|>")
    done = torch.zeros(b, dtype=torch.bool, device=dev)
    out = []
    for step in range(limit):
        nxt = net.logits(h).argmax(-1)
        nxt[done] = stop
        out.append(nxt)
        done |= nxt[:, 0] == stop
        if step % 16 == 15 and bool(done.all()):
            break
        h = net.read(nxt, torch.full((1, 3), p + step, device=dev), caches=caches)
    return [tok.decode(r[: r.index(stop)] if stop in r else r) for r in torch.cat(out, 1).tolist()]


# ---- the folder ----------------------------------------------------------------------------------------------------

def chat_template():
    return (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.content is string %}{{- message.content }}{%- else %}"
        "{%- for part in message.content %}"
        "{%- if part.type == 'video' or 'video' in part %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
        "{%- elif part.type == 'image' or 'image' in part %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
        "{%- elif 'text' in part %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
        "{{- '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save_folder(hf, tok, folder, fp8=False):
    """Write the folder in the form of a published checkpoint; weights in bfloat16 or, of linear layers, FP8; in shards."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tid = tok.token_to_id
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in published(hf).items()}
    config = config_dict(tok, hf.experts)
    if fp8:
        kept = sorted(k.removesuffix(".weight") for k, v in tensors.items() if v.dim() > 1 and not is_linear(k, v))
        config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                         "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": ["lm_head"] + kept}
        tensors = in_fp8(tensors)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {
        "bos_token_id": tid("<|endoftext|>"), "do_sample": False,
        "eos_token_id": [tid("<|im_end|>"), tid("<|endoftext|>")], "pad_token_id": tid("<|endoftext|>"),
        "transformers_version": "4.57.0"})
    common = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "merge_size": 2, "patch_size": PATCH,
              "temporal_patch_size": 2}
    write_json(folder / "preprocessor_config.json", {
        "size": {"longest_edge": 24576, "shortest_edge": 4096}, **common, "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast"})
    write_json(folder / "video_preprocessor_config.json", {
        "size": {"longest_edge": 25165824, "shortest_edge": 4096}, "cap_pixels_per_frame": True,
        "max_video_tokens": TOKENS, **common, "fps": 2, "processor_class": "Qwen3VLProcessor",
        "video_processor_type": "Qwen3VLVideoProcessor"})
    tok.save(str(folder / "tokenizer.json"))
    model = json.loads(tok.to_str())["model"]
    write_json(folder / "vocab.json", model["vocab"])
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = {str(tid(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                           "special": "think" not in t} for t in ADDED}
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": ADDED[1:8], "bos_token": None, "chat_template": chat_template(),
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 32768, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})
    write_json(folder / "chat_template.json", {"chat_template": chat_template()})
    shards, size = [{}], 0
    for name, t in tensors.items():
        n = t.nbytes
        if size + n > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = t
        size += n
    for old in folder.glob("*.safetensors"):
        old.unlink()
    where = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, str(folder / name), metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, name))
    total = sum(t.nbytes for t in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    return total


def is_linear(name, t):
    return "experts" in name or t.dim() == 2 and not name.endswith(("embed_tokens.weight", "pos_embed.weight", "mlp.gate.weight"))


def spread(scale, shape):
    """Scales of blocks, one for each element."""
    return scale.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)[..., :shape[-2], :shape[-1]]


def in_fp8(tensors):
    """Linear layers as e4m3, the largest of each block at 448, with NAME_scale_inv beside them."""
    out = {}
    for name, t in tensors.items():
        if not is_linear(name, t):
            out[name] = t
            continue
        rows, columns = t.shape[-2:]
        blocks = F.pad(t.float().abs(), (0, -columns % BLOCK, 0, -rows % BLOCK))
        scale = blocks.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).amax((-3, -1)).clamp(min=1e-6) / 448
        out[name] = (t.float() / spread(scale, t.shape)).to(torch.float8_e4m3fn)
        out[name + "_scale_inv"] = scale
    return out


def out_of_fp8(state):
    scales = {k: state.pop(k) for k in [k for k in state if k.endswith("_scale_inv")]}
    for name, scale in scales.items():
        name = name.removesuffix("_scale_inv")
        state[name] = state[name].float() * spread(scale, state[name].shape)
    return state


def published(hf):
    """The tensors under the names and in the form of a published checkpoint."""
    state = {k: v for k, v in hf.state_dict().items() if k != "lm_head.weight"}
    for name in [k for k in state if k.endswith("mlp.router.weight")]:
        mlp = name.removesuffix("router.weight")
        gate, up, down = (state.pop(mlp + part + "_proj.weight") for part in ("gate", "up", "down"))
        parts = lambda w: w.view(hf.experts, -1, w.shape[1]).mT  # [experts, hidden, width]
        state[mlp + "gate.weight"] = state.pop(name)
        state[mlp + "experts.gate_up_proj"] = torch.cat((parts(gate), parts(up)), -1)
        state[mlp + "experts.down_proj"] = down.T.reshape(hf.experts, -1, down.shape[0])
    return state


def unpublished(state):
    """The other way round."""
    for name in [k for k in state if k.endswith("experts.gate_up_proj")]:
        mlp = name.removesuffix("experts.gate_up_proj")
        whole = lambda w: w.mT.flatten(0, 1)
        gate, up = state.pop(name).chunk(2, -1)
        state[mlp + "gate_proj.weight"], state[mlp + "up_proj.weight"] = whole(gate), whole(up)
        state[mlp + "down_proj.weight"] = state.pop(mlp + "experts.down_proj").flatten(0, 1).T
        state[mlp + "router.weight"] = state.pop(mlp + "gate.weight")
    return state


def experts_of(folder):
    return json.loads((Path(folder) / "config.json").read_text())["text_config"].get("num_experts", 0)


def load_weights(hf, folder, tok):
    """Weights of a folder. Experts that it has not are made of its dense MLPs; words that it has not, of its pieces."""
    state = {}
    for f in sorted(Path(folder).glob("*.safetensors")):
        state.update(load_file(str(f)))
    state = {k: v.float() for k, v in unpublished(out_of_fp8(state)).items()}
    words = "model.language_model.embed_tokens.weight"
    state[words] = reworded(state[words], load_tokenizer(folder), tok)
    missing, extra = hf.load_state_dict(state, strict=False)
    new = {k for k in missing if k.endswith("router.weight")}
    assert set(missing) - new <= {"lm_head.weight"} and not extra, (missing, extra)
    if new:
        for lay in sparse_layers(hf):  # two of them at half weight are as strong as they were in the whole
            lay.mlp.down_proj.weight.data *= CHOSEN
    hf.tie_weights()


def reworded(rows, old, new):
    """The embedding's rows for another tokenizer."""
    known, out = old.get_vocab(), []
    for i in range(new.get_vocab_size()):
        token = new.id_to_token(i)
        pieces = [known[token]] if token in known else old.encode(new.decode([i]), add_special_tokens=False).ids
        out.append(rows[pieces].mean(0))
    return torch.stack(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=Path)
    ap.add_argument("--experts", type=int, default=0)
    ap.add_argument("--from", dest="start", type=Path)
    ap.add_argument("--fp8", action="store_true")
    args = ap.parse_args()
    torch.manual_seed(0)
    tok = load_tokenizer(args.start) if args.start else build_tokenizer()
    model = build_model(tok, experts_of(args.start) if args.start else args.experts)
    if args.start:
        load_weights(model, args.start, tok)
    print("bytes of weights:", save_folder(model, tok, args.folder, args.fp8))


if __name__ == "__main__":
    main()
