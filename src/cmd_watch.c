// SPDX-License-Identifier: Apache-2.0
// `scenelog watch`: options, sources with their names and profiles, model, index, sinks; then it watches.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "src/asked.h"
#include "src/commands.h"
#include "src/metrics.h"
#include "src/models.h"
#include "src/notify.h"
#include "src/options.h"
#include "src/signals.h"
#include "src/task.h"
#include "src/watch.h"

enum { MAX_SOURCES = 256, MAX_URL_FILE = 262144, MAX_URL = 4096 };

struct options {
    struct sl_asked asked;
    const char *on_event, *mqtt, *metrics;
    int64_t timeout_us, hook_timeout_us, keep_us, max_bytes;
    int jsonl, over_udp;
    const char *names[MAX_SOURCES], *profiles[MAX_SOURCES]; // by the order of the URLs
    int name_count, profile_count;
    const char *url_files[16];
    int url_file_count;
    struct sl_camera cameras[MAX_SOURCES];
    int camera_count;
};

enum {
    OPT_NAME = 256,
    OPT_TRANSPORT,
    OPT_TIMEOUT,
    OPT_KEEP,
    OPT_MAX_SIZE,
    OPT_JSONL,
    OPT_ON_EVENT,
    OPT_HOOK_TIMEOUT,
    OPT_MQTT,
    OPT_METRICS,
    OPT_PROFILE,
    OPT_URL_FILE,
};

static const struct option long_options[] = {
    SL_ASKED_OPTIONS,
    {"name", required_argument, NULL, OPT_NAME},
    {"rtsp-transport", required_argument, NULL, OPT_TRANSPORT},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"keep", required_argument, NULL, OPT_KEEP},
    {"max-size", required_argument, NULL, OPT_MAX_SIZE},
    {"jsonl", no_argument, NULL, OPT_JSONL},
    {"on-event", required_argument, NULL, OPT_ON_EVENT},
    {"on-event-timeout", required_argument, NULL, OPT_HOOK_TIMEOUT},
    {"mqtt", required_argument, NULL, OPT_MQTT},
    {"metrics", required_argument, NULL, OPT_METRICS},
    {"profile", required_argument, NULL, OPT_PROFILE},
    {"url-file", required_argument, NULL, OPT_URL_FILE},
    {NULL, 0, NULL, 0},
};

// ---- Values

// A number with a unit out of a list, each unit a factor of the first.
static int read_scaled(const char *name, const char *text, const char *units, const int64_t *factors, int64_t *out,
                       struct sl_error *error)
{
    char *end = NULL;
    double number = strtod(text, &end);
    const char *unit = *end != 0 ? strchr(units, *end) : NULL;
    double scaled = unit != NULL ? number * (double)factors[unit - units] : -1;
    if (end == text || unit == NULL || end[1] != 0 || !(scaled >= 1) || scaled > 9e15) {
        return sl_fail(error, SL_ERR_USAGE, "%s %s: must be a number with one of the units %s", name, text, units);
    }
    *out = (int64_t)scaled;
    return SL_OK;
}

static int read_age(const char *text, int64_t *out_us, struct sl_error *error)
{
    static const int64_t factors[] = {1000000, 60000000, INT64_C(3600000000), INT64_C(86400000000),
                                      INT64_C(604800000000)};
    return read_scaled("--keep", text, "smhdw", factors, out_us, error);
}

static int read_size(const char *text, int64_t *out, struct sl_error *error)
{
    static const int64_t factors[] = {1000, 1000000, 1000000000, INT64_C(1000000000000)};
    return read_scaled("--max-size", text, "kMGT", factors, out, error);
}

static int add(const char *option, const char **list, int *count, const char *text, struct sl_error *error)
{
    if (*count == MAX_SOURCES) {
        return sl_fail(error, SL_ERR_USAGE, "%s: more than %d", option, MAX_SOURCES);
    }
    list[(*count)++] = text;
    return SL_OK;
}

static int set_transport(struct options *o, const char *text, struct sl_error *e)
{
    o->over_udp = strcmp(text, "udp") == 0;
    return o->over_udp || strcmp(text, "tcp") == 0
               ? SL_OK
               : sl_fail(e, SL_ERR_USAGE, "--rtsp-transport %s: must be tcp or udp", text);
}

static int set_sink(struct options *o, int option, const char *text, struct sl_error *e)
{
    switch (option) {
    case OPT_JSONL:
        o->jsonl = 1;
        return SL_OK;
    case OPT_ON_EVENT:
        o->on_event = text;
        return *text != 0 ? SL_OK : sl_fail(e, SL_ERR_USAGE, "--on-event: must not be empty");
    case OPT_HOOK_TIMEOUT:
        return sl_option_span("--on-event-timeout", text, &o->hook_timeout_us, e);
    case OPT_MQTT:
        o->mqtt = text;
        return SL_OK;
    case OPT_METRICS:
        o->metrics = text;
        return SL_OK;
    default:
        return sl_asked_set(&o->asked, option, text, e);
    }
}

