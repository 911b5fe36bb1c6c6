// SPDX-License-Identifier: Apache-2.0
#include "src/progress.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/options.h"
#include "src/timing.h"

enum { TERMINAL_EVERY_MS = 250, PLAIN_EVERY_MS = 10000, JSON_EVERY_MS = 1000 };

void sl_progress_init(struct sl_progress *progress, enum sl_progress_form form)
{
    *progress = (struct sl_progress){.form = form, .terminal = isatty(STDERR_FILENO) == 1};
    pthread_mutex_init(&progress->lock, NULL);
}

void sl_progress_finish(struct sl_progress *progress)
{
    if (progress->line_open) { // the run broke off; what comes next has a line of its own
        fputs("\n", stderr);
    }
    pthread_mutex_destroy(&progress->lock);
}

void sl_progress_begin(struct sl_progress *progress, const char *path, int64_t from_us)
{
    progress->path = path;
    progress->from_us = from_us;
    progress->started_ms = sl_timing_now_ms();
    progress->shown_ms = progress->started_ms;
}

struct figures {
    double media_s, duration_s, seconds, speed, tokens_per_s, eta_s;
    int64_t done, failed, skipped, events;
};

static struct figures figures_of(const struct sl_progress *progress, const struct sl_pipeline_progress *now)
{
    struct figures f = {
        .media_s = (double)(atomic_load(&now->media_us) - progress->from_us) / 1e6,
        .duration_s = (double)atomic_load(&now->duration_us) / 1e6,
        .seconds = (double)(sl_timing_now_ms() - progress->started_ms) / 1e3,
        .done = atomic_load(&now->windows_done),
        .failed = atomic_load(&now->windows_failed),
        .skipped = atomic_load(&now->windows_skipped),
        .events = atomic_load(&now->events),
    };
    if (f.seconds > 0) {
        f.speed = f.media_s / f.seconds;
        f.tokens_per_s = (double)atomic_load(&now->generated_tokens) / f.seconds;
    }
    f.eta_s = f.speed > 0 && f.duration_s > f.media_s ? (f.duration_s - f.media_s) / f.speed : 0;
    return f;
}

static void show_json(const struct sl_progress *progress, const struct figures *f, const char *state)
{
    cJSON *line = cJSON_CreateObject();
    int whole = cJSON_AddStringToObject(line, "state", state) != NULL &&
                cJSON_AddStringToObject(line, "path", progress->path) != NULL &&
                cJSON_AddNumberToObject(line, "media_seconds", f->media_s) != NULL &&
                cJSON_AddNumberToObject(line, "duration_seconds", f->duration_s) != NULL &&
                cJSON_AddNumberToObject(line, "elapsed_seconds", f->seconds) != NULL &&
                cJSON_AddNumberToObject(line, "speed", f->speed) != NULL &&
                cJSON_AddNumberToObject(line, "windows_done", (double)f->done) != NULL &&
                cJSON_AddNumberToObject(line, "windows_failed", (double)f->failed) != NULL &&
                cJSON_AddNumberToObject(line, "windows_skipped", (double)f->skipped) != NULL &&
                cJSON_AddNumberToObject(line, "events", (double)f->events) != NULL &&
                cJSON_AddNumberToObject(line, "tokens_per_second", f->tokens_per_s) != NULL &&
                cJSON_AddNumberToObject(line, "eta_seconds", f->eta_s) != NULL;
    char *text = whole ? cJSON_PrintUnformatted(line) : NULL;
    if (text != NULL) {
        fprintf(stderr, "%s\n", text);
    }
    free(text);
    cJSON_Delete(line);
}

enum { SHOWN_BYTES = 60 };

