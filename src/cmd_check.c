// SPDX-License-Identifier: Apache-2.0
// `scenelog check`: is the index whole, and what of each source was looked at.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/time.h"
#include "db/db.h"
#include "src/commands.h"
#include "src/format.h"
#include "src/options.h"

static const char *const seen_names[] = {
    [SL_DB_NEVER] = "never looked at", [SL_DB_SPAN_DROPPED] = "dropped",
    [SL_DB_SPAN_FAILED] = "failed",    [SL_DB_SEEN] = "seen",
    [SL_DB_OUTAGE] = "outage",
};
static const char *const seen_keys[] = {
    [SL_DB_NEVER] = "never", [SL_DB_SPAN_DROPPED] = "dropped", [SL_DB_SPAN_FAILED] = "failed",
    [SL_DB_SEEN] = "seen",   [SL_DB_OUTAGE] = "outage",
};

struct check {
    const char *index_path;
    struct sl_db *db;
    struct sl_error *error;
    int json, status;
    int64_t faults, works, unseen_spans;
    // Of the work at hand:
    const struct sl_db_work *work;
    const char *path; // of the last span printed
    int64_t segment, spans, total_us[SL_DB_OUTAGE + 1];
};

// ---- Faults of the file

static int print_fault(const char *line, void *user)
{
    struct check *check = user;
    if (check->json) {
        fputs(check->faults > 0 ? "," : "", stdout);
        sl_format_json_string(stdout, line);
    } else {
        fputs("fault: ", stdout);
        sl_format_column(stdout, line, 0);
        fputc('\n', stdout);
    }
    check->faults++;
    return 0;
}

// ---- Coverage

static void print_json_span(struct check *check, const struct sl_db_span *span)
{
    printf("%s{\"segment\":%" PRId64 ",\"path\":", check->spans > 0 ? "," : "", span->segment);
    if (span->path != NULL) {
        sl_format_json_string(stdout, span->path);
    } else {
        fputs("null", stdout);
    }
    printf(",\"start_us\":%" PRId64 ",\"end_us\":%" PRId64 ",\"state\":\"%s\",\"cause\":", span->start_us, span->end_us,
           seen_keys[span->seen]);
    if (span->cause != NULL) {
        sl_format_json_string(stdout, span->cause);
    } else {
        fputs("null", stdout);
    }
    char wall[SL_TIME_TEXT];
    sl_time_format_absolute(span->wall_start_us != SL_NO_TIME ? span->wall_start_us : 0, NULL, wall);
    printf(span->wall_start_us != SL_NO_TIME ? ",\"wall_start\":\"%s\"}" : ",\"wall_start\":null}", wall);
}

static void print_span(struct check *check, const struct sl_db_span *span)
{
    char start[SL_TIME_TEXT], end[SL_TIME_TEXT];
    if (span->segment != check->segment && span->segment != 0) {
        fputs("  ", stdout);
        sl_format_column(stdout, span->path, 0);
        fputc('\n', stdout);
    }
    int wall = span->live && span->wall_start_us != SL_NO_TIME;
    if (wall) { // nobody knows when a connection began
        sl_time_format_absolute(span->wall_start_us, NULL, start);
        sl_time_format_absolute(span->wall_start_us + span->end_us - span->start_us, NULL, end);
    } else {
        sl_time_format_clock(span->start_us, start);
        sl_time_format_clock(span->end_us, end);
    }
    printf(wall ? "    %-26s%-26s%s" : "    %-14s%-14s%s", start, end, seen_names[span->seen]);
    if (span->cause != NULL) {
        fputs(": ", stdout);
        sl_format_column(stdout, span->cause, 0);
    }
    fputc('\n', stdout);
}

static int take_span(const struct sl_db_span *span, void *user)
{
    struct check *check = user;
    check->total_us[span->seen] += span->end_us - span->start_us;
    check->unseen_spans += span->seen != SL_DB_SEEN;
    if (check->json) {
        print_json_span(check, span);
    } else {
        print_span(check, span);
    }
    check->segment = span->segment;
    check->spans++;
    return 0;
}

static void print_json_work(struct check *check, const struct sl_db_work *work)
{
    fputs(check->works > 0 ? ",{\"source\":" : "{\"source\":", stdout);
    sl_format_json_string(stdout, work->source);
    printf(",\"task\":%" PRId64 ",\"newest\":%s,\"busy\":%s,\"windows_done\":%" PRId64 ",\"windows_failed\":%" PRId64
           ",\"windows_dropped\":%" PRId64 ",\"events\":%" PRId64 ",\"task_text\":",
           work->task, work->newest ? "true" : "false", work->busy ? "true" : "false", work->windows_done,
           work->windows_failed, work->windows_dropped, work->events);
    sl_format_json_string(stdout, work->task_text);
    fputs(",\"coverage\":[", stdout);
}

