// SPDX-License-Identifier: Apache-2.0
// `scenelog index`: options, model, index, then one pipeline run a file.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "core/time.h"
#include "decode/decode.h"
#include "src/asked.h"
#include "src/commands.h"
#include "src/decoding.h"
#include "src/models.h"
#include "src/options.h"
#include "src/pipeline.h"
#include "src/progress.h"
#include "src/signals.h"
#include "src/still.h"
#include "src/task.h"

struct options {
    struct sl_asked asked;
    const char *name;
    int64_t from_us, to_us, wall_start_us;
    int wall_from_metadata;
    int decode_lanes, decode_cpu_lanes;
    enum sl_decoder decoder;
    int deterministic, force;
    enum sl_progress_form progress;
    char **files; // argv
    int file_count;
};

enum {
    OPT_NAME = 256,
    OPT_START,
    OPT_FROM,
    OPT_TO,
    OPT_STILL,
    OPT_TEMPERATURE,
    OPT_SEED,
    OPT_DETERMINISTIC,
    OPT_DECODER,
    OPT_LANES,
    OPT_FORCE,
    OPT_PROGRESS,
};

static const struct option long_options[] = {
    SL_ASKED_OPTIONS,
    {"name", required_argument, NULL, OPT_NAME},
    {"start-time", required_argument, NULL, OPT_START},
    {"from", required_argument, NULL, OPT_FROM},
    {"to", required_argument, NULL, OPT_TO},
    {"skip-still", required_argument, NULL, OPT_STILL},
    {"temperature", required_argument, NULL, OPT_TEMPERATURE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"deterministic", no_argument, NULL, OPT_DETERMINISTIC},
    {"decoder", required_argument, NULL, OPT_DECODER},
    {"decode-lanes", required_argument, NULL, OPT_LANES},
    {"force", no_argument, NULL, OPT_FORCE},
    {"progress", required_argument, NULL, OPT_PROGRESS},
    {NULL, 0, NULL, 0},
};

// ---- Options

static int set_progress(struct options *o, const char *text, struct sl_error *e)
{
    static const struct {
        const char *name;
        enum sl_progress_form form;
    } forms[] = {{"auto", SL_PROGRESS_AUTO},
                 {"plain", SL_PROGRESS_PLAIN},
                 {"json", SL_PROGRESS_JSON},
                 {"none", SL_PROGRESS_NONE}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(text, forms[i].name) == 0) {
            o->progress = forms[i].form;
            return SL_OK;
        }
    }
    return sl_fail(e, SL_ERR_USAGE, "--progress %s: must be auto, plain, json or none", text);
}

static int set_still(struct options *o, const char *text, struct sl_error *e)
{
    double level = SL_STILL_AUTO;
    int status = SL_OK;
    o->asked.rules.skip_still = strcmp(text, "off") != 0;
    if (o->asked.rules.skip_still && strcmp(text, "auto") != 0) {
        status = sl_option_real("--skip-still", text, 0, 255, &level, e);
        if (status != SL_OK) {
            return sl_fail(e, SL_ERR_USAGE, "--skip-still %s: must be auto, off or a level from 0 to 255", text);
        }
    }
    o->asked.rules.still_level = (float)level;
    return status;
}

// How answers are drawn.
static int set_sampling(struct options *o, int option, const char *text, struct sl_error *e)
{
    struct sl_sampling *sampling = &o->asked.rules.sampling;
    if (option == OPT_SEED) {
        int64_t seed = 0;
        int status = sl_option_int("--seed", text, 0, INT64_MAX, &seed, e);
        sampling->seed = (uint64_t)seed;
        return status;
    }
    double temperature = 0;
    int status = sl_option_real("--temperature", text, 0, 100, &temperature, e);
    sampling->temperature = (float)temperature;
    sampling->top_p = temperature > 0 ? 0 : 1; // drawn as the model's makers advise
    return status;
}

