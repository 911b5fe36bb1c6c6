// SPDX-License-Identifier: Apache-2.0
// `scenelog bench`: its options; what is measured is in src/bench_model.c and src/bench_pipeline.c.
//
// Absolute times of a shared machine are noise: each figure stands beside what the machine reaches alone in the same
// run.
#include <stdlib.h>
#include <string.h>

#include "src/bench_report.h"
#include "src/commands.h"
#include "src/decoding.h"
#include "src/options.h"

enum { REPEATS = 5, WINDOW_US = 30000000, OUTPUT_TOKENS = 60, MAX_TOKENS_PER_PAIR = 16384 };

// As long as the one of `index`, so that prompts are.
static const char prompt[] =
    "Report every event of this video in order of time. Answer with one JSON object and nothing else: each key is the "
    "time range of one event, \"mm:ss.ff - mm:ss.ff\", counted from the start of the video; each value is one sentence "
    "that says what happens. If nothing happens, answer {}.";

enum mode { MODE_MODEL = 1, MODE_PIPELINE = 2, MODE_COMPARE = 4, MODE_ANY = 7 };

struct options {
    struct sl_bench_options model;
    struct sl_bench_pipeline_options pipeline;
    int random, json;
    enum mode mode;
    int modes;   // those that all options given belong to, or-ed
    int compare; // 1: asked for
};

enum {
    OPT_CONFIG = 256,
    OPT_RANDOM,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_JSON,
    OPT_REPEAT,
    OPT_COMPARE,
    OPT_ONLY, // from here on for measuring the model
    OPT_SIZE,
    OPT_CONTEXT,
    OPT_PREFILL_ROWS,
    OPT_BATCH,
    OPT_PAIRS,
    OPT_PROMPT_TOKENS,
    OPT_PIPELINE, // from here on for the pipeline
    OPT_OUTPUT_TOKENS,
    OPT_WINDOW,
    OPT_FPS,
    OPT_TOKENS,
    OPT_DECODER,
    OPT_LANES,
    OPT_DECODE_ALL,
    OPT_FROM,
    OPT_TO,
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, 'm'},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"random", no_argument, NULL, OPT_RANDOM},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"json", no_argument, NULL, OPT_JSON},
    {"repeat", required_argument, NULL, OPT_REPEAT},
    {"compare", no_argument, NULL, OPT_COMPARE},
    {"only", required_argument, NULL, OPT_ONLY},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"context", required_argument, NULL, OPT_CONTEXT},
    {"pairs", required_argument, NULL, OPT_PAIRS},
    {"size", required_argument, NULL, OPT_SIZE},
    {"prompt-tokens", required_argument, NULL, OPT_PROMPT_TOKENS},
    {"prefill-rows", required_argument, NULL, OPT_PREFILL_ROWS},
    {"pipeline", required_argument, NULL, OPT_PIPELINE},
    {"output-tokens", required_argument, NULL, OPT_OUTPUT_TOKENS},
    {"window", required_argument, NULL, OPT_WINDOW},
    {"fps", required_argument, NULL, OPT_FPS},
    {"max-tokens-per-pair", required_argument, NULL, OPT_TOKENS},
    {"decoder", required_argument, NULL, OPT_DECODER},
    {"decode-lanes", required_argument, NULL, OPT_LANES},
    {"decode-all", no_argument, NULL, OPT_DECODE_ALL},
    {"from", required_argument, NULL, OPT_FROM},
    {"to", required_argument, NULL, OPT_TO},
    {NULL, 0, NULL, 0},
};

// ---- Values

// Calls `take` with each part of "a,b,c".
static int each_of(const char *text, struct options *o,
                   int (*take)(struct options *o, const char *part, struct sl_error *e), struct sl_error *e)
{
    int status = SL_OK;
    while (status == SL_OK && text != NULL) {
        const char *comma = strchr(text, ',');
        size_t size = comma != NULL ? (size_t)(comma - text) : strlen(text);
        char *part = strndup(text, size);
        status = part != NULL ? take(o, part, e) : sl_fail(e, SL_ERR_MEMORY, "out of memory");
        free(part);
        text = comma != NULL ? comma + 1 : NULL;
    }
    return status;
}

static int take_part(struct options *o, const char *name, struct sl_error *e)
{
    static const struct {
        const char *name;
        enum sl_bench_part part;
    } parts[] = {{"load", SL_BENCH_LOAD},     {"vision", SL_BENCH_VISION}, {"prefill", SL_BENCH_PREFILL},
                 {"decode", SL_BENCH_DECODE}, {"answer", SL_BENCH_ANSWER}, {"chunk", SL_BENCH_CHUNK}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(name, parts[i].name) == 0) {
            o->model.parts |= (int)parts[i].part;
            return SL_OK;
        }
    }
    return sl_fail(e, SL_ERR_USAGE, "--only %s: must be some of load,vision,prefill,decode,answer,chunk", name);
}

