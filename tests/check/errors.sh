#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad input: each cause gives one clear line on standard error, its own exit code, and nothing on standard output.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
scenelog=$BUILD/scenelog
model=$SRCDIR/samples/demo-model
clip=$(ls "$SRCDIR"/samples/clips/*.mp4 | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
cp "$clip" "$work/clip.mp4"

# expect CODE WORDS COMMAND...: runs it, wants this exit code and one line that holds WORDS.
expect() {
    code=$1 words=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    lines=$(wc -l <"$work/err")
    if [ $got != "$code" ] || [ "$lines" != 1 ] || ! grep -qi -- "$words" "$work/err" || [ -s "$work/out" ]; then
        echo "FAILED: $* : wanted exit $code and one line with '$words', got exit $got and:"
        cat "$work/err" "$work/out"
        failed=1
    fi
}
index() { "$scenelog" index --progress=none -d "$work/x.db" -m "$model" "$@"; }
# with_model FOLDER: index the clip with that model.
with_model() { "$scenelog" index --progress=none -d "$work/x.db" -m "$1" "$work/clip.mp4"; }
broken_model() { # a copy of the demo model under this name
    cp -r "$model" "$work/$1"
    chmod -R u+w "$work/$1"
}

# --- Usage
expect 2 'no such command' "$scenelog" frobnicate
expect 2 'no file' "$scenelog" index
expect 2 'no such option' "$scenelog" index --frobnicate
expect 2 '--fps' index --fps 0 "$work/clip.mp4"
expect 2 '--window' index --window 1ms "$work/clip.mp4"
expect 2 '--to' index --from 10 --to 5 "$work/clip.mp4"
expect 2 '--device' index --device toaster "$work/clip.mp4"
expect 17 'cuda' index --device cuda:9 "$work/clip.mp4"

# --- Media
expect 3 'no-such-file' index "$work/no-such-file.mp4"
expect 3 'folder\|directory' index "$work"
: >"$work/empty.mp4"
expect 4 'empty' index "$work/empty.mp4"
cp "$SRCDIR/README.md" "$work/text.mp4"
expect 5 'text.mp4' index "$work/text.mp4"
size=$(wc -c <"$clip")
head -c $((size / 2)) "$clip" >"$work/cut.mp4"
"$scenelog" index --progress=none -d "$work/cut.db" -m "$model" "$work/cut.mp4" >"$work/out" 2>"$work/err"
[ $? = 7 ] || { echo "FAILED: a truncated file: wanted exit 7, got:" && cat "$work/err" && failed=1; }
# A WAV file by hand: 8 samples of silence. It has no video stream.
printf 'RIFF\064\000\000\000WAVEfmt \020\000\000\000\001\000\001\000\100\037\000\000\200\076\000\000\002\000\020\000data\020\000\000\000' >"$work/audio.wav"
head -c 16 /dev/zero >>"$work/audio.wav"
expect 6 'audio.wav' index "$work/audio.wav"

# Of several files each failure is told, and the first one's code remains.
index "$work/empty.mp4" --start-time metadata "$work/no-such-file.mp4" "$work/clip.mp4" >"$work/out" 2>"$work/err"
got=$?
[ $got = 4 ] && grep -q empty "$work/err" && grep -q no-such-file "$work/err" && grep -q 'creation time' "$work/err" ||
    { echo "FAILED: three bad files: exit $got and:" && cat "$work/err" && failed=1; }

# --- Models
expect 8 'config.json' with_model "$work/no-such-model"
broken_model shard && rm "$(ls "$work"/shard/*.safetensors | tail -n 1)"
expect 8 'safetensors' with_model "$work/shard"
broken_model header
first=$(ls "$work"/header/*.safetensors | head -n 1)
{ printf '\377\377\377\377\377\000\000\000' && tail -c +9 "$model/$(basename "$first")"; } >"$first"
expect 9 'header' with_model "$work/header"
broken_model shape && sed -i 's/"intermediate_size": *\([0-9]*\)/"intermediate_size": 1\1/' "$work/shape/config.json"
expect 10 'shape\|\[' with_model "$work/shape"
broken_model key && sed -i 's/"num_key_value_heads"/"num_key_value_hats"/' "$work/key/config.json"
expect 11 'num_key_value_heads' with_model "$work/key"
broken_model special && sed -i 's/|im_start|/|in_start|/g' "$work/special/tokenizer.json"
expect 12 'im_start' with_model "$work/special"

# --- Indexes
cp "$SRCDIR/README.md" "$work/text.db"
expect 14 'text.db' "$scenelog" query -d "$work/text.db"
expect 3 'missing.db' "$scenelog" query -d "$work/missing.db"

exit $failed
