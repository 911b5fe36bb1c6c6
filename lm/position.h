// SPDX-License-Identifier: Apache-2.0
// A walk over a prompt's segments that yields pieces of bounded length with their positions on the three axes (T, H,
// W). Text advances all axes by one a token. A frame group of r x c tokens that begins at p has T = p, H = p + row,
// W = p + column, and what follows it begins at p + max(r, c). Plain data; any thread.
#ifndef SL_LM_POSITION_H
#define SL_LM_POSITION_H

#include "lm/lm.h"

struct sl_prompt_walk {
    const struct sl_segment *segments;
    int segment_count;
    int segment;      // the one to go on with,
    int64_t offset;   //   its tokens already walked,
    int64_t position; //   where it begins
};

struct sl_prompt_piece {
    const struct sl_segment *segment;
    int64_t offset, count; // tokens of the segment
    int64_t position;      // where the segment begins
};

// Segments must be whole: counts positive, rows * columns equal to the count of a frame group, a provider for each
// frame group. Gives the prompt's tokens and the first position after it. Errors: SL_ERR_USAGE.
int sl_prompt_measure(const struct sl_segment *segments, int segment_count, int64_t *tokens, int64_t *end_position,
                      struct sl_error *error);

// The next piece, of at most `limit` tokens (1 or more); 0 at the end of the prompt.
int sl_prompt_walk_next(struct sl_prompt_walk *walk, int64_t limit, struct sl_prompt_piece *piece);

// Positions of a piece's tokens, one array for each axis.
void sl_prompt_piece_positions(const struct sl_prompt_piece *piece, int32_t *t, int32_t *h, int32_t *w);

#endif
