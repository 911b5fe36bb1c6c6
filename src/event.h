// SPDX-License-Identifier: Apache-2.0
// A model's answer to events: the parser of the answer's text.
//
// Takes what Qwen3-VL gives: one JSON object of "start - end": "sentence", or a list of objects with start, end and
// description; times as mm:ss.ff, hh:mm:ss.ff or seconds, strings or numbers; prose or a code fence around it.
// Pure functions; any thread.
#ifndef SL_SRC_EVENT_H
#define SL_SRC_EVENT_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct sl_event {
    int64_t start_us, end_us;    // counted from the window's start; 0 <= start < end <= window
    char *text;                  // UTF-8, trimmed, not empty
    size_t text_begin, text_end; // where the answer's bytes say it (inside the quotes): for the confidence
};

struct sl_event_list {
    struct sl_event *events; // in the order of the answer
    size_t count;
};

// Parses `text`. An answer that holds no JSON, or an event without a time, with end <= start, outside [0, window_us] or
// without words, fails as a whole (SL_ERR_PARTIAL, with the reason): half an answer would look like a quiet window.
// "{}" and "[]" succeed with no events.
int sl_event_parse(const char *text, size_t size_bytes, int64_t window_us, struct sl_event_list *out,
                   struct sl_error *error);
void sl_event_list_finish(struct sl_event_list *list);

// Geometric mean of the probabilities of the tokens that overlap bytes [begin, end) of the answer, from their log
// probabilities and the number of answer bytes after each token. -1 when no token does.
double sl_event_confidence(const float *logprobs, const size_t *text_ends, size_t tokens, size_t begin, size_t end);

#endif
