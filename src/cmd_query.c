// SPDX-License-Identifier: Apache-2.0
// `scenelog query`: events by time range and by words, in the form asked for.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/time.h"
#include "db/db.h"
#include "src/commands.h"
#include "src/format.h"
#include "src/options.h"

// What a person reads at once; exports are whole unless a limit is given.
enum { DEFAULT_TABLE_LIMIT = 200 };

struct options {
    const char *index_path, *from, *to, *zone_name;
    enum sl_format format;
    struct sl_db_query query;
    int limit_given;
};

enum { OPT_FROM = 256, OPT_TO, OPT_SOURCE, OPT_TASK, OPT_LIMIT, OPT_FORMAT, OPT_TZ };

static const struct option long_options[] = {
    {"index", required_argument, NULL, 'd'},
    {"from", required_argument, NULL, OPT_FROM},
    {"to", required_argument, NULL, OPT_TO},
    {"source", required_argument, NULL, OPT_SOURCE},
    {"task", required_argument, NULL, OPT_TASK},
    {"limit", required_argument, NULL, OPT_LIMIT},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"tz", required_argument, NULL, OPT_TZ},
    {NULL, 0, NULL, 0},
};

static int set_option(void *context, int option, const char *text, struct sl_error *e)
{
    struct options *o = context;
    switch (option) {
    case 'd':
        o->index_path = text;
        return SL_OK;
    case OPT_FROM:
        o->from = text;
        return SL_OK;
    case OPT_TO:
        o->to = text;
        return SL_OK;
    case OPT_SOURCE:
        o->query.source_glob = text;
        return SL_OK;
    case OPT_TASK:
        return sl_option_int("--task", text, 1, INT64_MAX, &o->query.task, e);
    case OPT_LIMIT:
        o->limit_given = 1;
        return sl_option_int("--limit", text, 0, INT64_MAX - 1, &o->query.limit, e);
    case OPT_FORMAT:
        return sl_format_parse(text, &o->format, e);
    case OPT_TZ:
        o->zone_name = text;
        return SL_OK;
    default:
        return sl_fail(e, SL_ERR_INTERNAL, "an option without code");
    }
}

static int parse_options(int argc, char **argv, struct options *o, struct sl_error *e)
{
    *o = (struct options){.index_path = sl_default_index(), .query = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME}};
    int status = sl_options_read(argc, argv, ":d:", long_options, set_option, o, e);
    if (status != SL_OK) {
        return status;
    }
    o->query.words = (const char *const *)(argv + optind);
    o->query.word_count = argc - optind;
    if (!o->limit_given && o->format == SL_FORMAT_TABLE) {
        o->query.limit = DEFAULT_TABLE_LIMIT;
    }
    return SL_OK;
}

// Media time, or with *wall = 1 Unix time. A date has a dash inside, which no span has.
static int parse_time(const char *name, const char *text, const struct sl_zone *zone, int64_t *us, int *wall,
                      struct sl_error *e)
{
    *wall = text[0] != 0 && strchr(text + 1, '-') != NULL;
    int status = *wall ? sl_time_parse_absolute(text, zone, us, e) : sl_time_parse_span(text, us, e);
    return status == SL_OK ? SL_OK : sl_fail_at(e, "%s", name);
}

static int parse_times(struct options *o, const struct sl_zone *zone, struct sl_error *e)
{
    int from_wall = 0, to_wall = 0, status = SL_OK;
    if (o->from != NULL) {
        status = parse_time("--from", o->from, zone, &o->query.from_us, &from_wall, e);
    }
    if (status == SL_OK && o->to != NULL) {
        status = parse_time("--to", o->to, zone, &o->query.to_us, &to_wall, e);
    }
    if (status != SL_OK) {
        return status;
    }
    o->query.wall = from_wall || to_wall;
    if (o->from != NULL && o->to != NULL) {
        if (from_wall != to_wall) {
            return sl_fail(e, SL_ERR_USAGE, "--from and --to: either both media times or both dates");
        }
        if (o->query.from_us >= o->query.to_us) {
            return sl_fail(e, SL_ERR_USAGE, "--to: must be later than --from");
        }
    }
    return SL_OK;
}

