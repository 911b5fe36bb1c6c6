#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Hugging Face's tokenizers make of many texts: tests/golden/data/tokenizer-{words,bytes} and the cases in
tests/golden/data/{tokenizer,tokenizer-words,tokenizer-bytes}/cases.json, prompts in data/tokenizer-words/prompts.json.

words: the published form (NFC, the Qwen2 expression, merges as pairs), trained on made-up words of many scripts.
bytes: GPT-2's form (ByteLevel with its own expression, no normaliser, merges as "a b"), ignore_merges.
A case is [text as UTF-8 in hex, ids]. Added tokens are taken out for the cases: scenelog never finds them in a text.
Needs tokenizers. Run make_models.py first.
"""
import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

DATA = pathlib.Path(__file__).resolve().parent / "data"
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>", "<think>", "</think>"]
SYLLABLES = ["ba", "re", "ti", "on", "the", "circle", "red", "lo", "ing", "s", "ed", "th", "er", "an", "é", "ü", "ñ",
             "о", "ва", "ние", "пр", "и", "λό", "γος", "α", "שלום", "مر", "حبا", "日", "本", "語", "中文", "の", "カ",
             "한", "국", "어", "नम", "स्ते", "ไทย", "🙂", "👩‍👩‍👧", "0", "1", "23", "4.5", "->", "(x):", "==", "'s", "'ll"]
SPACES = " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
# Blocks with marks, cased and uncased letters, digits, composed and decomposed forms, private use, far planes.
BLOCKS = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0x97f),
          (0xe00, 0xe7f), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x4eff),
          (0xac00, 0xacff), (0xe000, 0xe00f), (0xf900, 0xfaff), (0xfb00, 0xfb4f), (0xff00, 0xffef),
          (0x1d100, 0x1d1ff), (0x1d400, 0x1d7ff), (0x1f300, 0x1f6ff), (0x20000, 0x2001f), (0x2f800, 0x2fa1d)]


def any_character(rng):
    while True:
        character = chr(rng.randint(*rng.choice(BLOCKS)))
        if unicodedata.category(character) not in ("Cn", "Cs"):
            return character


def any_text(rng):
    kind, size = rng.randrange(6), rng.randint(1, 40)
    if kind == 0:
        return "".join(any_character(rng) for _ in range(size))
    if kind == 1:
        return "".join(rng.choice(SYLLABLES + list(SPACES) + [" "] * 20) for _ in range(size))
    if kind == 2:
        return "".join(rng.choice(SPACES + "ab1'\n\n  ") for _ in range(size))
    if kind == 3:  # letters with marks in any order
        marks = [chr(c) for c in range(0x300, 0x345)] + ["\u093c", "\u05b0", "\u0f71", "\u3099", "\u1161", "\u11a8"]
        return "".join(rng.choice(list("aeiouAs\u1100\uac00\u304b\u1ea1\u01d5") + marks * 2) for _ in range(size))
    if kind == 4:
        return "".join(rng.choice(["'s", "'S", "'\u017f", "'LL", "'Ve", "'", "\u2019s", "'re", "a", "K", " ", "'D", "x"])
                       for _ in range(size))
    return "".join(rng.choice(SPECIAL + ["<|", "|>", "a ", " b", "\n", "user", "12.5"]) for _ in range(size // 4 + 1))


FIXED = ["Hello world", " Hello world", "->", "(x):\n", "<0.2 seconds>", "user\n", "", " ", "\n", "a\u0301", "\u00e1",
         "\u212b", "\u1e9b\u0323", "e\u0301\u0327", "e\u0327\u0301", "\ufffd", "\u0000", "a\u0000b", "  \n  a", "x" * 200,
         " " * 100, "\t" * 33 + "y", "00:01.50 - 00:03.25", "{\"00:00.00 - 00:01.00\": \"A red circle appears.\"}"]


def save(folder, tokenizer, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    form = json.loads(tokenizer.to_str())
    form["model"].update(changes)
    (folder / "tokenizer.json").write_text(json.dumps(form, ensure_ascii=False, separators=(",", ":")) + "\n")


def train(tokenizer, size):
    rng = random.Random(1)
    corpus = ["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(400)]
    texts = [" ".join(rng.choice(corpus) for _ in range(12)) + rng.choice([".", "\n", "  \n"]) for _ in range(2000)]
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(name, special="think" not in name, normalized=False) for name in SPECIAL])


def words():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated", invert=False),
         pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 900)
    save(DATA / "tokenizer-words", tokenizer)


def plain_bytes():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 500)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    # A word that merges cannot build: only ignore_merges finds it.
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    vocabulary["xyzzy"] = 600
    save(DATA / "tokenizer-bytes", tokenizer, merges=[" ".join(pair) for pair in merges], vocab=vocabulary)


def cases(folder, count):
    form = json.loads((folder / "tokenizer.json").read_text())
    form["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(form))
    rng = random.Random(2)
    texts = FIXED + ["xyzzy", "a xyzzy xyzzy"] + [any_text(rng) for _ in range(count)]
    lines = [json.dumps([text.encode().hex(), tokenizer.encode(text, add_special_tokens=False).ids],
                        separators=(",", ":")) for text in texts]
    (folder / "cases.json").write_text("[" + ",\n".join(lines) + "]\n")


def prompts():
    """Layouts written down here once more, encoded whole with the added tokens in place."""
    folder = DATA / "tokenizer-words"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plans = [dict(pairs=[[0, 500000], [1000000, 1500000]], grid=[2, 3], text="What happens?"),
             dict(pairs=[[0, 500000]], grid=[1, 1], text="", thinking=True),
             dict(pairs=[], grid=[1, 1], text="Hi there.", system="You are terse.\n"),
             dict(pairs=[[100000, 600000], [200000, 500000], [12340000, 12360000], [2500000, 2500000],
                         [3600000000, 3600100000], [12050000, 12050000]],
                  grid=[1, 2], text=" e\u0301vents 'S", system="", thinking=True)]
    out = []
    for plan in plans:
        rows, columns = plan["grid"]
        text = "<|im_start|>system\n" + plan["system"] + "<|im_end|>\n" if "system" in plan else ""
        text += "<|im_start|>user\n"
        for first, second in plan["pairs"]:
            text += f"<{(first / 1e6 + second / 1e6) / 2:.1f} seconds><|vision_start|>"
            text += "<|video_pad|>" * (rows * columns) + "<|vision_end|>"
        text += plan["text"] + "<|im_end|>\n<|im_start|>assistant\n" + ("<think>\n" if plan.get("thinking") else "")
        out.append(dict(plan, ids=tokenizer.encode(text, add_special_tokens=False).ids))
    (folder / "prompts.json").write_text(json.dumps(out, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    words()
    plain_bytes()
    cases(DATA / "tokenizer", 150)
    cases(DATA / "tokenizer-words", 500)
    cases(DATA / "tokenizer-bytes", 300)
    prompts()