static void print_work(const struct sl_db_work *work)
{
    fputs("source \"", stdout);
    sl_format_column(stdout, work->source, 0);
    printf("\", task %" PRId64 "%s%s: %" PRId64 " windows done, %" PRId64 " failed, %" PRId64 " dropped; %" PRId64
           " events\n",
           work->task, work->newest ? " (newest)" : "", work->busy ? ", being indexed" : "", work->windows_done,
           work->windows_failed, work->windows_dropped, work->events);
}

static void print_totals(const struct check *check)
{
    int64_t all_us = 0;
    for (int i = 0; i <= SL_DB_OUTAGE; i++) {
        all_us += check->total_us[i];
    }
    if (all_us == 0) {
        printf("  nothing was looked at\n");
        return;
    }
    printf("  seen %.2f %%", 100.0 * (double)check->total_us[SL_DB_SEEN] / (double)all_us);
    for (int i = 0; i <= SL_DB_OUTAGE; i++) {
        if (i != SL_DB_SEEN && check->total_us[i] > 0) {
            printf(", %s %.3f s", seen_names[i], (double)check->total_us[i] / 1e6);
        }
    }
    putchar('\n');
}

static int check_work(const struct sl_db_work *work, void *user)
{
    struct check *check = user;
    check->segment = check->spans = 0;
    memset(check->total_us, 0, sizeof check->total_us);
    if (check->json) {
        print_json_work(check, work);
    } else {
        print_work(work);
    }
    check->status = sl_db_coverage(check->db, work->source_id, work->task, take_span, check, check->error);
    if (check->json) {
        fputs("]}", stdout);
    } else {
        print_totals(check);
    }
    check->unseen_spans += check->spans == 0;
    check->works++;
    return check->status != SL_OK;
}

// ---- All of it

static int check_all(struct check *check)
{
    struct sl_error *e = check->error;
    if (check->json) {
        fputs("{\"faults\":[", stdout);
    }
    int status = sl_db_verify(check->db, print_fault, check, e);
    if (check->json) {
        fputs("],\"works\":[", stdout);
    }
    if (status == SL_OK) {
        status = sl_db_works(check->db, NULL, check_work, check, e);
    }
    if (status == SL_OK) {
        status = check->status;
    }
    int whole = status == SL_OK && check->faults == 0 && check->unseen_spans == 0;
    if (check->json) {
        printf("],\"whole\":%s}\n", whole ? "true" : "false");
    } else if (whole) {
        printf("whole: no faults, everything was seen\n");
    }
    if (status != SL_OK || whole) {
        return status;
    }
    return sl_fail(e, SL_ERR_PARTIAL,
                   "check: %" PRId64 " faults of the file, %" PRId64
                   " spans not seen (failed, dropped, outage or never "
                   "looked at)",
                   check->faults, check->unseen_spans);
}

static int set_option(void *context, int option, const char *text, struct sl_error *e)
{
    (void)e;
    struct check *check = context;
    if (option == 'j') {
        check->json = 1;
    } else {
        check->index_path = text;
    }
    return SL_OK;
}

static int parse_options(int argc, char **argv, struct check *check, struct sl_error *e)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"index", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0}};
    int status = sl_options_read(argc, argv, ":d:", long_options, set_option, check, e);
    if (status != SL_OK) {
        return status;
    }
    if (argc - optind > (check->index_path == NULL)) {
        return sl_fail(e, SL_ERR_USAGE, "check: takes one index; see 'scenelog help check'");
    }
    if (optind < argc) {
        check->index_path = argv[optind];
    } else if (check->index_path == NULL) {
        check->index_path = sl_default_index();
    }
    return SL_OK;
}

int sl_cmd_check(int argc, char **argv)
{
    struct sl_error error = {0};
    struct check check = {.error = &error};
    int status = parse_options(argc, argv, &check, &error);
    if (status == SL_OK) {
        status = sl_db_open(&check.db, check.index_path, SL_DB_READ, &error);
    }
    if (status == SL_OK) {
        status = check_all(&check);
    }
    sl_db_close(check.db);
    return status == SL_OK ? 0 : sl_report(&error);
}
