#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Mixture-of-experts and FP8 checkpoints through the whole program. The small models of tests/golden/ have random
# weights and say nothing sensible, but the grammar makes well-formed answers of it.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
scenelog=$BUILD/scenelog
golden=$SRCDIR/tests/golden/data
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
clip=$(ls "$SRCDIR"/samples/clips/*.mp4 | head -n 1)

fail() {
    echo "FAILED: $1"
    shift
    cat "$@"
    failed=1
}
model() { # model NAME FOLDER: a whole checkpoint
    mkdir "$work/$2" && cp "$golden/$1"/*.* "$golden/tokenizer/tokenizer.json" "$work/$2" && chmod -R u+w "$work/$2"
}
index() { # index FOLDER INDEX
    "$scenelog" index --progress=none --deterministic --max-tokens-per-pair 20 --window 10 --to 20 --name clip \
        -m "$work/$1" -d "$work/$2" "$clip" >"$work/out" 2>"$work/err"
}
# expect CODE WORDS FOLDER: indexing with that model ends so, with one line that holds WORDS.
expect() {
    index "$3" x.db
    got=$?
    [ $got = "$1" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q -- "$2" "$work/err" ||
        fail "$3: wanted exit $1 and one line with '$2', got exit $got and:" "$work/err"
}

for name in moe-published moe-turned moe-separate fp8 fp8-moe; do
    model $name $name
    index $name $name.db || fail "$name: index" "$work/err"
    "$scenelog" check -d "$work/$name.db" >"$work/out" 2>"$work/err"
    grep -q '2 windows done, 0 failed' "$work/out" && grep -q ' 0 faults' "$work/err" ||
        fail "$name: check" "$work/out" "$work/err"
    index $name again.db
    for db in $name again; do
        "$scenelog" query -d "$work/$db.db" --format jsonl >"$work/$db.events" 2>"$work/err" ||
            fail "$name: query" "$work/err"
    done
    cmp -s "$work/$name.events" "$work/again.events" || fail "$name: two runs differ" "$work/$name.events"
    rm -f "$work"/again.*
done
# Random weights have much to say, if not all of them.
[ -s "$work/moe-published.events" ] || fail "no event at all"

"$scenelog" info "$work/moe-turned" >"$work/out"
grep -q '^experts    6, 2 of them for a token, MLP 56, in 1 of 5 layers' "$work/out" &&
    grep -q 'MLP 72, vocabulary' "$work/out" || fail "info: experts" "$work/out"
"$scenelog" info "$work/fp8" >"$work/out"
grep -q '^quantised  FP8' "$work/out" || fail "info: FP8" "$work/out"

model moe-published count && sed -i 's/"num_experts": 8/"num_experts": 16/' "$work/count/config.json"
expect 10 'hold 8 and 8 experts, config.json says 16' count
model fp8-moe scale && sed -i '1s/down_proj_scale_inv/down_proj_scale_out/' "$work/scale/model.safetensors"
expect 10 'experts.down_proj is F8_E4M3, and its scale .*experts.down_proj_scale_inv is missing' scale
model fp8 method && sed -i 's/"quant_method": "fp8"/"quant_method": "awq"/' "$work/method/config.json"
expect 11 'quantization_config.quant_method is "awq"' method

exit $failed
