// SPDX-License-Identifier: Apache-2.0
// Byte-pair merges: of all neighbours in a word, the pair of the lowest rank is joined first, the leftmost of equals,
// until no pair is in the table. O(n log n) for a word of n bytes: words come from users and may be long.
//
// A table is filled, then immutable: any thread. A scratch belongs to one thread at a time.
#ifndef SL_LM_BPE_H
#define SL_LM_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct sl_bpe;

// Memory that merging uses; a zeroed one is fine. Grows with the longest word.
struct sl_bpe_scratch {
    struct sl_bpe_candidate *heap;
    int32_t *next, *previous;
    size_t capacity;
};

int sl_bpe_create(size_t merges, struct sl_bpe **out, struct sl_error *error);
void sl_bpe_destroy(struct sl_bpe *bpe); // accepts NULL

// `merges` times at most. Of equal pairs the last one given counts.
void sl_bpe_add(struct sl_bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t joined);

// ids[0 .. *count): the tokens of a word's bytes; merged in place.
int sl_bpe_merge(const struct sl_bpe *bpe, struct sl_bpe_scratch *scratch, int32_t *ids, size_t *count,
                 struct sl_error *error);
void sl_bpe_scratch_finish(struct sl_bpe_scratch *scratch);

#endif