// The end of a long path, without what would break the line.
static void shown_path(const char *path, char out[SHOWN_BYTES + 4])
{
    size_t size = strlen(path);
    const char *from = size > SHOWN_BYTES ? path + size - SHOWN_BYTES : path;
    while (from > path && ((unsigned char)*from & 0xc0) == 0x80) {
        from++; // not in the middle of a UTF-8 character
    }
    snprintf(out, SHOWN_BYTES + 4, "%s%s", from > path ? "..." : "", from);
    for (char *c = out; *c != 0; c++) {
        *c = (unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c;
    }
}

static void show_text(struct sl_progress *progress, const struct figures *f, int last)
{
    char path[SHOWN_BYTES + 4], line[320];
    shown_path(progress->path, path);
    int n = snprintf(line, sizeof line, "%s: %.0f of %.0f s, %.1fx real time, %" PRId64 " windows", path, f->media_s,
                     f->duration_s, f->speed, f->done);
    if (f->failed > 0 && n > 0 && (size_t)n < sizeof line) {
        n += snprintf(line + n, sizeof line - (size_t)n, " (%" PRId64 " failed)", f->failed);
    }
    if (f->skipped > 0 && n > 0 && (size_t)n < sizeof line) {
        n += snprintf(line + n, sizeof line - (size_t)n, " (%" PRId64 " done before)", f->skipped);
    }
    if (n > 0 && (size_t)n < sizeof line) {
        n +=
            snprintf(line + n, sizeof line - (size_t)n, ", %" PRId64 " events, %.0f tok/s", f->events, f->tokens_per_s);
    }
    if (!last && n > 0 && (size_t)n < sizeof line) {
        snprintf(line + n, sizeof line - (size_t)n, ", %.0f s left", f->eta_s);
    }
    if (progress->terminal && progress->form == SL_PROGRESS_AUTO) {
        fprintf(stderr, "\r\033[K%s%s", line, last ? "\n" : "");
        progress->line_open = !last;
    } else {
        fprintf(stderr, "scenelog: %s\n", line);
    }
}

static void show(struct sl_progress *progress, const struct sl_pipeline_progress *now, int last)
{
    struct figures f = figures_of(progress, now);
    pthread_mutex_lock(&progress->lock);
    if (progress->form == SL_PROGRESS_JSON) {
        show_json(progress, &f, last ? "end" : "running");
    } else if (progress->form != SL_PROGRESS_NONE) {
        show_text(progress, &f, last);
    }
    pthread_mutex_unlock(&progress->lock);
}

void sl_progress_tick(struct sl_progress *progress, const struct sl_pipeline_progress *now)
{
    int every = progress->form == SL_PROGRESS_JSON                         ? JSON_EVERY_MS
                : progress->terminal && progress->form == SL_PROGRESS_AUTO ? TERMINAL_EVERY_MS
                                                                           : PLAIN_EVERY_MS;
    if (sl_timing_now_ms() - progress->shown_ms >= every) {
        progress->shown_ms = sl_timing_now_ms();
        show(progress, now, 0);
    }
}

void sl_progress_end(struct sl_progress *progress, const struct sl_pipeline_progress *now)
{
    show(progress, now, 1);
}

static void say_json(const char *state, const char *text)
{
    cJSON *line = cJSON_CreateObject();
    int whole =
        cJSON_AddStringToObject(line, "state", state) != NULL && cJSON_AddStringToObject(line, "text", text) != NULL;
    char *json = whole ? cJSON_PrintUnformatted(line) : NULL;
    if (json != NULL) {
        fprintf(stderr, "%s\n", json);
    }
    free(json);
    cJSON_Delete(line);
}

void sl_progress_note(struct sl_progress *progress, const char *text)
{
    pthread_mutex_lock(&progress->lock);
    if (progress->form == SL_PROGRESS_JSON) {
        say_json("note", text);
    } else {
        fprintf(stderr, "%sscenelog: %s\n", progress->line_open ? "\r\033[K" : "", text);
    }
    progress->line_open = 0;
    pthread_mutex_unlock(&progress->lock);
}

int sl_progress_report(const struct sl_progress *progress, const struct sl_error *error)
{
    if (progress->form != SL_PROGRESS_JSON) {
        return sl_report(error);
    }
    say_json("error", error->text);
    return sl_exit_code(error->status);
}
