#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What one expects of a command: --help after a command's name, JSON progress of nothing but JSON, a file name that
# cannot break the line, an end by Ctrl-C that the same command goes on from.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
scenelog=$BUILD/scenelog
SCENELOG_MODEL=$SRCDIR/samples/demo-model
export SCENELOG_MODEL
clip=$(ls "$SRCDIR"/samples/clips/*.mp4 | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
    echo "FAILED: $*"
    failed=1
}

for command in index query check info bench; do
    "$scenelog" $command --help >"$work/a" 2>&1 || fail "$command --help: exit code $?"
    "$scenelog" help $command | cmp -s - "$work/a" || fail "$command --help is not help $command"
done

"$scenelog" index --prompt '' "$clip" 2>"$work/err"
[ $? = 2 ] || fail 'an empty prompt was taken'

SCENELOG_MODEL='' "$scenelog" index -m "$work/none" -d "$work/x.db" "$clip" 2>"$work/err"
grep -q 'SCENELOG_MODEL' "$work/err" && fail 'a model that was named is not a missing default'

# JSON alone, the error that ends the run too.
: >"$work/empty.mp4"
"$scenelog" index --progress=json --to 5 -d "$work/x.db" "$clip" "$work/empty.mp4" 2>"$work/err"
[ $? = 4 ] || fail 'an empty file behind a good one: exit code'
grep -qv '^{.*}$' "$work/err" && fail 'JSON progress has lines that are not JSON'
grep -q '"state":"error"' "$work/err" || fail 'JSON progress does not say the error'

name=$(printf 'new\nline.mp4')
cp "$clip" "$work/$name"
"$scenelog" index --to 5 --force -d "$work/x.db" "$work/$name" 2>"$work/err"
[ "$(wc -l <"$work/err")" = 1 ] || fail 'a file name with a newline breaks the progress line'

# Ctrl-C: 130, what is done is kept, and the next run does the rest.
"$scenelog" index --progress=json --window 3 -d "$work/y.db" "$clip" 2>"$work/err" &
pid=$!
sleep 1
kill -INT $pid 2>/dev/null
wait $pid
code=$?
if [ $code != 0 ]; then # 0: the machine was faster
    [ $code = 130 ] || fail "after Ctrl-C the exit code is $code"
    "$scenelog" index --progress=none --window 3 -d "$work/y.db" "$clip" || fail 'the run after Ctrl-C'
fi
"$scenelog" check "$work/y.db" >"$work/out" 2>&1 || fail "check after Ctrl-C: $(cat "$work/out")"
exit $failed
