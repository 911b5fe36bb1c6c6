// SPDX-License-Identifier: Apache-2.0
#include "lm/position.h"

static int64_t advance_of(const struct sl_segment *segment)
{
    if (segment->ids) {
        return segment->count;
    }
    return segment->rows > segment->columns ? segment->rows : segment->columns;
}

int sl_prompt_measure(const struct sl_segment *segments, int segment_count, int64_t *tokens, int64_t *end_position,
                      struct sl_error *error)
{
    *tokens = *end_position = 0;
    for (int i = 0; i < segment_count; i++) {
        const struct sl_segment *s = &segments[i];
        if (s->count <= 0) {
            return sl_fail(error, SL_ERR_USAGE, "prompt segment %d is empty", i);
        }
        if (!s->ids && (!s->visual || s->rows <= 0 || s->columns <= 0 || (int64_t)s->rows * s->columns != s->count)) {
            return sl_fail(error, SL_ERR_USAGE, "prompt segment %d: %lld visual tokens do not make a grid of %d x %d",
                           i, (long long)s->count, s->rows, s->columns);
        }
        *tokens += s->count;
        *end_position += advance_of(s);
    }
    if (!*tokens) {
        return sl_fail(error, SL_ERR_USAGE, "the prompt is empty");
    }
    return SL_OK;
}

int sl_prompt_walk_next(struct sl_prompt_walk *walk, int64_t limit, struct sl_prompt_piece *piece)
{
    if (walk->segment == walk->segment_count) {
        return 0;
    }
    const struct sl_segment *segment = &walk->segments[walk->segment];
    int64_t left = segment->count - walk->offset;
    *piece = (struct sl_prompt_piece){segment, walk->offset, left < limit ? left : limit, walk->position};
    walk->offset += piece->count;
    if (walk->offset == segment->count) {
        walk->segment++;
        walk->offset = 0;
        walk->position += advance_of(segment);
    }
    return 1;
}

void sl_prompt_piece_positions(const struct sl_prompt_piece *piece, int32_t *t, int32_t *h, int32_t *w)
{
    for (int64_t i = 0; i < piece->count; i++) {
        int64_t token = piece->offset + i;
        if (piece->segment->ids) {
            t[i] = h[i] = w[i] = (int32_t)(piece->position + token);
        } else {
            t[i] = (int32_t)piece->position;
            h[i] = (int32_t)(piece->position + token / piece->segment->columns);
            w[i] = (int32_t)(piece->position + token % piece->segment->columns);
        }
    }
}
