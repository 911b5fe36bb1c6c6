// SPDX-License-Identifier: Apache-2.0
#include "lm/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sl_kv {
    struct sl_device *device;
    struct sl_kv_shape shape;
    struct sl_kv_layer *layer; // [layers]; k and v of each are allocations of their own
    uint16_t *references;      // [pages]
    int32_t *free_page;        // stack of unused pages
    int64_t free_pages;
    int64_t promised;   // of the free pages: reserved by living sequences
    int32_t *page_list; // [sequences][pages]
    int *free_slot;     // stack of unused page lists
    int free_slot_count;
};

static int64_t pages_for(const struct sl_kv *kv, int64_t tokens)
{
    return (tokens + kv->shape.page_tokens - 1) / kv->shape.page_tokens;
}

static int allocate_layers(struct sl_kv *kv, struct sl_error *error)
{
    const struct sl_kv_shape *s = &kv->shape;
    for (int i = 0; i < s->layers; i++) {
        struct sl_tensor *side[2] = {&kv->layer[i].k, &kv->layer[i].v};
        for (int j = 0; j < 2; j++) {
            *side[j] = sl_tensor_4d(NULL, s->dtype, s->pages, s->kv_heads, s->page_tokens, s->head_dim);
            int rc = kv->device->ops->alloc(kv->device, sl_tensor_bytes(side[j]), &side[j]->data, error);
            if (rc) {
                return sl_fail_at(error, "KV cache of %lld tokens", (long long)(s->pages * s->page_tokens));
            }
        }
    }
    return SL_OK;
}

int sl_kv_create(struct sl_device *device, const struct sl_kv_shape *shape, struct sl_kv **out, struct sl_error *error)
{
    assert(shape->pages > 0 && shape->pages <= INT32_MAX && shape->page_tokens > 0 && shape->sequences > 0);
    struct sl_kv *kv = calloc(1, sizeof *kv);
    if (!kv) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: KV cache");
    }
    kv->device = device;
    kv->shape = *shape;
    kv->layer = calloc((size_t)shape->layers, sizeof *kv->layer);
    kv->references = calloc((size_t)shape->pages, sizeof *kv->references);
    kv->free_page = calloc((size_t)shape->pages, sizeof *kv->free_page);
    kv->page_list = calloc((size_t)shape->pages * (size_t)shape->sequences, sizeof *kv->page_list);
    kv->free_slot = calloc((size_t)shape->sequences, sizeof *kv->free_slot);
    int rc = SL_OK;
    if (!kv->layer || !kv->references || !kv->free_page || !kv->page_list || !kv->free_slot) {
        rc = sl_fail(error, SL_ERR_MEMORY, "out of memory: KV cache");
    }
    if (!rc) {
        rc = allocate_layers(kv, error);
    }
    if (rc) {
        sl_kv_destroy(kv);
        return rc;
    }
    // Low numbers are on top of both stacks.
    for (int64_t i = 0; i < shape->pages; i++) {
        kv->free_page[i] = (int32_t)(shape->pages - 1 - i);
    }
    kv->free_pages = shape->pages;
    for (int i = 0; i < shape->sequences; i++) {
        kv->free_slot[i] = shape->sequences - 1 - i;
    }
    kv->free_slot_count = shape->sequences;
    *out = kv;
    return SL_OK;
}

void sl_kv_destroy(struct sl_kv *kv)
{
    if (!kv) {
        return;
    }
    for (int i = 0; kv->layer && i < kv->shape.layers; i++) {
        kv->device->ops->release(kv->device, kv->layer[i].k.data);
        kv->device->ops->release(kv->device, kv->layer[i].v.data);
    }
    free(kv->layer);
    free(kv->references);
    free(kv->free_page);
    free(kv->page_list);
    free(kv->free_slot);
    free(kv);
}

const struct sl_kv_layer *sl_kv_layer(const struct sl_kv *kv, int layer)
{
    return &kv->layer[layer];
}