static int set_option(void *context, int option, const char *text, struct sl_error *e)
{
    struct options *o = context;
    switch (option) {
    case OPT_NAME:
        o->name = text;
        return *text != 0 ? SL_OK : sl_fail(e, SL_ERR_USAGE, "--name: must not be empty");
    case OPT_START:
        o->wall_from_metadata = strcmp(text, "metadata") == 0;
        if (o->wall_from_metadata) {
            return SL_OK;
        }
        return sl_time_parse_absolute(text, NULL, &o->wall_start_us, e) == SL_OK ? SL_OK
                                                                                 : sl_fail_at(e, "--start-time");
    case OPT_FROM:
        return sl_option_span("--from", text, &o->from_us, e);
    case OPT_TO:
        return sl_option_span("--to", text, &o->to_us, e);
    case OPT_STILL:
        return set_still(o, text, e);
    case OPT_TEMPERATURE:
    case OPT_SEED:
        return set_sampling(o, option, text, e);
    case OPT_DETERMINISTIC:
        o->deterministic = 1;
        return SL_OK;
    case OPT_DECODER:
        return sl_decoding_read_decoder(text, &o->decoder, e);
    case OPT_LANES:
        return sl_option_lanes(text, &o->decode_lanes, &o->decode_cpu_lanes, e);
    case OPT_FORCE:
        o->force = 1;
        return SL_OK;
    case OPT_PROGRESS:
        return set_progress(o, text, e);
    default:
        return sl_asked_set(&o->asked, option, text, e);
    }
}

static int check_options(struct options *o, struct sl_error *e)
{
    const struct sl_window_rules *r = &o->asked.rules;
    if (o->file_count == 0) {
        return sl_fail(e, SL_ERR_USAGE, "index: no file given; see 'scenelog help index'");
    }
    if (o->to_us != SL_NO_TIME && o->to_us <= (o->from_us != SL_NO_TIME ? o->from_us : 0)) {
        return sl_fail(e, SL_ERR_USAGE, "--to: must be later than --from");
    }
    if (o->wall_start_us != SL_NO_TIME && o->file_count > 1) {
        return sl_fail(e, SL_ERR_USAGE, "--start-time: belongs to one file; give the files one by one");
    }
    int status = sl_task_check(r, e);
    return status == SL_OK ? sl_route_finish(&o->asked.route, o->asked.route_rules, o->deterministic, e) : status;
}

static int parse_options(int argc, char **argv, struct options *o, struct sl_error *e)
{
    *o = (struct options){
        .asked = sl_asked_defaults(30000000),
        .from_us = SL_NO_TIME,
        .to_us = SL_NO_TIME,
        .wall_start_us = SL_NO_TIME,
    };
    int status = sl_options_read(argc, argv, ":m:d:", long_options, set_option, o, e);
    if (status != SL_OK) {
        return status;
    }
    o->files = argv + optind;
    o->file_count = argc - optind;
    return check_options(o, e);
}

// ---- The index's words for what was asked

