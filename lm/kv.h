// SPDX-License-Identifier: Apache-2.0
// The KV cache: one pool of pages for all sequences of an engine. Pages are reference-counted, so that a fork shares
// the full pages of its parent; the partial last page is copied at once, for its very next token would part the two.
//
// A sequence reserves at its start all pages that it may ever need: once admitted it cannot run dry.
// The pool owns device memory; a sequence's page list is memory of the pool too, given back by sl_kv_finish.
// One thread at a time.
#ifndef SL_LM_KV_H
#define SL_LM_KV_H

#include "core/device.h"

enum { SL_KV_PAGE_TOKENS = 64 };

struct sl_kv;

struct sl_kv_shape {
    int layers, kv_heads, head_dim;
    enum sl_dtype dtype;
    int page_tokens;
    int64_t pages; // of the pool
    int sequences; // the most that live at once
};

struct sl_kv_sequence {
    int32_t *page;      // [capacity] page numbers in order
    int64_t length;     // tokens
    int64_t page_count; // pages held
    int64_t capacity;   // pages that it may come to hold
    struct sl_kv *kv;   // NULL: not started
    int slot;           // of the pool's page lists
};

int sl_kv_create(struct sl_device *device, const struct sl_kv_shape *shape, struct sl_kv **out, struct sl_error *error);
void sl_kv_destroy(struct sl_kv *kv); // accepts NULL; no sequence may be alive

const struct sl_kv_layer *sl_kv_layer(const struct sl_kv *kv, int layer);
int64_t sl_kv_free_tokens(const struct sl_kv *kv);  // that a new sequence could reserve now
int64_t sl_kv_total_tokens(const struct sl_kv *kv); // that one sequence alone could reserve

// An empty sequence that may grow to `tokens`. SL_ERR_BUSY when the pool cannot promise that now.
int sl_kv_start(struct sl_kv *kv, int64_t tokens, struct sl_kv_sequence *out, struct sl_error *error);

// A sequence that begins with the first `shared` tokens of `parent` and may grow to `tokens`. The copy of a partial
// page is enqueued on `stream`, which must be the one that fills the cache.
int sl_kv_fork(struct sl_stream *stream, const struct sl_kv_sequence *parent, int64_t shared, int64_t tokens,
               struct sl_kv_sequence *out, struct sl_error *error);

// Room for `count` more tokens. Within what was reserved this cannot fail.
void sl_kv_grow(struct sl_kv_sequence *sequence, int64_t count);

void sl_kv_finish(struct sl_kv_sequence *sequence); // accepts one not started

#endif
