#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two models in one process: the demo model, and a small mixture of experts of tests/golden/ whose random weights say
# nothing sensible. Who was asked is in the index; so is every moment, once.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
command -v sqlite3 >/dev/null || { echo "sqlite3 is not installed" && exit 77; }
scenelog=$BUILD/scenelog
golden=$SRCDIR/tests/golden/data
clips=$SRCDIR/samples/clips
device=${DEVICE:-cpu}
fast=$SRCDIR/samples/demo-model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
mkdir "$work/moe"
cp "$golden"/moe-published/*.* "$golden/tokenizer/tokenizer.json" "$work/moe"
cp -R "$fast" "$work/twin" # sees pictures as the demo model does

fail() {
    echo "FAILED: $1"
    shift
    cat "$@"
    failed=1
}
index() { # index INDEX ARGUMENTS...
    db=$work/$1
    shift
    "$scenelog" index --progress=none --device "$device" --max-tokens-per-pair 20 -d "$db" "$@" >"$work/out" 2>"$work/err"
}
# asked INDEX WANTED: "SOURCE MODEL WINDOWS" of all done windows, joined by |.
asked() {
    got=$(sqlite3 -separator ' ' "$work/$1" "SELECT source.name, model.name, count(*) FROM window
        JOIN model ON model.id = window.model JOIN segment ON segment.id = window.segment
        JOIN media ON media.id = segment.media JOIN source ON source.id = media.source
        WHERE state = 'done' GROUP BY 1, 2 ORDER BY 1, 2" | tr '\n' '|')
    [ "$got" = "$2" ] || fail "$1: wanted '$2', got '$got'" "$work/err"
}
# sound INDEX: no faults; the windows end where they should, nothing is twice.
sound() {
    "$scenelog" check "$work/$1" >"$work/out" 2>"$work/err" || grep -q ' 0 faults' "$work/err" ||
        fail "$1: check" "$work/out" "$work/err"
    twice=$(sqlite3 "$work/$1" "SELECT count(*) FROM window a JOIN window b ON a.segment = b.segment AND a.id < b.id
        AND a.task = b.task AND a.start_us < b.end_us AND b.start_us < a.end_us")
    [ "$twice" = 0 ] || fail "$1: $twice spans were asked twice"
}
said() { # said LINES WORDS: on standard error
    [ "$(wc -l <"$work/err")" = "$1" ] && grep -q -- "$2" "$work/err" || fail "wanted $1 line with '$2', got:" "$work/err"
}

# By name; and each event's model is the one of the windows that it was read from.
index name.db --deterministic --window 10 --to 20 --model "fast=$fast" --model "deep=$work/moe" \
    --route 'even*=deep,file=fast' "$clips/morning.mp4" "$clips/evening.mp4" || fail "by name" "$work/err"
asked name.db 'evening.mp4 moe 2|morning.mp4 demo-model 2|'
sound name.db
for pair in morning:demo-model evening:moe; do
    "$scenelog" query -d "$work/name.db" --source "${pair%:*}*" --format jsonl >"$work/events"
    [ -s "$work/events" ] && ! grep -v "\"model\":\"${pair#*:}\"" "$work/events" || fail "events of $pair" "$work/events"
done
"$scenelog" info "$work/name.db" >"$work/out"
grep -q '^model  *demo-model (.*): 2 windows done, 0 failed, 0 dropped; [1-9]' "$work/out" &&
    grep -q '^model  *moe (.*): 2 windows done, 0 failed, 0 dropped; [1-9]' "$work/out" || fail "info" "$work/out"
# Another way for what is done is no reason to do it again; what is not done goes the new way.
index name.db --deterministic --window 10 --model "fast=$fast" --model "deep=$work/moe" \
    --route 'live=fast,file=deep' "$clips/morning.mp4" || fail "the other way" "$work/err"
asked name.db 'evening.mp4 moe 2|morning.mp4 demo-model 2|morning.mp4 moe 4|'
sound name.db
# A part that somebody waits for; and the model that nobody needs is not even looked for.
index part.db --window 10 --to 10 --model "fast=$fast" --model "deep=$work/none" --route 'part=fast,file=deep' \
    "$clips/morning.mp4" || fail "a part" "$work/err"
asked part.db 'morning.mp4 demo-model 1|'

# Missing: another stands in, with one line; where none may, it is the error of that model.
index missing.db --window 10 --to 10 --model "fast=$fast" --model "deep=$work/none" \
    --route 'live=fast,file=deep else if missing fast' "$clips/morning.mp4" || fail "missing" "$work/err"
said 1 'model deep is missing'
asked missing.db 'morning.mp4 demo-model 1|'
index none.db --model "fast=$fast" --model "deep=$work/none" --route 'live=fast,file=deep' "$clips/morning.mp4"
[ $? = 8 ] || fail "wanted exit 8" "$work/err"
said 1 'model deep: '
index none.db --model "fast=$work/none" --model "deep=$work/none" --route 'file=deep else fast' "$clips/morning.mp4"
[ $? = 8 ] || fail "both missing: wanted exit 8" "$work/err"
index none.db --model "fast=$fast" --model "deep=$work/none" --route 'file=deep else if busy fast' "$clips/morning.mp4"
[ $? = 8 ] || fail "missing and only for busy: wanted exit 8" "$work/err"

# Busy: reading is faster than the model on a CPU, so the other gets some; all is there, once.
index busy.db --window 3 --model "fast=$fast" --model "deep=$work/twin" --route 'file=fast else deep' \
    "$clips/morning.mp4" || fail "busy" "$work/err"
sound busy.db
both=$(sqlite3 "$work/busy.db" "SELECT count(DISTINCT model), count(*), sum(end_us - start_us) FROM window")
[ "$both" = '2|20|60000000' ] || { [ "$device" != cpu ] && [ "$both" = '1|20|60000000' ]; } ||
    fail "busy: wanted 2 models, 20 windows, 60 s; got $both"

# Refused: exit 2, one line.
refused() { # refused WORDS ARGUMENTS...
    words=$1
    shift
    index refused.db --model "fast=$fast" "$@" "$clips/morning.mp4"
    [ $? = 2 ] || fail "$*: wanted exit 2" "$work/err"
    said 1 "$words"
}
refused 'several models and no --route' --model "deep=$work/moe"
refused 'is no rule' --model "deep=$work/moe" --route deep
refused 'no --model is called "slow"' --model "deep=$work/moe" --route 'file=deep,live=slow'
refused 'no rule names the model "deep"' --model "deep=$work/moe" --route 'file=fast'
refused 'two models are called "fast"' --model "fast=$work/moe"
refused 'needs a name' --model "$work/moe"
refused 'else if missing' --model "deep=$work/twin" --route 'file=deep else fast' --deterministic
refused 'pictures of different sizes' --model "deep=$work/moe" --route 'file=deep else fast'

# Watching: of two sources, each played from a file, one goes by name.
timeout --preserve-status -s TERM 7 "$scenelog" watch --device "$device" --max-tokens-per-pair 20 --window 2 -d "$work/watch.db" --name gate \
    --name yard --model "fast=$fast" --model "deep=$work/moe" --route 'live=fast,gate=fast,file=deep' \
    "file:$clips/morning.mp4" "file:$clips/evening.mp4" 2>"$work/err" || fail "watch: exit status $?" "$work/err"
got=$(sqlite3 -separator ' ' "$work/watch.db" "SELECT DISTINCT source.name, model.name FROM window
    JOIN model ON model.id = window.model JOIN segment ON segment.id = window.segment
    JOIN media ON media.id = segment.media JOIN source ON source.id = media.source ORDER BY 1" | tr '\n' '|')
[ "$got" = 'gate demo-model|yard moe|' ] || fail "watch: got '$got'" "$work/err"
[ "$(sqlite3 "$work/watch.db" "SELECT count(*) >= 2 FROM window WHERE state = 'done'")" = 1 ] || fail "watch: no windows"
sound watch.db

# Six windows are full at the same moment, four are what one model takes at once: the other gets some.
morning=file:$clips/morning.mp4 evening=file:$clips/evening.mp4
timeout --preserve-status -s TERM 5 "$scenelog" watch --device "$device" --max-tokens-per-pair 60 --window 1 -d "$work/crowd.db" --name a \
    --name b --name c --name d --name e --name f --model "fast=$fast" --model "deep=$work/twin" \
    --route 'live=deep,[a-f]=fast else deep' "$morning" "$evening" "$morning" "$evening" "$morning" "$evening" \
    2>"$work/err" || fail "watch of six: exit status $?" "$work/err"
[ "$(sqlite3 "$work/crowd.db" "SELECT count(DISTINCT model) FROM window WHERE state = 'done'")" = 2 ] ||
    [ "$device" != cpu ] || fail "watch: a busy model's windows found no other" "$work/err"
sound crowd.db
exit $failed
