// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "src/commands.h"
#include "src/options.h"

static const char overview[] =
    "scenelog turns video into a queryable record: what happened, and when.\n"
    "\n"
    "  scenelog index [OPTIONS] FILE...      look at videos, write events into the index\n"
    "  scenelog watch [OPTIONS] URL...       follow cameras, write events as they happen\n"
    "  scenelog query [OPTIONS] [WORDS...]   events by time range and by words\n"
    "  scenelog check INDEX                  is the index whole, and what was looked at\n"
    "  scenelog info FILE|INDEX|MODEL_DIR    what a file, an index or a model is\n"
    "  scenelog bench [OPTIONS]              how fast a model runs on this machine\n"
    "  scenelog --version                    versions, of the libraries too\n"
    "  scenelog help COMMAND                 more about a command\n"
    "\n"
    "Times: 90, 1:30, 01:02:03.250, 2500ms, 2h30m (media time); 2026-03-01T12:00:00+01:00 (absolute).\n"
    "Index: -d, else $SCENELOG_INDEX, else ./scenelog.db. Model: -m, else $SCENELOG_MODEL, else the demo model.\n"
    "Results go to standard output, everything else to standard error. Exit codes: see 'scenelog help exit'.\n";

static const char help_index[] =
    "scenelog index [OPTIONS] FILE...\n"
    "\n"
    "Looks at each video and writes what happens into the index. Run again, it goes on where it stopped; what is done\n"
    "is not done again, failed windows are. Ctrl-C keeps what is finished; a second one aborts.\n"
    "\n"
    "What to read and where to write\n"
    "  -m, --model DIR            a Qwen3-VL checkpoint, as Hugging Face lays it out\n"
    "  -d, --index FILE           the index; made if there is none\n"
    "      --name NAME            the source that the files belong to (default: each file's name)\n"
    "      --from T, --to T       only this span of media time\n"
    "      --start-time TIME      wall time at media time 0 (2026-03-01T12:00:00Z), for one file; or 'metadata': the\n"
    "                             creation time that the file states\n"
    "      --force                do again what is done\n"
    "\n"
    "What to ask (a change of these is another task, which stands beside the first)\n"
    "      --fps RATE             frames looked at in a second (2); also 0.5, 30000/1001\n"
    "      --window T             how much the model sees at once (30 s)\n"
    "      --max-tokens-per-pair N   visual tokens of two frames, at most (the model's own, up to 768)\n"
    "      --prompt TEXT          the request, instead of the built-in one; the form of the answer is kept\n"
    "      --prompt-file FILE     the same from a file\n"
    "\n"
    "How to run it\n"
    "      --temperature X        0: always the likeliest word (default); above: drawn, with the model's own top-k, "
    "top-p\n"
    "      --seed N               for temperatures above 0\n"
    "      --deterministic        one window at a time: the same rows whenever it is run\n"
    "      --device D             auto, cpu, cuda or cuda:N\n"
    "      --threads N            CPU threads (all cores)\n"
    "      --progress FORM        auto, plain, json or none; on standard error\n";

static const char help_watch[] =
    "scenelog watch [OPTIONS] URL...\n"
    "\n"
    "Follows live sources until it is stopped (Ctrl-C, SIGTERM): RTSP, HLS, MJPEG over HTTP; a file is played at its\n"
    "own pace. Connects again for ever. What could not be seen is in the index, with its cause: 'scenelog check'.\n"
    "\n"
    "Sources\n"
    "  URL                        rtsp://user:password@host/path, http://..., file:PATH; env:NAME: in that variable\n"
    "      --url-file FILE        a line for each source: URL [name=NAME] [profile=FILE]; passwords stay out of sight\n"
    "      --name NAME            of the first URL; again: of the next (default: the host)\n"
    "      --profile FILE         what it is asked and what of it is told; again: of the next; one alone: of all.\n"
    "                             SIGHUP reads it again\n"
    "      --rtsp-transport T     tcp (default) or udp\n"
    "      --timeout T            longest wait for an answer and for a packet (10 s)\n"
    "\n"
    "Model and request\n"
    "  -m, --model DIR; --window T (10 s); --fps RATE; --max-tokens-per-pair N; --prompt TEXT; --prompt-file FILE;\n"
    "  --device D; --threads N    as for 'scenelog index'\n"
    "\n"
    "Index\n"
    "  -d, --index FILE           the index; made if there is none\n"
    "      --keep AGE             forget what is older: 12h, 30d, 8w\n"
    "      --max-size SIZE        and the oldest beyond this size of the file: 500M, 2G\n"
    "\n"
    "Telling\n"
    "      --jsonl                each event's start, updates and end on standard output, one JSON object a line\n"
    "      --on-event CMD|URL     run a command with the JSON on its standard input, or post it to an http(s) URL\n"
    "      --on-event-timeout T   longest wait for it (10 s); three attempts; at most 5 a second after 20 at once\n"
    "      --mqtt URL             mqtt://[user:password@]host[:port][/prefix]\n"
    "      --metrics ADDRESS      figures for Prometheus, such as 127.0.0.1:9100\n"
    "\n"
    "Profile, \"key = value\" lines: prompt, prompt-file, context, language, fps, window, max-tokens-per-pair;\n"
    "words (tell only events with one of them), min-length, cool-down.\n";