static int set_option(void *context, int option, const char *text, struct sl_error *e)
{
    struct options *o = context;
    switch (option) {
    case OPT_NAME:
        return add("--name", o->names, &o->name_count, text, e);
    case OPT_PROFILE:
        return add("--profile", o->profiles, &o->profile_count, text, e);
    case OPT_URL_FILE:
        if (o->url_file_count == 16) {
            return sl_fail(e, SL_ERR_USAGE, "--url-file: more than 16");
        }
        o->url_files[o->url_file_count++] = text;
        return SL_OK;
    case OPT_TRANSPORT:
        return set_transport(o, text, e);
    case OPT_TIMEOUT:
        return sl_option_span("--timeout", text, &o->timeout_us, e);
    case OPT_KEEP:
        return read_age(text, &o->keep_us, e);
    case OPT_MAX_SIZE:
        return read_size(text, &o->max_bytes, e);
    default:
        return set_sink(o, option, text, e);
    }
}

// ---- Sources

// What stands for a source when nobody named it: the host, or the file's name.
static void default_name(const char *shown, char *out, size_t size)
{
    const char *host = strstr(shown, "://");
    if (host != NULL && strncmp(shown, "file:", 5) != 0) {
        host += 3;
        snprintf(out, size, "%.*s", (int)strcspn(host, "/:"), host);
    } else {
        const char *slash = strrchr(shown, '/');
        snprintf(out, size, "%s", slash != NULL ? slash + 1 : shown);
    }
}

static int name_is_taken(const struct options *o, const char *name)
{
    for (int i = 0; i < o->camera_count; i++) {
        if (strcmp(o->cameras[i].name, name) == 0) {
            return 1;
        }
    }
    return 0;
}

static int name_source(const struct options *o, struct sl_camera *camera, const char *name, struct sl_error *e)
{
    if (name != NULL) {
        if (*name == 0 || strlen(name) >= sizeof camera->name) {
            return sl_fail(e, SL_ERR_USAGE, "--name: must have 1 to %zu bytes", sizeof camera->name - 1);
        }
        strcpy(camera->name, name);
    } else {
        default_name(camera->shown, camera->name, sizeof camera->name);
        if (name_is_taken(o, camera->name)) { // one recorder, many channels: the whole place tells them apart
            const char *place = strstr(camera->shown, "://");
            snprintf(camera->name, sizeof camera->name, "%s", place != NULL ? place + 3 : camera->shown);
        }
    }
    return name_is_taken(o, camera->name)
               ? sl_fail(e, SL_ERR_USAGE, "two sources are called \"%s\": give each a --name", camera->name)
               : SL_OK;
}

static int add_source(struct options *o, const char *url, const char *name, const char *profile, struct sl_error *e)
{
    if (strncmp(url, "env:", 4) == 0) {
        const char *value = getenv(url + 4);
        if (value == NULL || *value == 0) {
            return sl_fail(e, SL_ERR_USAGE, "%s: no such environment variable", url);
        }
        url = value;
    }
    if (o->camera_count == MAX_SOURCES || strlen(url) > MAX_URL) {
        return sl_fail(e, SL_ERR_USAGE, "watch: more than %d sources, or a URL of more than %d bytes", MAX_SOURCES,
                       MAX_URL);
    }
    struct sl_camera *camera = &o->cameras[o->camera_count];
    sl_live_redact(url, camera->shown, sizeof camera->shown);
    int status = name_source(o, camera, name, e);
    if (status != SL_OK) {
        return status;
    }
    camera->url = strdup(url);
    camera->profile_path = profile != NULL ? strdup(profile) : NULL;
    camera->over_udp = o->over_udp;
    camera->timeout_us = o->timeout_us;
    if (camera->url == NULL || (profile != NULL && camera->profile_path == NULL)) {
        return sl_fail(e, SL_ERR_MEMORY, "out of memory");
    }
    o->camera_count++;
    return sl_profile_read(camera->profile_path, &o->asked.rules, &camera->profile, e);
}

