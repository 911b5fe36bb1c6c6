#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Indexing killed at random moments and resumed must end in the same rows as an unbroken run: with --deterministic
# the same windows, pieces and events; without it the same windows and coverage.
#   kill_resume.sh KILLS [SEED]     environment: BUILD, SRCDIR; needs sqlite3
set -u
: "${BUILD:?}" "${SRCDIR:?}"
kills=${1:?} seed=${2:-1}
command -v sqlite3 >/dev/null || { echo "sqlite3 is not installed" && exit 77; }
scenelog=$BUILD/scenelog
model=$SRCDIR/samples/demo-model
clip=$(ls -S "$SRCDIR"/samples/clips/*.mp4 | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Rows under natural keys: no ids, no clock of ours.
dump() {
    sqlite3 "$1" "SELECT 'window', start_us, end_us, state, frames_seen FROM window ORDER BY start_us, end_us"
    [ "$2" = windows ] && return
    sqlite3 "$1" "SELECT 'piece', w.start_us, p.start_us, p.end_us, p.text, p.confidence FROM piece p
                  JOIN window w ON w.id = p.window ORDER BY w.start_us, p.start_us, p.end_us, p.text"
    "$scenelog" query -d "$1" --limit 0 --format csv | cut -d, -f2- | sort
}
# index DB EXTRA...
index() {
    db=$1
    shift
    "$scenelog" index --progress=none -m "$model" -d "$db" --window 10 "$@" "$clip"
}

check() { # check NAME EXTRA...: an unbroken run against one that is killed again and again
    name=$1
    shift
    begin=$(date +%s%N)
    index "$work/whole-$name.db" "$@" || exit 1
    millis=$((($(date +%s%N) - begin) / 1000000))
    done_kills=0
    rounds=0
    while [ $done_kills -lt "$kills" ]; do
        broken=$work/broken-$name-$rounds.db
        rounds=$((rounds + 1))
        while :; do
            # The victim must be scenelog itself, not a shell around it.
            "$scenelog" index --progress=none -m "$model" -d "$broken" --window 10 "$@" "$clip" 2>"$work/err" &
            victim=$!
            seed=$(((seed * 1103515245 + 12345) % 2147483648))
            pause=$((seed / 65536 % (millis + 50)))
            sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
            if kill -9 $victim 2>/dev/null; then
                wait $victim 2>/dev/null
                [ $? = 0 ] && break
                done_kills=$((done_kills + 1))
                [ $done_kills -ge "$kills" ] && index "$broken" "$@" && break
            else
                wait $victim || { cat "$work/err" && exit 1; }
                break
            fi
        done
        what=all
        [ "$name" = batched ] && what=windows
        dump "$work/whole-$name.db" $what >"$work/whole.txt"
        dump "$broken" $what >"$work/broken.txt"
        if ! diff "$work/whole.txt" "$work/broken.txt"; then
            echo "FAILED: $name, round $rounds: rows differ after $done_kills kills"
            exit 1
        fi
        "$scenelog" check "$broken" >"$work/check.txt" || { cat "$work/check.txt" && exit 1; }
    done
    echo "$name: $done_kills kills in $rounds rounds of $millis ms, $(wc -l <"$work/whole.txt") rows equal"
}
check deterministic --deterministic
check batched
