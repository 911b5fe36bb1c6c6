// SPDX-License-Identifier: Apache-2.0
// How far the indexing of one file has come, on stderr: one line that renews itself on a terminal, a plain line now and
// then elsewhere, or JSON Lines.
#ifndef SL_SRC_PROGRESS_H
#define SL_SRC_PROGRESS_H

#include <pthread.h>

#include "src/pipeline.h"

enum sl_progress_form { SL_PROGRESS_AUTO, SL_PROGRESS_PLAIN, SL_PROGRESS_JSON, SL_PROGRESS_NONE };

struct sl_progress {
    enum sl_progress_form form;
    int terminal;
    const char *path;
    int64_t from_us; // media time at which the run begins
    int64_t started_ms, shown_ms;
    int line_open; // a renewing line stands on the terminal
    pthread_mutex_t lock;
};

void sl_progress_init(struct sl_progress *progress, enum sl_progress_form form);
void sl_progress_finish(struct sl_progress *progress);
void sl_progress_begin(struct sl_progress *progress, const char *path, int64_t from_us);
// Called often; shows when it is time to.
void sl_progress_tick(struct sl_progress *progress, const struct sl_pipeline_progress *now);
void sl_progress_end(struct sl_progress *progress, const struct sl_pipeline_progress *now);
// One line "scenelog: text", clear of the renewing line; with JSON, {"state":"note","text":...}. Any thread.
void sl_progress_note(struct sl_progress *progress, const char *text);
// The error that ends the run, in the same form; returns the exit code.
int sl_progress_report(const struct sl_progress *progress, const struct sl_error *error);

#endif