// One line: URL [name=NAME] [profile=FILE], parted by tabs or spaces; a name cannot hold any.
static int add_line(struct options *o, char *line, struct sl_error *e)
{
    char *rest = NULL;
    const char *name = NULL, *profile = NULL;
    char *url = strtok_r(line, " \t\r", &rest);
    if (url == NULL || *url == '#') {
        return SL_OK;
    }
    for (char *word = strtok_r(NULL, " \t\r", &rest); word != NULL; word = strtok_r(NULL, " \t\r", &rest)) {
        if (strncmp(word, "name=", 5) == 0) {
            name = word + 5;
        } else if (strncmp(word, "profile=", 8) == 0) {
            profile = word + 8;
        } else {
            return sl_fail(e, SL_ERR_USAGE, "--url-file: after a URL only name=NAME and profile=FILE");
        }
    }
    return add_source(o, url, name, profile, e);
}

static int add_url_file(struct options *o, const char *path, struct sl_error *e)
{
    char *text = NULL;
    char *rest = NULL;
    int status = sl_option_file("--url-file", path, MAX_URL_FILE, &text, e);
    for (char *line = status == SL_OK ? strtok_r(text, "\n", &rest) : NULL; line != NULL && status == SL_OK;
         line = strtok_r(NULL, "\n", &rest)) {
        status = add_line(o, line, e);
    }
    free(text);
    return status;
}

// The process's title is what lies in argv: a password there is overwritten.
static void hide(char *argument)
{
    char shown[MAX_URL + 1];
    size_t size = strlen(argument);
    sl_live_redact(argument, shown, sizeof shown);
    if (size <= MAX_URL && strcmp(shown, argument) != 0) {
        memset(argument, 0, size);
        memcpy(argument, shown, strlen(shown));
    }
}

static int add_sources(struct options *o, char **urls, int count, struct sl_error *e)
{
    int status = SL_OK;
    for (int i = 0; i < count && status == SL_OK; i++) {
        // One profile is everybody's.
        const char *profile = o->profile_count == 1 ? o->profiles[0] : i < o->profile_count ? o->profiles[i] : NULL;
        status = add_source(o, urls[i], i < o->name_count ? o->names[i] : NULL, profile, e);
        hide(urls[i]);
    }
    for (int i = 0; i < o->url_file_count && status == SL_OK; i++) {
        status = add_url_file(o, o->url_files[i], e);
    }
    if (status == SL_OK && o->camera_count == 0) {
        status = sl_fail(e, SL_ERR_USAGE, "watch: no source given; see 'scenelog help watch'");
    }
    if (status == SL_OK && o->name_count > count) {
        status = sl_fail(e, SL_ERR_USAGE, "--name: more names than URLs");
    }
    return status;
}

static int parse_options(int argc, char **argv, struct options *o, struct sl_error *e)
{
    *o = (struct options){
        .asked = sl_asked_defaults(10000000),
        .timeout_us = 10000000,
        .hook_timeout_us = 10000000,
    };
    int status = sl_options_read(argc, argv, ":m:d:", long_options, set_option, o, e);
    if (status != SL_OK) {
        return status;
    }
    if (o->timeout_us < 100000) {
        return sl_fail(e, SL_ERR_USAGE, "--timeout: must be at least 100 ms");
    }
    status = sl_route_finish(&o->asked.route, o->asked.route_rules, 0, e);
    return status == SL_OK ? add_sources(o, argv + optind, argc - optind, e) : status;
}

// ---- Running

struct session {
    struct options *options;
    struct sl_models models;
    struct sl_db *db;
    struct sl_sinks *sinks;
    struct sl_metrics *metrics;
    struct sl_watch watch;
    int64_t run;
    int reloading;
};

static int interrupted(void *context)
{
    (void)context;
    return sl_signals_interrupted();
}

static int reload(void *context)
{
    struct session *s = context;
    if (sl_signals_hung_up()) {
        sl_notify("RELOADING=1");
        s->reloading = 1;
        return 1;
    }
    return 0;
}

static void note(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "scenelog: %s\n", text);
}

static void alive(void *context, const char *text)
{
    struct session *s = context;
    char state[160];
    snprintf(state, sizeof state, "%sWATCHDOG=1\nSTATUS=%s", s->reloading ? "READY=1\n" : "", text);
    s->reloading = 0;
    sl_notify(state);
}

// What was asked, for explaining later: options, sources without secrets, and what each profile adds.
static void describe(const struct options *o, char *out, size_t size)
{
    const char *rules = o->asked.route_rules;
    int head = snprintf(out, size, "watch%s%s", rules != NULL ? " --route " : "", rules != NULL ? rules : "");
    size_t used = head > 0 ? (size_t)head : 0;
    for (int i = 0; i < o->camera_count && used < size; i++) {
        const struct sl_camera *camera = &o->cameras[i];
        const struct sl_tell_rules *tell = &camera->profile.tell;
        int n = snprintf(out + used, size - used, " --name %s %s%s%s", camera->name, camera->shown,
                         camera->profile_path != NULL ? " --profile " : "",
                         camera->profile_path != NULL ? camera->profile_path : "");
        used += n > 0 ? (size_t)n : 0;
        if (used < size && camera->profile_path != NULL) {
            n = snprintf(out + used, size - used, " [%d words, min-length %.1f s, cool-down %.1f s]", tell->word_count,
                         (double)tell->min_length_us / 1e6, (double)tell->cool_down_us / 1e6);
            used += n > 0 ? (size_t)n : 0;
        }
    }
}

