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
    "      --skip-still LEVEL     auto, off, or how many levels of 255 two pictures may differ to count as the same:\n"
    "                             of frames that stay still the first and the last ones are shown (off)\n"
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
    "      --decoder D            auto, cpu or nvdec; auto: where the model runs\n"
    "      --decode-lanes N[+M]   parts of one file decoded side by side (nvdec 12, cpu 1), and M more on the CPU\n"
    "      --progress FORM        auto, plain, json or none; on standard error\n"
    "\n"
    "Several models\n"
    "      --model NAME=DIR       again for each, four at most\n"
    "      --route RULES          which takes what: see 'scenelog help route'\n";

static const char help_route[] =
    "scenelog index|watch --model NAME=DIR --model NAME=DIR... --route RULES\n"
    "\n"
    "Several models in one process, on one device. Rules are parted by commas and read from left to right; the first\n"
    "that fits a source says which model its windows go to. What no rule fits goes to the first --model.\n"
    "\n"
    "  --route 'live=fast, part=fast, file=deep else fast'\n"
    "\n"
    "A rule is WHERE=MODEL. WHERE is one of\n"
    "  live                       sources that watch follows\n"
    "  file                       files, of index and of watch\n"
    "  part                       files of which --from or --to names a part: somebody waits for it\n"
    "  PATTERN                    of the source's name, such as 'gate-*'; * for all\n"
    "MODEL may be followed by another that stands in:\n"
    "  deep else if missing fast  when deep cannot be opened; said once. Without it that is an error. All of deep's\n"
    "                             windows go to fast then\n"
    "  deep else if busy fast     a full window goes to fast when deep has as many in work as it takes at once, and\n"
    "                             fast has room and no window of its own in work or waiting; both must take pictures\n"
    "                             of the same size, as all published sizes do. Not with --deterministic\n"
    "  deep else fast             both\n"
    "\n"
    "Models that no rule can lead to are not opened. What one model has done is not asked of another, also when rules\n"
    "change (--force does). Each window and event in the index says whose it is: query --format jsonl, info INDEX.\n"
    "On a GPU each model gets an equal share of what the weights leave free, as far as it can use it.\n";

static const char help_watch[] =
    "scenelog watch [OPTIONS] URL...\n"
    "\n"
    "Follows live sources until it is stopped (Ctrl-C, SIGTERM): RTSP, HLS, MJPEG over HTTP, V4L2 devices; a file\n"
    "is played at its own pace. Connects again for ever. What could not be seen is in the index, with its cause:\n"
    "'scenelog check'.\n"
    "\n"
    "Sources\n"
    "  URL                        rtsp://user:password@host/path, http://..., /dev/video0, file:PATH;\n"
    "                             env:NAME: in that variable\n"
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
    "      --model NAME=DIR...; --route RULES   several models: see 'scenelog help route'\n"
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
    "Measures a model on a device, each figure beside what the device reaches alone in the same run: products beside "
    "one\n"
    "matrix product (a CPU's by oneDNN), decoding beside all that it must read at the memory's rate.\n"
    "\n"
    "  -m, --model DIR            a checkpoint\n"
    "      --config FILE --random a config.json alone, with random weights of its shapes\n"
    "      --device D             auto, cpu, cuda or cuda:N\n"
    "      --threads N            CPU threads (all cores)\n"
    "      --repeat N             measurements of each figure (5); median, lowest and highest are told\n"
    "      --json                 for programs\n"
    "\n"
    "What to measure\n"
    "      --only PART,...        load, vision, prefill, decode, answer, chunk (a CPU: the first four)\n"
    "      --size WxH, --pairs N  pictures of the vision tower and of the prompt with pictures (640x352; 64, a CPU 1)\n"
    "      --prompt-tokens N      of the prompt without pictures (4096; a CPU 2048)\n"
    "      --prefill-rows N       prompt tokens of one step (4096; a CPU 2048)\n"
    "      --batch N,...          sequences decoded at once (1,8,32; a CPU 1,4)\n"
    "      --context N            tokens that each has before it (4096; a CPU 512)\n"
    "answer: 512 tokens after one pair of 1920x1080, resizing included. chunk: 40 pairs of 448x448, answers of 1 and "
    "of 100\n"
    "tokens, 1, 4 and 16 at once; a stream is 10 s of video each 10 s.\n"
    "\n"
    "The pipeline\n"
    "      --pipeline FILE        file to index (a temporary one), then each stage alone, and the one that binds\n"
    "      --output-tokens N      of each window's answer, exactly (60)\n"
    "      --window T, --fps RATE, --max-tokens-per-pair N, --from T, --to T, --decoder D,\n"
    "      --decode-lanes N[+M]   as for index\n"
    "      --decode-all           lanes decode pictures that nobody needs, too\n"
    "\n"
    "Two models side by side\n"
    "      --compare A B          checkpoints, or config.json files (random weights): a picture, then an answer, one "
    "at\n"
    "                             a time; each model in a process of its own, the one after the other\n"
    "      --size WxH             of the picture (1920x1080)\n"
    "      --output-tokens N      of the answer, exactly (512)\n"
    "      --context N            of the sequences that are counted as largest batch (4096; a CPU 512)\n"
    "\n"
    "With random weights the tokenizer of -m DIR (the demo model) lays out the prompts.\n"
    "\n"
    "Keys of --json (those with _ms, seconds and decode_tok_per_s have _low and _high beside them; null: not "
    "measured)\n"
    "  device threads compute model weights_bytes gemm_gflops memory_gb_per_s load_s load_gb_per_s\n"
    "  vision_pairs vision_width vision_height vision_ms vision_gflops vision_ratio (to gemm_gflops)\n"
    "  prefill_tokens prefill_ms prefill_tok_per_s prefill_gflops prefill_ratio (with pictures, tower included)\n"
    "  text_prefill_tokens text_prefill_ms text_prefill_tok_per_s text_prefill_gflops text_prefill_ratio\n"
    "  decode: [batch context tok_per_s tok_per_s_low tok_per_s_high step_ms floor_ms ratio]\n"
    "  answer_prompt_tokens first_token_ms answer_512_ms\n"
    "  chunk: [batch output_tokens prompt_tokens seconds chunks_per_s streams]\n"
    "  peak_bytes largest_batch largest_batch_context (sequences that memory holds beside the weights)\n"
    "and of --pipeline\n"
    "  device model file load_s total_s media_s times_real_time windows windows_failed windows_per_s "
    "windows_in_flight\n"
    "  prompt_tokens generated_tokens pictures_decoded pictures_shown pictures_on_gpu host_cores_busy\n"
    "  read_s resize_s vision_s prefill_s decode_s (the whole span by this stage alone) binds\n"
    "and of --compare\n"
    "  device threads compute repeat picture_width picture_height answer_tokens largest_batch_context\n"
    "  models: [model weights_bytes load_s prompt_tokens first_token_ms decode_tok_per_s response_ms peak_bytes\n"
    "  largest_batch]\n";

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
                  {"info", help_info},   {"bench", help_bench}, {"route", help_route}, {"exit", help_exit}};
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
