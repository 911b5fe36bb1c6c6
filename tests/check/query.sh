#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `query` and `check` as a person types them, over an index written by hand with the sqlite3 shell from schema.sql: the
# schema is the interface, so what the shell writes scenelog must read.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
command -v sqlite3 >/dev/null || { echo "sqlite3 is not installed" && exit 77; }
scenelog=$BUILD/scenelog
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
db=$work/index.db

# Two files: film.mp4, 20 s, seen wholly; gate.ts, 20 s from 2026-03-01T12:00:00Z, of which 10 s were seen.
sqlite3 "$db" >/dev/null <<SQL || exit 1
.read $SRCDIR/db/schema.sql
PRAGMA application_id = 0x534c4f47; PRAGMA user_version = 2; PRAGMA journal_mode = WAL;
INSERT INTO source VALUES (1, 'film.mp4'), (2, 'gate');
INSERT INTO media (id, source, path, duration_us) VALUES (1, 1, '/film.mp4', 20000000), (2, 2, '/gate.ts', 20000000);
INSERT INTO segment VALUES (1, 1, 0, 20000000, NULL, 'none', NULL), (2, 2, 0, 20000000, 1772366400000000, 'user', NULL);
INSERT INTO task VALUES (1, 'what?', 1000000);
INSERT INTO model VALUES (1, 'demo', '00');
INSERT INTO run VALUES (1, '0', 'here', '', 0, 0, 0);
INSERT INTO claim (source, task, answered_us) VALUES (1, 1, 1), (2, 1, 1);
INSERT INTO window VALUES (1, 1, 1, 1, 1, 0, 20000000, 'done', NULL, 40, 0, 9, 9, 9, NULL, 0),
                          (2, 2, 1, 1, 1, 0, 10000000, 'done', NULL, 20, 0, 9, 9, 9, NULL, 0);
INSERT INTO answer VALUES (1, 1, 1, 1, 0, 20000000), (2, 2, 1, 2, 0, 10000000);
INSERT INTO piece VALUES (1, 1, 2000000, 5000000, 'A red circle appears.', 1, 0.5),
                         (2, 1, 5000000, 12500000, '红灯亮了', 2, NULL),
                         (3, 1, 15000000, 16000000, 'The circle turns blue.', 3, 0.25),
                         (4, 2, 1000000, 2000000, 'A car passes.', 4, NULL);
INSERT INTO event (id, segment, task, start_us, end_us, text, words, text_key, confidence, model, open, span_class)
    SELECT piece.id, segment, task, piece.start_us, piece.end_us, text, CASE piece.id WHEN 2 THEN '红 灯 亮 了' END,
        text_key, confidence, model, 0, 0 FROM piece JOIN window ON window.id = window;
INSERT INTO part SELECT window, id, id FROM piece;
SQL

# expect CODE OUTPUT ARGUMENTS...: the exit code and what is printed, columns of the table squeezed, lines joined by |.
expect() {
    code=$1 output=$2
    shift 2
    "$scenelog" "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    printed=$(tr -d '\r' <"$work/out" | tr -s ' ' | tr '\n' '|')
    if [ $got != "$code" ] || [ "$printed" != "$output" ]; then
        echo "FAILED: $*: wanted exit $code and '$output', got exit $got and '$printed' $(cat "$work/err")"
        failed=1
    fi
}
# refuse CODE WORDS ARGUMENTS...: the exit code, one line on standard error with WORDS, nothing printed.
refuse() {
    code=$1 words=$2
    shift 2
    "$scenelog" "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    if [ $got != "$code" ] || [ -s "$work/out" ] || [ "$(wc -l <"$work/err")" != 1 ] || ! grep -q -- "$words" "$work/err"; then
        echo "FAILED: $*: wanted exit $code and '$words', got exit $got and: $(cat "$work/err" "$work/out")"
        failed=1
    fi
}