static int take_batch(struct options *o, const char *text, struct sl_error *e)
{
    if (o->model.batch_count == SL_BENCH_MAX_BATCHES) {
        return sl_fail(e, SL_ERR_USAGE, "--batch: at most %d numbers", SL_BENCH_MAX_BATCHES);
    }
    return sl_option_int("--batch", text, 1, 1024, &o->model.batch[o->model.batch_count++], e);
}

static int set_size(struct options *o, const char *text, struct sl_error *e)
{
    char *x = strdup(text);
    char *cross = x != NULL ? strchr(x, 'x') : NULL;
    int status = SL_OK;
    if (cross == NULL) {
        status = sl_fail(e, SL_ERR_USAGE, "--size %s: must be WIDTHxHEIGHT, such as 640x352", text);
    } else {
        *cross = 0;
        status = sl_option_int("--size", x, 64, 8192, &o->model.width, e);
        status = status == SL_OK ? sl_option_int("--size", cross + 1, 64, 8192, &o->model.height, e) : status;
    }
    free(x);
    return status;
}

// ---- Options

static int set_model_option(struct options *o, int option, const char *text, struct sl_error *e)
{
    switch (option) {
    case OPT_ONLY:
        return each_of(text, o, take_part, e);
    case OPT_BATCH:
        return each_of(text, o, take_batch, e);
    case OPT_CONTEXT:
        return sl_option_int("--context", text, 64, 1 << 20, &o->model.context, e);
    case OPT_PAIRS:
        return sl_option_int("--pairs", text, 1, 4096, &o->model.pairs, e);
    case OPT_SIZE:
        return set_size(o, text, e);
    case OPT_PROMPT_TOKENS:
        return sl_option_int("--prompt-tokens", text, 1, 1 << 20, &o->model.prompt_tokens, e);
    case OPT_PREFILL_ROWS:
        return sl_option_int("--prefill-rows", text, 64, 1 << 17, &o->model.prefill_rows, e);
    default:
        return sl_fail(e, SL_ERR_INTERNAL, "an option without code");
    }
}

static int set_pipeline_option(struct options *o, int option, const char *text, struct sl_error *e)
{
    struct sl_window_rules *r = &o->pipeline.rules;
    int64_t number = 0;
    int status = SL_OK;
    switch (option) {
    case OPT_PIPELINE:
        o->pipeline.path = text;
        return SL_OK;
    case OPT_OUTPUT_TOKENS:
        status = sl_option_int("--output-tokens", text, 4, 4096, &number, e);
        r->max_new_tokens = (int)number;
        o->model.answer_tokens = number;
        return status;
    case OPT_WINDOW:
        status = sl_option_span("--window", text, &r->window_us, e);
        return status != SL_OK || (r->window_us >= 1000000 && r->window_us <= (int64_t)3600 * 1000000)
                   ? status
                   : sl_fail(e, SL_ERR_USAGE, "--window: must lie between 1 second and 1 hour");
    case OPT_FPS:
        return sl_option_rate("--fps", text, &r->fps_num, &r->fps_den, e);
    case OPT_TOKENS:
        status = sl_option_int("--max-tokens-per-pair", text, 1, MAX_TOKENS_PER_PAIR, &number, e);
        r->max_tokens_per_pair = (int)number;
        return status;
    case OPT_DECODER:
        return sl_decoding_read_decoder(text, &o->pipeline.decoder, e);
    case OPT_LANES:
        return sl_option_lanes(text, &o->pipeline.decode_lanes, &o->pipeline.decode_cpu_lanes, e);
    case OPT_DECODE_ALL:
        o->pipeline.decode_all = 1;
        return SL_OK;
    case OPT_FROM:
        return sl_option_span("--from", text, &o->pipeline.from_us, e);
    case OPT_TO:
        return sl_option_span("--to", text, &o->pipeline.to_us, e);
    default:
        return sl_fail(e, SL_ERR_INTERNAL, "an option without code");
    }
}

static int modes_of(int option)
{
    switch (option) {
    case 'm':
    case OPT_CONFIG:
    case OPT_RANDOM:
        return MODE_MODEL | MODE_PIPELINE;
    case OPT_COMPARE:
        return MODE_COMPARE;
    case OPT_SIZE:
    case OPT_CONTEXT:
    case OPT_PREFILL_ROWS:
        return MODE_MODEL | MODE_COMPARE;
    case OPT_OUTPUT_TOKENS:
        return MODE_PIPELINE | MODE_COMPARE;
    default:
        return option < OPT_ONLY ? MODE_ANY : option < OPT_PIPELINE ? MODE_MODEL : MODE_PIPELINE;
    }
}

