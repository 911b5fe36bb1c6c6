#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# --skip-still: what stays still is left out and counted, what moves is not, and coverage is whole in either case.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
scenelog=${BUILD:?}/scenelog
demo=$(ls "${SRCDIR:?}"/samples/clips/*.mp4 | head -n 1)
command -v ffmpeg >/dev/null || { echo "ffmpeg is not installed" && exit 77; }
command -v sqlite3 >/dev/null || { echo "sqlite3 is not installed" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
    echo "FAILED: $*"
    failed=1
}

ffmpeg -v error -i "$demo" -frames:v 1 "$work/one.png" </dev/null || exit 1
ffmpeg -v error -loop 1 -framerate 10 -t 20 -i "$work/one.png" -pix_fmt yuv420p "$work/still.mp4" </dev/null || exit 1
ffmpeg -v error -f lavfi -i "testsrc2=duration=20:size=192x128:rate=10" -pix_fmt yuv420p "$work/moving.mp4" </dev/null ||
    exit 1

index() { # index NAME CLIP OPTION...
    name=$1 clip=$2
    shift 2
    "$scenelog" index --progress=none --deterministic --window 10 -m "$SRCDIR/samples/demo-model" -d "$work/$name.db" \
        "$@" "$clip" || fail "index $name: exit code $?"
}
whole() {
    "$scenelog" check "$work/$1.db" >"$work/out" 2>&1 || fail "check $1: $(cat "$work/out")"
}
rows() { # everything that does not name a moment of the run
    sqlite3 "$1" "SELECT window.start_us, window.end_us, state, frames_seen, pairs_skipped, prompt_tokens,
        generated_tokens, piece.start_us, piece.end_us, text, confidence
        FROM window LEFT JOIN piece ON piece.window = window.id ORDER BY window.start_us, piece.start_us, text"
}
windows() {
    sqlite3 "$1" "SELECT start_us, end_us, state, frames_seen, pairs_skipped FROM window ORDER BY start_us"
}
same() {
    [ "$2" = "$3" ] || fail "$1: '$2' is not '$3'"
}

# Ten pairs a window, of which the first and the last are shown.
index still "$work/still.mp4" --skip-still auto
whole still
same 'a still clip' "$(windows "$work/still.db")" "0|10000000|done|20|8
10000000|20000000|done|20|8"

# Nothing left out of what moves: the rows are those of a run that does not look.
index moving "$work/moving.mp4" --skip-still 1.5
whole moving
index plain "$work/moving.mp4"
same 'a moving clip' "$(rows "$work/moving.db")" "$(rows "$work/plain.db")"

# Off is the default, and the same task: nothing is left to do.
index demo "$demo" --to 20
rows "$work/demo.db" >"$work/before"
[ "$(wc -l <"$work/before")" -gt 2 ] || fail 'no events in the demo clip'
index demo "$demo" --to 20 --skip-still off
same 'tasks without and off' "$(sqlite3 "$work/demo.db" 'SELECT count(*) FROM task')" 1
index off "$demo" --to 20 --skip-still off
same 'off' "$(rows "$work/off.db")" "$(cat "$work/before")"
index demo "$demo" --to 20 --skip-still auto
same 'tasks with auto' "$(sqlite3 "$work/demo.db" 'SELECT count(*) FROM task')" 2

for level in '' 300 -1 some; do
    "$scenelog" index --skip-still "$level" "$demo" 2>"$work/err"
    [ $? = 2 ] || fail "--skip-still '$level' was taken"
    grep -q 'skip-still' "$work/err" || fail "--skip-still '$level': $(cat "$work/err")"
done
exit $failed