static void arguments_text(int argc, char **argv, char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < argc && used < size; i++) {
        int n = snprintf(out + used, size - used, "%s%s", i > 0 ? " " : "", argv[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

// ---- Running

struct session {
    const struct options *options;
    struct sl_models models;
    struct sl_db *db;
    int64_t task, run;
    struct sl_progress progress;
};

static int interrupted(void *context)
{
    (void)context;
    return sl_signals_interrupted();
}

static void note(void *context, const char *text)
{
    struct session *s = context;
    sl_progress_note(&s->progress, text);
}

static void tick(void *context, const struct sl_pipeline_progress *now)
{
    struct session *s = context;
    sl_progress_tick(&s->progress, now);
}

// What each file is, to the rules of --route.
static int kinds_of(const struct options *o)
{
    return SL_ROUTE_FILE | (o->from_us != SL_NO_TIME || o->to_us != SL_NO_TIME ? SL_ROUTE_PART : 0);
}

static struct sl_choice choose(void *context, const char *source)
{
    const struct session *s = context;
    return sl_models_choose(&s->models, sl_route_find(&s->options->asked.route, kinds_of(s->options), source));
}

static int open_models(struct session *s, struct sl_error *e)
{
    const struct options *o = s->options;
    struct sl_model_options model = {.device = o->asked.device,
                                     .threads = (int)o->asked.threads,
                                     .max_tokens_per_pair = o->asked.rules.max_tokens_per_pair,
                                     .pairs_per_window = sl_window_frames(&o->asked.rules) / 2 + 1,
                                     .max_new_tokens = o->asked.rules.max_new_tokens,
                                     .deterministic = o->deterministic};
    struct sl_route_way ways[SL_ROUTE_RULES + 1];
    int count = sl_route_ways(&o->asked.route, kinds_of(o), ways);
    int status = sl_models_open(&o->asked.route, ways, count, &model, note, s, &s->models, e);
    if (status == SL_OK && o->decoder == SL_DECODER_NVDEC &&
        s->models.device->ops->native_context(s->models.device) == NULL) {
        status = sl_fail(e, SL_ERR_USAGE, "--decoder nvdec: needs the model on a GPU; give --device cuda");
    }
    return status;
}

static int open_session(struct session *s, int argc, char **argv, struct sl_error *e)
{
    const struct options *o = s->options;
    int status = open_models(s, e);
    if (status == SL_OK) {
        status = sl_db_open(&s->db, o->asked.index_path, SL_DB_WRITE, e);
    }
    char *task = sl_task_text(&o->asked.rules);
    if (status == SL_OK && task == NULL) {
        status = sl_fail(e, SL_ERR_MEMORY, "out of memory");
    }
    if (status == SL_OK) {
        status = sl_db_task(s->db, task, sl_window_pair_us(&o->asked.rules), &s->task, e);
    }
    free(task);
    if (status == SL_OK) {
        char arguments[2048];
        arguments_text(argc, argv, arguments, sizeof arguments);
        status = sl_db_run_begin(s->db, SL_VERSION, arguments, &s->run, e);
    }
    return status;
}

static int close_session(struct session *s, int status, struct sl_error *e)
{
    if (s->run != 0) {
        struct sl_error closing = {0};
        if (sl_db_run_end(s->db, s->run, status, &closing) != SL_OK && status == SL_OK) {
            *e = closing;
            status = closing.status;
        }
    }
    sl_db_close(s->db);
    sl_models_close(&s->models);
    return status;
}

static int index_file(struct session *s, const char *path, struct sl_error *e)
{
    const struct options *o = s->options;
    struct sl_eye *eye = sl_models_any(&s->models);
    struct sl_pipeline job = {
        .model = sl_eye_model(eye),
        .eye = eye,
        .choose = choose,
        .db = s->db,
        .rules = &o->asked.rules,
        .path = path,
        .source_name = o->name,
        .from_us = o->from_us,
        .to_us = o->to_us,
        .wall_start_us = o->wall_start_us,
        .wall_from_metadata = o->wall_from_metadata,
        .task = s->task,
        .run = s->run,
        .force = o->force,
        .threads = (int)o->asked.threads,
        .decoder = o->decoder,
        .decode_lanes = o->decode_lanes,
        .decode_cpu_lanes = o->decode_cpu_lanes,
        .gpu_index = strncmp(o->asked.device, "cuda:", 5) == 0 ? atoi(o->asked.device + 5) : 0,
        .context = s,
        .interrupted = interrupted,
        .note = note,
        .tick = tick,
    };
    struct sl_pipeline_progress progress = {0};
    sl_progress_begin(&s->progress, path, o->from_us != SL_NO_TIME ? o->from_us : 0);
    int status = sl_pipeline_run(&job, &progress, e);
    if (status == SL_OK || status == SL_ERR_PARTIAL || status == SL_ERR_TRUNCATED || status == SL_ERR_INTERRUPTED) {
        sl_progress_end(&s->progress, &progress);
    }
    return status;
}

// Of what concerns one file alone, the others are still indexed.
static int ends_all(int status)
{
    switch (status) {
    case SL_ERR_USAGE: // what was asked is impossible with this one
    case SL_ERR_OPEN:
    case SL_ERR_EMPTY:
    case SL_ERR_NOT_VIDEO:
    case SL_ERR_NO_VIDEO:
    case SL_ERR_TRUNCATED:
    case SL_ERR_PARTIAL:
    case SL_ERR_BUSY:
        return 0;
    default:
        return status != SL_OK;
    }
}

// The first failure is the one to exit with, unless a later one ended all.
static int index_files(struct session *s, struct sl_error *kept)
{
    int result = SL_OK;
    for (int i = 0; i < s->options->file_count && !ends_all(result); i++) {
        struct sl_error error = {0};
        int status = index_file(s, s->options->files[i], &error);
        if (status == SL_OK) {
            continue;
        }
        int keep = result == SL_OK || ends_all(status);
        const struct sl_error *other = keep ? kept : &error;
        if (other->status != SL_OK) {
            sl_progress_note(&s->progress, other->text);
        }
        if (keep) {
            *kept = error;
            result = status;
        }
    }
    return result;
}

int sl_cmd_index(int argc, char **argv)
{
    struct options options;
    struct sl_error error = {0};
    int code = 0;
    int status = parse_options(argc, argv, &options, &error);
    if (status != SL_OK) {
        code = sl_report(&error);
    } else {
        struct session session = {.options = &options};
        sl_signals_install();
        sl_progress_init(&session.progress, options.progress);
        status = open_session(&session, argc, argv, &error);
        if (status == SL_OK) {
            status = index_files(&session, &error);
        }
        status = close_session(&session, status, &error);
        code = status == SL_OK ? 0 : sl_progress_report(&session.progress, &error);
        sl_progress_finish(&session.progress);
    }
    sl_asked_free(&options.asked);
    return code;
}
