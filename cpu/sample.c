// SPDX-License-Identifier: Apache-2.0
// Drawing tokens. In this order: penalty and mask, temperature, top-k, top-p, the draw. Kept tokens are those that come
// first by (value, then lower id); the draw walks over them in the order of their ids.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"

struct candidate {
    float value;
    int32_t id;
};

static int by_value(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->value != y->value ? (x->value < y->value) - (x->value > y->value) : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int has_bit(const uint32_t *bits, int64_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

// All tokens that may be drawn, penalised.
static int64_t collect(const float *logits, int64_t vocab, float presence, const uint32_t *allowed,
                       const uint32_t *seen, struct candidate *out)
{
    int64_t n = 0;
    for (int64_t id = 0; id < vocab; id++) {
        if (allowed && !has_bit(allowed, id)) {
            if (id % 32 == 0 && allowed[id / 32] == 0) {
                id += 31; // a mask leaves few
            }
            continue;
        }
        float penalty = seen && has_bit(seen, id) ? presence : 0;
        out[n++] = (struct candidate){logits[id] - penalty, (int32_t)id};
    }
    return n;
}

// Temperature 0: the best token, of equals the one with the lowest id. -1: nothing is allowed. Most words of a mask are
// all or nothing, so these go 32 tokens at a time.
static int32_t best_of(const struct cpu_kernels *kernels, const float *logits, int64_t vocab, float presence,
                       const uint32_t *allowed, const uint32_t *seen)
{
    struct candidate best = {0, -1}, some[32];
    for (int64_t first = 0; first < vocab; first += 32) {
        int64_t count = vocab - first < 32 ? vocab - first : 32;
        const uint32_t *mask = allowed ? allowed + first / 32 : NULL, *marks = seen ? seen + first / 32 : NULL;
        int plain = (!mask || *mask == UINT32_MAX) && (!marks || !*marks || presence == 0);
        if ((mask && *mask == 0) || (plain && best.id >= 0 && kernels->maximum(logits + first, count) <= best.value)) {
            continue;
        }
        int64_t n = collect(logits + first, count, presence, mask, marks, some);
        for (int64_t i = 0; i < n; i++) {
            if (best.id < 0 || some[i].value > best.value) {
                best = (struct candidate){some[i].value, some[i].id + (int32_t)first};
            }
        }
    }
    return best.id;
}

// Moves the `keep` first by value to the front, in no order (Hoare's selection).
static void select_first(struct candidate *c, int64_t n, int64_t keep)
{
    int64_t low = 0, high = n - 1;
    while (low < high) {
        struct candidate pivot = c[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (by_value(&c[i], &pivot) < 0) {
                i++;
            }
            while (by_value(&c[j], &pivot) > 0) {
                j--;
            }
            if (i <= j) {
                struct candidate swap = c[i];
                c[i++] = c[j];
                c[j--] = swap;
            }
        }
        if (keep <= j) {
            high = j;
        } else if (keep >= i) {
            low = i;
        } else {
            return;
        }
    }
}

// How many of the candidates top-p keeps, now the first ones: as few as reach it. Only a growing head of them is
// sorted.
static int64_t cut_top_p(struct candidate *c, int64_t n, double top_p)
{
    double total = 0, sum = 0;
    int64_t sorted = 0;
    for (int64_t i = 0; i < n; i++) {
        total += exp((double)c[i].value);
    }
    while (sorted < n) {
        int64_t more = sorted ? 4 * sorted : 256, end = n - sorted < more ? n : sorted + more;
        select_first(c + sorted, n - sorted, end - sorted);
        qsort(c + sorted, (size_t)(end - sorted), sizeof *c, by_value);
        for (; sorted < end; sorted++) {
            sum += exp((double)c[sorted].value);
            if (sum >= top_p * total) {
                return sorted + 1;
            }
        }
    }
    return n;
}

static int32_t draw(struct candidate *c, int64_t n, double uniform)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        total += exp((double)c[i].value);
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)c[i].value);
        if (sum > uniform * total) {
            return c[i].id;
        }
    }
    return c[n - 1].id;
}

// -1: nothing is allowed.
static int32_t draw_from(const struct sl_sample_row *row, struct candidate *c, int64_t n)
{
    if (n == 0) {
        return -1;
    }
    int64_t all = n;
    float top = c[0].value;
    for (int64_t i = 1; i < n; i++) {
        top = c[i].value > top ? c[i].value : top;
    }
    for (int64_t i = 0; i < n; i++) {
        c[i].value = (c[i].value - top) / row->temperature;
    }
    if (row->top_k > 0 && row->top_k < n) {
        select_first(c, n, row->top_k);
        n = row->top_k;
    }
    if (row->top_p < 1) {
        n = cut_top_p(c, n, (double)row->top_p);
    }
    if (n < all || row->top_p < 1) {
        qsort(c, (size_t)n, sizeof *c, by_id);
    }
    return draw(c, n, (double)row->uniform);
}

static const uint32_t *bits_of(const struct sl_tensor *bits, int64_t row)
{
    return bits ? (const uint32_t *)bits->data + row * bits->stride[0] : NULL;
}

struct sample_job {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *logits, *allowed, *seen;
    const struct sl_sample_row *rows;
    struct candidate *candidates; // of each worker, one a token
    int32_t *token;
    float *logprob;
};

static void sample_row(void *pointer, int64_t i, int worker)
{
    const struct sample_job *job = pointer;
    const struct sl_sample_row *how = &job->rows[i];
    int64_t vocab = job->logits->shape[1];
    const float *row = (const float *)job->logits->data + i * job->logits->stride[0];
    struct candidate *mine = job->candidates + worker * vocab;
    const uint32_t *mask = bits_of(job->allowed, i), *marks = bits_of(job->seen, i);
    job->token[i] = how->temperature <= 0 ? best_of(job->kernels, row, vocab, how->presence, mask, marks)
                                          : draw_from(how, mine, collect(row, vocab, how->presence, mask, marks, mine));
    if (job->token[i] >= 0) {
        float top = job->kernels->maximum(row, vocab);
        job->logprob[i] = (float)((double)(row[job->token[i]] - top) - log(job->kernels->sum_exp(row, vocab, top)));
    }
}

static void sample(struct sl_stream *stream, struct sample_job *job)
{
    int64_t n = job->logits->shape[0], vocab = job->logits->shape[1];
    int threads = n > 1 ? cpu_threads(stream, n * vocab) : 1;
    job->candidates = cpu_scratch(stream, CPU_SLOT_A, threads * vocab * (int64_t)sizeof *job->candidates);
    if (!job->candidates) {
        return;
    }
    cpu_loop(stream, threads, n, sample_row, job);
    int stuck = 0;
    for (int64_t i = 0; i < n; i++) {
        stuck += job->token[i] < 0;
    }
    if (stuck) {
        cpu_fail(stream, SL_ERR_INTERNAL, "sample: the mask of %d rows allows no token", stuck);
    }
}

void cpu_sample(struct sl_stream *stream, const struct sl_tensor *logits, const struct sl_sample_row *rows,
                const struct sl_tensor *allowed, const struct sl_tensor *seen, const struct sl_tensor *token,
                const struct sl_tensor *logprob)
{
    if (cpu_begin(stream)) {
        struct sample_job job = {.kernels = stream->device->kernels,
                                 .logits = logits,
                                 .allowed = allowed,
                                 .seen = seen,
                                 .rows = rows,
                                 .token = token->data,
                                 .logprob = logprob->data};
        sample(stream, &job);
        cpu_end(stream);
    }
}