export TZ=UTC
head='START END SOURCE EVENT'
red='00:00:02.000 00:00:05.000 film.mp4 A red circle appears.'
light='00:00:05.000 00:00:12.500 film.mp4 红灯亮了'
blue='00:00:15.000 00:00:16.000 film.mp4 The circle turns blue.'
film="--source film*"
# shellcheck disable=SC2086 # $film is two words
{
    expect 0 "$head|$red|$light|$blue|" query -d "$db" $film
    expect 0 "$head|$light|" query -d "$db" $film --from 10 --to 15
    expect 0 "$head|$red|" query -d "$db" $film --to 0:05
    expect 0 "$head|$red|$blue|" query -d "$db" $film circle
    expect 0 "$head|$blue|" query -d "$db" $film --from 10s circles
    expect 0 "$head|$light|" query -d "$db" 红灯
    expect 0 '' query -d "$db" $film square
    expect 0 '' query -d "$db" $film --task 2
    expect 0 "1|00:00:15,000 --> 00:00:16,000|The circle turns blue.||" query -d "$db" $film --format srt blue
    expect 0 'WEBVTT||' query -d "$db" --format vtt square
}
expect 0 'START END WALL SOURCE EVENT|00:00:01.000 00:00:02.000 2026-03-01T13:00:01.000+01:00 gate A car passes.|' \
    query -d "$db" --from 2026-03-01T12:00:01Z --to '2026-03-01 13:00:02' --tz Europe/Zurich
expect 0 '' query -d "$db" --from 2026-03-01T12:00:02Z
(export SCENELOG_INDEX="$db" && expect 0 "$head|$red|" query red && exit $failed) || failed=1
(cd "$work" && cp index.db scenelog.db && expect 0 "$head|$red|" query red && exit $failed) || failed=1
if command -v jq >/dev/null; then
    got=$("$scenelog" query -d "$db" --format jsonl | jq -r '[.id, .start_us, .end, .confidence, .wall_start] | @json' | tail -n 2)
    [ "$got" = '[3,15000000,"00:00:16.000",0.25,null]
[4,1000000,"00:00:02.000",null,"2026-03-01T12:00:01.000+00:00"]' ] || { echo "FAILED: jsonl gave $got" && failed=1; }
fi

refuse 2 'several\|choose' query -d "$db" --format srt
refuse 2 'later' query -d "$db" --from 5 --to 5
refuse 2 'both' query -d "$db" --from 5 --to 2026-03-01
refuse 2 'xml' query -d "$db" --format xml
refuse 2 'limit' query -d "$db" --limit -1
refuse 2 'no such option' query -d "$db" --frobnicate
refuse 2 'needs a value' query -d "$db" --from
refuse 2 'letter' query -d "$db" '?!'
refuse 3 'missing.db' query -d "$work/missing.db"
refuse 3 'missing.db' check "$work/missing.db"
[ -e "$work/missing.db" ] && echo 'FAILED: asking made an index' && failed=1
refuse 14 'not a database' query -d "$SRCDIR/README.md"
refuse 2 'one index' check "$db" "$db"

film_seen='source "film.mp4", task 1 (newest): 1 windows done, 0 failed, 0 dropped; 3 events| /film.mp4| 00:00:00.000 00:00:20.000 seen| seen 100.00 %|'
expect 1 "$film_seen"'source "gate", task 1 (newest): 1 windows done, 0 failed, 0 dropped; 1 events| /gate.ts| 00:00:00.000 00:00:10.000 seen| 00:00:10.000 00:00:20.000 never looked at| seen 50.00 %, never looked at 10.000 s|' \
    check "$db"
grep -q '^scenelog: .*1 spans' "$work/err" || { echo "FAILED: check said $(cat "$work/err")" && failed=1; }
sqlite3 "$db" 'PRAGMA foreign_keys = 1; DELETE FROM source WHERE id = 2'
expect 0 "${film_seen}whole: no faults, everything was seen|" check "$db"
sqlite3 "$db" "UPDATE event SET text = 'changed' WHERE id = 1"
expect 1 "fault: segment 1, task 1: 1 differences between events and pieces|$film_seen" check "$db"
sqlite3 "$db" 'PRAGMA user_version = 3'
refuse 13 'newer' query -d "$db"

exit $failed