static int set_option(void *context, int option, const char *text, struct sl_error *e)
{
    struct options *o = context;
    o->modes &= modes_of(option);
    switch (option) {
    case 'm':
        o->model.model_dir = text;
        return SL_OK;
    case OPT_CONFIG:
        o->model.shape = text;
        return SL_OK;
    case OPT_RANDOM:
        o->random = 1;
        return SL_OK;
    case OPT_DEVICE:
        o->model.device = text;
        return SL_OK;
    case OPT_THREADS:
        return sl_option_int("--threads", text, 1, 1024, &o->model.threads, e);
    case OPT_JSON:
        o->json = 1;
        return SL_OK;
    case OPT_COMPARE:
        o->compare = 1; // its models are no options
        return SL_OK;
    case OPT_REPEAT:
        return sl_option_int("--repeat", text, 1, 1000, &o->model.repeat, e);
    default:
        return option < OPT_PIPELINE ? set_model_option(o, option, text, e) : set_pipeline_option(o, option, text, e);
    }
}

// What both measurements have in common.
static void share(struct options *o)
{
    struct sl_bench_options *m = &o->model;
    m->model_dir = m->model_dir != NULL ? m->model_dir : sl_default_model(); // of random weights: the tokenizer alone
    o->pipeline.repeat = m->repeat;
    o->pipeline.gpu_index = strncmp(m->device, "cuda:", 5) == 0 ? atoi(m->device + 5) : 0;
    o->pipeline.model = (struct sl_model_options){
        .dir = m->model_dir, .shape = m->shape, .device = m->device, .threads = (int)m->threads};
}

static int check_options(struct options *o, int operands, struct sl_error *e)
{
    const struct sl_bench_options *m = &o->model;
    int compares = o->compare;
    o->mode = compares ? MODE_COMPARE : o->pipeline.path != NULL ? MODE_PIPELINE : MODE_MODEL;
    if (!(o->modes & (int)o->mode)) {
        return sl_fail(e, SL_ERR_USAGE,
                       "bench: options that do not go together: measuring a model, --pipeline FILE and --compare each "
                       "have their own; see 'scenelog help bench'");
    }
    if (compares && operands != SL_BENCH_COMPARED) {
        return sl_fail(e, SL_ERR_USAGE, "bench: --compare takes two models, folders or config.json files");
    }
    if ((!compares && operands != 0) || (m->shape != NULL) != (o->random != 0) ||
        (m->shape != NULL && m->model_dir != NULL && o->pipeline.path == NULL)) {
        return sl_fail(e, SL_ERR_USAGE, "bench: takes either --model DIR, or --config FILE with --random");
    }
    share(o);
    return SL_OK;
}

static int parse(int argc, char **argv, struct options *o, struct sl_error *e)
{
    int status = sl_options_read(argc, argv, ":m:", long_options, set_option, o, e);
    if (status != SL_OK) {
        return status;
    }
    return check_options(o, argc - optind, e);
}

// ---- The command

static int bench_model(const struct options *o, struct sl_error *e)
{
    struct sl_bench_figures figures;
    int status = sl_bench_model(&o->model, &figures, e);
    if (status == SL_OK && o->json) {
        return sl_bench_print_model_json(&figures, e);
    }
    if (status == SL_OK) {
        sl_bench_print_model(&figures);
    }
    return status;
}

static int bench_pipeline(const struct options *o, struct sl_error *e)
{
    struct sl_bench_pipeline_figures figures;
    int status = sl_bench_pipeline(&o->pipeline, &figures, e);
    if (status == SL_OK && o->json) {
        return sl_bench_print_pipeline_json(&figures, e);
    }
    if (status == SL_OK) {
        sl_bench_print_pipeline(&figures);
    }
    return status;
}

static int bench_compare(const struct options *o, char **models, struct sl_error *e)
{
    struct sl_bench_options one = o->model;
    struct sl_bench_comparison comparison;
    one.picture_width = one.width;
    one.picture_height = one.height;
    one.width = one.height = 0; // of clips, which are not shown
    int status = sl_bench_compare(&one, (const char *const *)models, &comparison, e);
    if (status == SL_OK && o->json) {
        return sl_bench_print_comparison_json(&comparison, e);
    }
    if (status == SL_OK) {
        sl_bench_print_comparison(&comparison);
    }
    return status;
}

int sl_cmd_bench(int argc, char **argv)
{
    struct options options = {
        .modes = MODE_ANY,
        .model = {.device = "auto", .repeat = REPEATS},
        .pipeline = {.rules = {.fps_num = 2,
                               .fps_den = 1,
                               .window_us = WINDOW_US,
                               .prompt = prompt,
                               .max_new_tokens = OUTPUT_TOKENS,
                               .fixed_length = 1,
                               .sampling = {.top_p = 1}},
                     .from_us = SL_NO_TIME,
                     .to_us = SL_NO_TIME},
    };
    struct sl_error error = {0};
    int status = parse(argc, argv, &options, &error);
    if (status == SL_OK) {
        status = options.mode == MODE_COMPARE    ? bench_compare(&options, argv + optind, &error)
                 : options.mode == MODE_PIPELINE ? bench_pipeline(&options, &error)
                                                 : bench_model(&options, &error);
    }
    return status == SL_OK ? 0 : sl_report(&error);
}