// ---- Formats of one file

struct first {
    int64_t media;
    char source[SL_DB_NAME_BYTES], other[SL_DB_NAME_BYTES]; // other: set when there is a second
};

static int compare_media(const struct sl_db_event *event, void *user)
{
    struct first *first = user;
    if (first->media == 0) {
        first->media = event->media;
        snprintf(first->source, sizeof first->source, "%s", event->source);
    }
    if (event->media == first->media) {
        return 0;
    }
    snprintf(first->other, sizeof first->other, "%s", event->source);
    return 1;
}

static int check_one_file(struct sl_db *db, const struct sl_db_query *query, struct sl_error *e)
{
    struct first first = {.media = 0};
    struct sl_db_query all = *query;
    all.limit = 0;
    int status = sl_db_query(db, &all, compare_media, &first, e);
    if (status != SL_OK || first.other[0] == 0) {
        return status;
    }
    if (strcmp(first.source, first.other) == 0) {
        return sl_fail(e, SL_ERR_USAGE,
                       "--format: subtitles and chapters are of one file, but source \"%s\" has several", first.source);
    }
    return sl_fail(
        e, SL_ERR_USAGE,
        "--format: subtitles and chapters are of one file, but there are events of \"%s\" and \"%s\": choose "
        "with --source",
        first.source, first.other);
}

// ---- Running

struct output {
    struct sl_writer *writer;
    struct sl_error *error;
    int64_t left; // events still to print; negative: no limit
    int status, cut;
};

static int print_event(const struct sl_db_event *event, void *user)
{
    struct output *out = user;
    if (out->left == 0) {
        out->cut = 1;
        return 1;
    }
    out->left--;
    out->status = sl_writer_add(out->writer, event, out->error);
    return out->status != SL_OK || ferror(stdout);
}

static int print_events(struct sl_db *db, const struct options *o, const struct sl_zone *zone, struct sl_error *e)
{
    struct output out = {.error = e, .left = o->query.limit > 0 ? o->query.limit : -1};
    struct sl_db_query query = o->query;
    query.limit += query.limit > 0; // one more, to see whether there are more
    out.writer = sl_writer_create(stdout, o->format, zone, e);
    if (out.writer == NULL) {
        return e->status;
    }
    int status = sl_db_query(db, &query, print_event, &out, e);
    if (status == SL_OK) {
        status = out.status;
    }
    sl_writer_end(out.writer);
    sl_writer_destroy(out.writer);
    if (status == SL_OK && out.cut && !o->limit_given) {
        fprintf(stderr, "scenelog: these are the first %" PRId64 "; --limit 0 shows all\n", o->query.limit);
    }
    return status;
}

static int query(struct options *o, const struct sl_zone *zone, struct sl_error *e)
{
    struct sl_db *db = NULL;
    int status = parse_times(o, zone, e);
    if (status == SL_OK) {
        status = sl_db_open(&db, o->index_path, SL_DB_READ, e);
    }
    if (status == SL_OK && sl_format_is_of_one_file(o->format)) {
        status = check_one_file(db, &o->query, e);
    }
    if (status == SL_OK) {
        status = print_events(db, o, zone, e);
    }
    sl_db_close(db);
    return status;
}

int sl_cmd_query(int argc, char **argv)
{
    struct options options;
    struct sl_error error = {0};
    struct sl_zone *zone = NULL;
    int status = parse_options(argc, argv, &options, &error);
    if (status == SL_OK) {
        status = sl_zone_open(options.zone_name, &zone, &error);
    }
    if (status == SL_OK) {
        status = query(&options, zone, &error);
    }
    sl_zone_close(zone);
    return status == SL_OK ? 0 : sl_report(&error);
}
