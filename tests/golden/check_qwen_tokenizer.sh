#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Holds the tokenizer against Qwen's full vocabulary, which the package dashscope carries as qwen.tiktoken; nothing of
# it stays. Usage: check_qwen_tokenizer.sh TEST_TOKENIZER [VECTORS], the built test program and, if at hand,
# llama.cpp's vectors (qwen2 for qwen2.inp and qwen2.out). PYTHON needs tokenizers. 77: could not run.
set -u
here=$(cd "$(dirname "$0")" && pwd)
test=$1
python=${PYTHON:-python3}
folder=$(mktemp -d) || exit 77
trap 'rm -rf "$folder"' EXIT

if ! "$python" -c 'import tokenizers' 2>/dev/null; then
    echo "SKIPPED: $python has no tokenizers; the full vocabulary was NOT checked" >&2
    exit 77
fi
if ! "$python" -m pip download --quiet --no-deps --dest "$folder" dashscope >/dev/null 2>&1 ||
    ! "$python" -m zipfile -e "$folder"/dashscope-*.whl "$folder/wheel" ||
    ! [ -f "$folder/wheel/dashscope/resources/qwen.tiktoken" ]; then
    echo "SKIPPED: no dashscope with qwen.tiktoken; the full vocabulary was NOT checked" >&2
    exit 77
fi
"$python" "$here/make_qwen_tokenizer.py" "$folder/wheel/dashscope/resources/qwen.tiktoken" "$folder/qwen" \
    ${2:+"$2"} || exit 1
SRCDIR=$(dirname "$(dirname "$here")") QWEN_TOKENIZER=$folder/qwen "$test"