int64_t sl_kv_free_tokens(const struct sl_kv *kv)
{
    return (kv->free_pages - kv->promised) * kv->shape.page_tokens;
}

int64_t sl_kv_total_tokens(const struct sl_kv *kv)
{
    return kv->shape.pages * kv->shape.page_tokens;
}

// `held`: pages at the front that need not be taken from the free ones.
static int reserve(struct sl_kv *kv, int64_t tokens, int64_t held, struct sl_kv_sequence *out, struct sl_error *error)
{
    int64_t capacity = pages_for(kv, tokens), needed = capacity - held;
    if (needed > kv->free_pages - kv->promised || !kv->free_slot_count) {
        return sl_fail(error, SL_ERR_BUSY, "KV cache is full: %lld tokens wanted, %lld free", (long long)tokens,
                       (long long)sl_kv_free_tokens(kv));
    }
    kv->promised += needed;
    int slot = kv->free_slot[--kv->free_slot_count];
    *out = (struct sl_kv_sequence){
        .kv = kv, .slot = slot, .capacity = capacity, .page = kv->page_list + (int64_t)slot * kv->shape.pages};
    return SL_OK;
}

int sl_kv_start(struct sl_kv *kv, int64_t tokens, struct sl_kv_sequence *out, struct sl_error *error)
{
    return reserve(kv, tokens, 0, out, error);
}

void sl_kv_grow(struct sl_kv_sequence *sequence, int64_t count)
{
    struct sl_kv *kv = sequence->kv;
    sequence->length += count;
    int64_t needed = pages_for(kv, sequence->length);
    assert(needed <= sequence->capacity);
    for (; sequence->page_count < needed; sequence->page_count++) {
        int32_t page = kv->free_page[--kv->free_pages];
        kv->promised--;
        kv->references[page] = 1;
        sequence->page[sequence->page_count] = page;
    }
}

static void copy_page(struct sl_stream *stream, const struct sl_kv *kv, int32_t from, int32_t to)
{
    for (int i = 0; i < kv->shape.layers; i++) {
        const struct sl_tensor *side[2] = {&kv->layer[i].k, &kv->layer[i].v};
        for (int j = 0; j < 2; j++) {
            struct sl_tensor source = sl_tensor_rows(side[j], from, 1), target = sl_tensor_rows(side[j], to, 1);
            kv->device->ops->copy(stream, target.data, source.data, sl_tensor_bytes(&source));
        }
    }
}

int sl_kv_fork(struct sl_stream *stream, const struct sl_kv_sequence *parent, int64_t shared, int64_t tokens,
               struct sl_kv_sequence *out, struct sl_error *error)
{
    struct sl_kv *kv = parent->kv;
    assert(shared <= parent->length && shared <= tokens);
    int64_t full = shared / kv->shape.page_tokens;
    int rc = reserve(kv, tokens, full, out, error);
    if (rc) {
        return rc;
    }
    memcpy(out->page, parent->page, (size_t)full * sizeof *out->page);
    for (int64_t i = 0; i < full; i++) {
        kv->references[out->page[i]]++;
    }
    out->page_count = full;
    out->length = full * kv->shape.page_tokens;
    if (shared > out->length) {
        sl_kv_grow(out, shared - out->length);
        copy_page(stream, kv, parent->page[full], out->page[full]);
    }
    return SL_OK;
}

void sl_kv_finish(struct sl_kv_sequence *sequence)
{
    struct sl_kv *kv = sequence->kv;
    if (!kv) {
        return;
    }
    for (int64_t i = 0; i < sequence->page_count; i++) {
        if (--kv->references[sequence->page[i]] == 0) {
            kv->free_page[kv->free_pages++] = sequence->page[i];
        }
    }
    kv->promised -= sequence->capacity - sequence->page_count;
    kv->free_slot[kv->free_slot_count++] = sequence->slot;
    *sequence = (struct sl_kv_sequence){0};
}