static int most_frames(const struct options *o)
{
    int most = 0;
    for (int i = 0; i < o->camera_count; i++) {
        int frames = sl_window_frames(&o->cameras[i].profile.rules);
        most = frames > most ? frames : most;
    }
    return most;
}

// A file that is played at its own pace is no live source to the rules of --route.
static struct sl_route_way way_of(const struct options *o, const struct sl_camera *camera)
{
    return sl_route_find(&o->asked.route, sl_live_names_file(camera->url) ? SL_ROUTE_FILE : SL_ROUTE_LIVE,
                         camera->name);
}

static int open_models(struct session *s, struct sl_error *e)
{
    struct options *o = s->options;
    struct sl_model_options model = {.device = o->asked.device,
                                     .threads = (int)o->asked.threads,
                                     .max_tokens_per_pair = o->asked.rules.max_tokens_per_pair,
                                     .pairs_per_window = most_frames(o) / 2 + 1,
                                     .max_new_tokens = o->asked.rules.max_new_tokens};
    struct sl_route_way ways[MAX_SOURCES];
    for (int i = 0; i < o->camera_count; i++) {
        ways[i] = way_of(o, &o->cameras[i]);
    }
    int status = sl_models_open(&o->asked.route, ways, o->camera_count, &model, note, s, &s->models, e);
    for (int i = 0; i < o->camera_count && status == SL_OK; i++) {
        o->cameras[i].choice = sl_models_choose(&s->models, ways[i]);
    }
    return status;
}

static int open_session(struct session *s, struct sl_error *e)
{
    const struct options *o = s->options;
    struct sl_sinks_options sinks = {.jsonl = o->jsonl,
                                     .on_event = o->on_event,
                                     .mqtt = o->mqtt,
                                     .timeout_us = o->hook_timeout_us,
                                     .note = note,
                                     .context = s};
    int status = open_models(s, e);
    if (status == SL_OK) {
        status = sl_db_open(&s->db, o->asked.index_path, SL_DB_WRITE, e);
    }
    if (status == SL_OK) {
        char arguments[4096];
        describe(o, arguments, sizeof arguments);
        status = sl_db_run_begin(s->db, SL_VERSION, arguments, &s->run, e);
    }
    if (status == SL_OK) {
        status = sl_sinks_create(&sinks, &s->sinks, e);
    }
    if (status == SL_OK && o->metrics != NULL) {
        status = sl_metrics_start(o->metrics, &s->watch, s->sinks, &s->metrics, e);
    }
    return status;
}

static int close_session(struct session *s, int status, struct sl_error *e)
{
    sl_metrics_stop(s->metrics);
    sl_sinks_destroy(s->sinks);
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

static int watch(struct options *o, struct sl_error *e)
{
    struct session s = {.options = o,
                        .watch = {.defaults = o->asked.rules, .cameras = o->cameras, .camera_count = o->camera_count}};
    sl_signals_install();
    sl_signals_install_hangup();
    int status = open_session(&s, e);
    if (status == SL_OK) {
        struct sl_watch_options options = {.device = s.models.device,
                                           .db = s.db,
                                           .sinks = s.sinks,
                                           .index_path = o->asked.index_path,
                                           .run = s.run,
                                           .keep_us = o->keep_us,
                                           .max_bytes = o->max_bytes,
                                           .context = &s,
                                           .interrupted = interrupted,
                                           .reload = reload,
                                           .note = note,
                                           .alive = alive};
        sl_notify("READY=1");
        status = sl_watch_run(&s.watch, &options, e);
        sl_notify("STOPPING=1");
    }
    return close_session(&s, status, e);
}

int sl_cmd_watch(int argc, char **argv)
{
    struct sl_error error = {0};
    struct options *options = calloc(1, sizeof *options);
    int status =
        options != NULL ? parse_options(argc, argv, options, &error) : sl_fail(&error, SL_ERR_MEMORY, "out of memory");
    if (status == SL_OK) {
        status = watch(options, &error);
    }
    for (int i = 0; options != NULL && i < MAX_SOURCES; i++) {
        free(options->cameras[i].url);
        free(options->cameras[i].profile_path);
        sl_profile_finish(&options->cameras[i].profile);
    }
    if (options != NULL) {
        sl_asked_free(&options->asked);
    }
    free(options);
    return status == SL_OK ? 0 : sl_report(&error);
}