static const char help_query[] =
    "scenelog query [OPTIONS] [WORDS...]\n"
    "\n"
    "Prints every event that overlaps [from, to) and holds all the words, in the order of time.\n"
    "\n"
    "  -d, --index FILE           the index\n"
    "      --from T, --to T       media time, or absolute times where the source has wall time\n"
    "      --source GLOB          only sources whose name matches\n"
    "      --task ID              answers to this task (default: each source's newest; see 'scenelog check')\n"
    "      --limit N              at most N events; 0: all\n"
    "      --format F             table, jsonl, csv, srt, vtt or chapters\n"
    "      --tz ZONE              time zone of absolute times, such as Europe/Zurich\n";

static const char help_check[] =
    "scenelog check [OPTIONS] INDEX\n"
    "\n"
    "Is the file whole, do the events follow from the answers, and which spans of each source were seen, failed, or\n"
    "never looked at. Exit code 0: all whole and seen; 1: see the output.\n"
    "\n"
    "      --json                 for programs\n";

static const char help_info[] =
    "scenelog info FILE|INDEX|MODEL_DIR\n"
    "\n"
    "A video: container, codec, size, length. An index: how much is in it. A model folder: its shapes and identity.\n";

static const char help_bench[] =
    "scenelog bench [OPTIONS]\n"
    "\n"
    "Measures a model on this machine, as ratios to what the machine can do: prefill against a matrix product of the\n"
    "same kind, decoding against the memory's read rate, the vision tower likewise.\n"
    "\n"
    "  -m, --model DIR            a checkpoint\n"
    "      --config FILE --random a config.json alone, with random weights of its shapes\n"
    "      --threads N            CPU threads (all cores)\n"
    "      --json                 for programs\n";

static const char help_exit[] =
    "Exit codes\n"
    "    0  success                            11  config.json lacks or says something unknown\n"
    "    1  finished, but windows failed,      12  tokenizer.json is unusable\n"
    "       or check found faults              13  index of a newer scenelog\n"
    "    2  impossible option or value         14  not an index, or damaged\n"
    "    3  missing or unreadable path         15  disk full\n"
    "    4  empty file                         16  another process works on this source and task\n"
    "    5  not a video                        17  device not usable\n"
    "    6  no video stream                    18  out of memory\n"
    "    7  file cut short or damaged          19  reading or writing failed\n"
    "    8  model file or shard missing        20  a fault of scenelog itself\n"
    "    9  safetensors header malformed      130  interrupted\n"
    "   10  tensor missing or of wrong shape\n";

int sl_cmd_help(int argc, char **argv)
{
    static const struct {
        const char *name, *text;
    } topics[] = {{"index", help_index}, {"watch", help_watch}, {"query", help_query}, {"check", help_check},
                  {"info", help_info},   {"bench", help_bench}, {"exit", help_exit}};
    if (argc < 2) {
        fputs(overview, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (strcmp(argv[1], topics[i].name) == 0) {
            fputs(topics[i].text, stdout);
            return 0;
        }
    }
    struct sl_error error;
    sl_fail(&error, SL_ERR_USAGE, "help %s: no such topic; see 'scenelog help'", argv[1]);
    return sl_report(&error);
}
