// SPDX-License-Identifier: Apache-2.0
#include "lm/bpe.h"

#include <stdlib.h>

// Open addressing; `left` < 0 marks a free slot.
struct merge {
    int32_t left, right, rank, joined;
};

struct sl_bpe {
    struct merge *slots;
    size_t mask; // slots - 1, a power of two less one
};

// A pair that may be joined, if it still stands there when its turn comes.
struct sl_bpe_candidate {
    int32_t rank, position, left, right;
};

int sl_bpe_create(size_t merges, struct sl_bpe **out, struct sl_error *error)
{
    size_t slots = 16;
    while (slots < 2 * merges) {
        slots *= 2;
    }
    struct sl_bpe *bpe = malloc(sizeof *bpe);
    struct merge *table = malloc(slots * sizeof *table);
    if (bpe == NULL || table == NULL) {
        free(bpe);
        free(table);
        return sl_fail(error, SL_ERR_MEMORY, "no memory for %zu merges", merges);
    }
    for (size_t i = 0; i < slots; i++) {
        table[i].left = -1;
    }
    *bpe = (struct sl_bpe){table, slots - 1};
    *out = bpe;
    return SL_OK;
}

void sl_bpe_destroy(struct sl_bpe *bpe)
{
    if (bpe != NULL) {
        free(bpe->slots);
        free(bpe);
    }
}

// The slot of the pair, or the free one where it would stand.
static struct merge *find(const struct sl_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & bpe->mask;
    while (bpe->slots[at].left >= 0 && (bpe->slots[at].left != left || bpe->slots[at].right != right)) {
        at = (at + 1) & bpe->mask;
    }
    return &bpe->slots[at];
}

void sl_bpe_add(struct sl_bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t joined)
{
    *find(bpe, left, right) = (struct merge){left, right, rank, joined};
}

static int reserve(struct sl_bpe_scratch *scratch, size_t count, struct sl_error *error)
{
    if (count <= scratch->capacity) {
        return SL_OK;
    }
    sl_bpe_scratch_finish(scratch);
    size_t capacity = count < 64 ? 64 : count + count / 2;
    // Every joining takes one token away and adds two candidates at most, to the count - 1 of the beginning.
    scratch->heap = malloc(3 * capacity * sizeof *scratch->heap);
    scratch->next = malloc(capacity * sizeof *scratch->next);
    scratch->previous = malloc(capacity * sizeof *scratch->previous);
    if (scratch->heap == NULL || scratch->next == NULL || scratch->previous == NULL) {
        sl_bpe_scratch_finish(scratch);
        return sl_fail(error, SL_ERR_MEMORY, "no memory to split a word of %zu bytes", count);
    }
    scratch->capacity = capacity;
    return SL_OK;
}

void sl_bpe_scratch_finish(struct sl_bpe_scratch *scratch)
{
    free(scratch->heap);
    free(scratch->next);
    free(scratch->previous);
    *scratch = (struct sl_bpe_scratch){0};
}

static int before(const struct sl_bpe_candidate *a, const struct sl_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void push(struct sl_bpe_candidate *heap, size_t *size, struct sl_bpe_candidate candidate)
{
    size_t at = (*size)++;
    while (at > 0 && before(&candidate, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

static struct sl_bpe_candidate pop(struct sl_bpe_candidate *heap, size_t *size)
{
    struct sl_bpe_candidate top = heap[0], last = heap[--*size];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < *size) {
        child += child + 1 < *size && before(&heap[child + 1], &heap[child]);
        if (!before(&heap[child], &last)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

// The tokens at `left` and the one after it become a candidate if the table has them.
static void consider(const struct sl_bpe *bpe, struct sl_bpe_scratch *scratch, size_t *size, const int32_t *ids,
                     int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return;
    }
    const struct merge *merge = find(bpe, ids[left], ids[right]);
    if (merge->left >= 0) {
        push(scratch->heap, size, (struct sl_bpe_candidate){merge->rank, left, ids[left], ids[right]});
    }
}

int sl_bpe_merge(const struct sl_bpe *bpe, struct sl_bpe_scratch *scratch, int32_t *ids, size_t *count,
                 struct sl_error *error)
{
    int32_t n = (int32_t)*count;
    int rc = reserve(scratch, *count, error);
    if (rc < 0 || n == 0) {
        return rc;
    }
    int32_t *next = scratch->next, *previous = scratch->previous;
    size_t size = 0;
    for (int32_t i = 0; i < n; i++) {
        next[i] = i + 1 < n ? i + 1 : -1;
        previous[i] = i - 1;
    }
    for (int32_t i = 0; i + 1 < n; i++) {
        consider(bpe, scratch, &size, ids, i, i + 1);
    }
    while (size > 0) {
        struct sl_bpe_candidate top = pop(scratch->heap, &size);
        int32_t left = top.position, right = next[left];
        if (ids[left] != top.left || right < 0 || ids[right] != top.right) {
            continue; // one of the two has been joined with another meanwhile
        }
        ids[left] = find(bpe, top.left, top.right)->joined;
        ids[right] = -1;
        next[left] = next[right];
        if (next[left] >= 0) {
            previous[next[left]] = left;
        }
        consider(bpe, scratch, &size, ids, previous[left], left);
        consider(bpe, scratch, &size, ids, left, next[left]);
    }
    size_t kept = 0;
    for (int32_t i = 0; i >= 0; i = next[i]) {
        ids[kept++] = ids[i];
    }
    *count = kept;
    return SL_OK;
}
