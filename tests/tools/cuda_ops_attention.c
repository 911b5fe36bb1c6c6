// SPDX-License-Identifier: Apache-2.0
// attention_groups, and the paged cache: qk_norm_rope_store, then attention_paged; both in one. The reference's
// attention is fed with what the device under test stored, so that each operation answers for itself. Slots of the
// cache that hold no token are NaN: fresh memory may be.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/half.h"
#include "lm/kv.h"
#include "tests/tools/cuda_ops.h"

enum { MOST_SEQUENCES = 40 };

// --- groups ---

static void check_groups(struct bench *b, int heads, int64_t d, const int32_t *start, int groups)
{
    int64_t rows = start[groups];
    int most = 0;
    for (int i = 0; i < groups; i++) {
        most = start[i + 1] - start[i] > most ? start[i + 1] - start[i] : most;
    }
    struct operand qkv = operand_random(b, b->type, rows, 3 * heads * d, 1.3);
    struct operand y = operand_output(b, b->type, rows, heads * d), at = operand_ints(b, start, 1, groups + 1);
    b->dut->ops->attention_groups(b->stream, &qkv.dut, heads, &at.dut, groups, most, &y.dut);
    b->reference->ops->attention_groups(b->reference_stream, &qkv.ref, heads, &at.ref, groups, most, &y.ref);
    judge(b, &y, bench_limit(b->type, b->type), "attention_groups %s: %d groups of up to %d rows, heads %d, d %d",
          short_type(b->type), groups, most, heads, (int)d);
    bench_clear(b);
}

void check_attention_groups(struct bench *b)
{
    static const int32_t one[] = {0, 1}, small[] = {0, 5, 6, 40, 40 + 63, 40 + 63 + 64, 40 + 63 + 64 + 65};
    static const int32_t ragged[] = {0, 784, 784 + 129, 784 + 129 + 16, 784 + 129 + 16 + 880};
    static const int32_t a[] = {0, 880, 1760}, c[] = {0, 784, 1568, 2352}, single[] = {0, 1024};
    static const int sizes[] = {64, 72, 80, 128};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_groups(b, 1, sizes[i], one, 1);
        check_groups(b, 3, sizes[i], small, 6);
    }
    if (b->type != SL_BF16) {
        check_groups(b, 2, 72, ragged, 4);
        return;
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_groups(b, 2, sizes[i], ragged, 4);
        check_groups(b, 2, sizes[i], single, 1);
    }
    check_groups(b, 16, 64, a, 2);
    check_groups(b, 16, 72, a, 2);
    check_groups(b, 16, 64, c, 3);
    check_groups(b, 16, 72, c, 3);
}

// --- the paged cache ---

// Pages in random order; what a sequence does not use of its table is 0, as the decoder leaves it.
static int64_t fill_page_table(struct bench *b, const struct batch_sequence *sequence, int count, int64_t page_tokens,
                               int32_t **table, int64_t *width)
{
    int64_t pages = 3; // that nobody owns
    *width = 1;
    for (int i = 0; i < count; i++) {
        int64_t held = (sequence[i].length + page_tokens - 1) / page_tokens;
        pages += held;
        *width = held > *width ? held : *width;
    }
    int32_t *order = bench_host(b, pages * (int64_t)sizeof *order);
    for (int64_t i = 0; i < pages; i++) {
        int64_t j = bench_below(b, i + 1);
        order[i] = order[j];
        order[j] = (int32_t)i;
    }
    *table = bench_host(b, *width * count * (int64_t)sizeof **table);
    for (int i = 0; i < count; i++) {
        int64_t held = (sequence[i].length + page_tokens - 1) / page_tokens;
        memcpy(*table + *width * i, order, (size_t)held * sizeof *order);
        order += held;
    }
    return pages;
}

// The cache before the step: random where a sequence has tokens already, NaN elsewhere.
static struct operand cache_before(struct bench *b, const struct paged *p, const struct batch_sequence *sequence,
                                   int count, int64_t pages)
{
    int64_t d = p->shape.head_dim, tokens = p->shape.page_tokens, heads = p->shape.kv_heads;
    int64_t width = p->page_table.host.shape[1], bytes = sl_dtype_bytes(b->type);
    const int32_t *table = p->page_table.host.data;
    struct operand cache = operand_output(b, b->type, pages * heads * tokens, d);
    for (int i = 0; i < count; i++) {
        int64_t cached = sequence[i].length - sequence[i].rows;
        for (int64_t first = 0; first < cached; first += tokens) {
            int64_t n = cached - first < tokens ? cached - first : tokens;
            for (int64_t h = 0; h < heads; h++) {
                int64_t row = (table[width * i + first / tokens] * heads + h) * tokens;
                struct sl_tensor slots = sl_tensor_2d((char *)cache.host.data + row * d * bytes, b->type, n, d);
                bench_fill(b, &slots, 1);
            }
        }
    }
    b->dut->ops->upload(b->stream, cache.dut.data, cache.host.data, sl_tensor_bytes(&cache.host));
    operand_take_over(b, &cache);
    return operand_reshaped(&cache, 4, (int64_t[]){pages, heads, tokens, d});
}

static void create_positions(struct bench *b, struct paged *p, int rows)
{
    int32_t *position = bench_host(b, 3 * rows * (int64_t)sizeof *position);
    int32_t axis[256];
    float frequency[256];
    int half = p->shape.head_dim / 2;
    for (int i = 0; i < 3 * rows; i++) {
        position[i] = (int32_t)bench_below(b, 5000);
    }
    for (int j = 0; j < half; j++) {
        axis[j] = j % 3 != 0 && j < half - half / 16 ? j % 3 : 0;
        frequency[j] = (float)pow(5e6, -(double)j / half);
    }
    p->position = operand_ints(b, position, 3, rows);
    p->axis = operand_ints(b, axis, 1, half);
    p->inv_freq = operand_floats(b, frequency, 1, half);
    p->dut_rope = (struct sl_rope){p->inv_freq.dut, p->axis.dut, 1.1f};
    p->ref_rope = (struct sl_rope){p->inv_freq.ref, p->axis.ref, 1.1f};
}

struct paged paged_create(struct bench *b, struct paged_shape shape, const struct batch_sequence *sequence, int count)
{
    struct paged p = {.shape = shape};
    int32_t start[MOST_SEQUENCES + 1] = {0}, length[MOST_SEQUENCES], *table;
    int64_t width, d = shape.head_dim;
    int most_rows = 0, most_length = 0;
    for (int i = 0; i < count; i++) {
        start[i + 1] = start[i] + sequence[i].rows;
        length[i] = sequence[i].length;
        most_rows = sequence[i].rows > most_rows ? sequence[i].rows : most_rows;
        most_length = sequence[i].length > most_length ? sequence[i].length : most_length;
    }
    int rows = start[count];
    int64_t pages = fill_page_table(b, sequence, count, shape.page_tokens, &table, &width);
    p.row_start = operand_ints(b, start, 1, count + 1);
    p.kv_length = operand_ints(b, length, 1, count);
    p.page_table = operand_ints(b, table, count, width);
    p.page_table = operand_reshaped(&p.page_table, 2, (int64_t[]){count, width});
    create_positions(b, &p, rows);
    p.k = cache_before(b, &p, sequence, count, pages);
    p.v = cache_before(b, &p, sequence, count, pages);
    p.qkv = operand_random(b, b->type, rows, (shape.heads + 2 * shape.kv_heads) * d, 1);
    p.q_norm = operand_vector(b, b->type, d, 1.5, 0.3);
    p.k_norm = operand_vector(b, b->type, d, 1, 0.3);
    p.y = operand_output(b, b->type, rows, shape.heads * d);
    p.dut = (struct sl_ragged){count,          rows,      p.row_start.dut, p.kv_length.dut, p.page_table.dut,
                               p.position.dut, most_rows, most_length};
    p.ref = p.dut;
    p.ref.row_start = p.row_start.ref;
    p.ref.kv_length = p.kv_length.ref;
    p.ref.page_table = p.page_table.ref;
    p.ref.position = p.position.ref;
    p.dut_kv = (struct sl_kv_layer){p.k.dut, p.v.dut};
    p.ref_kv = (struct sl_kv_layer){p.k.ref, p.v.ref};
    return p;
}

// Of the cache only slots with tokens are compared: those of each sequence, one after another, as rows.
static void judge_cache(struct bench *b, const struct paged *p, struct operand *cache,
                        const struct batch_sequence *sequence, const char *what)
{
    int64_t d = p->shape.head_dim, tokens = p->shape.page_tokens, heads = p->shape.kv_heads, n = 0;
    int64_t width = p->page_table.host.shape[1];
    const int32_t *table = p->page_table.host.data;
    for (int i = 0; i < p->dut.sequences; i++) {
        n += sequence[i].length * heads;
    }
    int64_t *row = bench_host(b, n * (int64_t)sizeof *row);
    n = 0;
    for (int i = 0; i < p->dut.sequences; i++) {
        for (int64_t t = 0; t < sequence[i].length; t++) {
            for (int64_t h = 0; h < heads; h++) {
                row[n++] = (table[width * i + t / tokens] * heads + h) * tokens + t % tokens;
            }
        }
    }
    judge_some_rows(b, cache, d, row, n, bench_limit(b->type, b->type), what);
}

// q, in its place; what is left there of k and v is not said.
static void judge_queries(struct bench *b, const struct paged *p, struct operand *qkv, const char *what)
{
    int64_t heads = p->shape.heads, all = heads + 2 * p->shape.kv_heads, n = p->dut.rows * heads;
    int64_t *row = bench_host(b, n * (int64_t)sizeof *row);
    for (int64_t i = 0; i < n; i++) {
        row[i] = i / heads * all + i % heads;
    }
    judge_some_rows(b, qkv, p->shape.head_dim, row, n, bench_limit(b->type, b->type), what);
}

static void describe(const struct bench *b, const struct paged *p, const char *kind, char what[200])
{
    const struct paged_shape *s = &p->shape;
    snprintf(what, 200, "%s: %s, rows %d, sequences %d, length up to %d, heads %d/%d, d %d, pages of %d",
             short_type(b->type), kind, p->dut.rows, p->dut.sequences, p->dut.max_kv_length, s->heads, s->kv_heads,
             s->head_dim, s->page_tokens);
}

// What the device under test has rounded on the way.
static void round_reference(const struct operand *o)
{
    for (int64_t i = 0; o->host.dtype == SL_BF16 && i < sl_tensor_elements(&o->ref); i++) {
        float *value = (float *)o->ref.data + i;
        *value = sl_bf16_to_f32(sl_bf16_from_f32(*value));
    }
}

// Against the reference's two operations. f32 may be left to them, bf16 of these shapes may not.
static void check_at_once(struct bench *b, struct paged_shape shape, const struct batch_sequence *sequence, int count)
{
    if (b->dut->ops->turn_and_attend == NULL) {
        return;
    }
    struct paged p = paged_create(b, shape, sequence, count);
    char what[200], name[240];
    describe(b, &p, "decode", what);
    int done = b->dut->ops->turn_and_attend(b->stream, &p.dut, &p.qkv.dut, shape.heads, &p.q_norm.dut, &p.k_norm.dut,
                                            1e-6f, &p.dut_rope, &p.dut_kv, &p.y.dut);
    if (!done) {
        snprintf(name, sizeof name, "turn_and_attend %s", what);
        judge_plain(b, b->type != SL_BF16, name, "left to the two operations");
        bench_clear(b);
        return;
    }
    b->reference->ops->qk_norm_rope_store(b->reference_stream, &p.ref, &p.qkv.ref, shape.heads, &p.q_norm.ref,
                                          &p.k_norm.ref, 1e-6f, &p.ref_rope, &p.ref_kv);
    round_reference(&p.qkv);
    round_reference(&p.k);
    b->reference->ops->attention_paged(b->reference_stream, &p.ref, &p.qkv.ref, shape.heads, &p.ref_kv, &p.y.ref);
    judge(b, &p.y, bench_limit(b->type, b->type), "turn_and_attend %s", what);
    snprintf(name, sizeof name, "turn_and_attend (k) %s", what);
    judge_cache(b, &p, &p.k, sequence, name);
    snprintf(name, sizeof name, "turn_and_attend (v) %s", what);
    judge_cache(b, &p, &p.v, sequence, name);
    bench_clear(b);
}

static void check_batch(struct bench *b, struct paged_shape shape, const struct batch_sequence *sequence, int count,
                        const char *kind)
{
    struct paged p = paged_create(b, shape, sequence, count);
    char what[200], name[240];
    describe(b, &p, kind, what);
    b->dut->ops->qk_norm_rope_store(b->stream, &p.dut, &p.qkv.dut, shape.heads, &p.q_norm.dut, &p.k_norm.dut, 1e-6f,
                                    &p.dut_rope, &p.dut_kv);
    b->reference->ops->qk_norm_rope_store(b->reference_stream, &p.ref, &p.qkv.ref, shape.heads, &p.q_norm.ref,
                                          &p.k_norm.ref, 1e-6f, &p.ref_rope, &p.ref_kv);
    snprintf(name, sizeof name, "qk_norm_rope_store (q) %s", what);
    judge_queries(b, &p, &p.qkv, name);
    snprintf(name, sizeof name, "qk_norm_rope_store (k) %s", what);
    judge_cache(b, &p, &p.k, sequence, name);
    snprintf(name, sizeof name, "qk_norm_rope_store (v) %s", what);
    judge_cache(b, &p, &p.v, sequence, name);
    operand_take_over(b, &p.qkv);
    operand_take_over(b, &p.k);
    operand_take_over(b, &p.v);
    b->dut->ops->attention_paged(b->stream, &p.dut, &p.qkv.dut, shape.heads, &p.dut_kv, &p.y.dut);
    b->reference->ops->attention_paged(b->reference_stream, &p.ref, &p.qkv.ref, shape.heads, &p.ref_kv, &p.y.ref);
    judge(b, &p.y, bench_limit(b->type, b->type), "attention_paged %s", what);
    int single = p.dut.rows == p.dut.sequences;
    bench_clear(b);
    if (single) {
        check_at_once(b, shape, sequence, count);
    }
}

static void check_decode(struct bench *b, struct paged_shape shape)
{
    static const int lengths[] = {1, 2, 63, 64, 65, 1000, 5000};
    static const struct batch_sequence three[] = {{1, 1}, {1, 777}, {1, 5000}};
    struct batch_sequence many[32];
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        check_batch(b, shape, &(struct batch_sequence){1, lengths[i]}, 1, "decode");
    }
    for (int i = 0; i < 32; i++) {
        many[i] = (struct batch_sequence){1, i == 7 ? 5000 : 1 + (int)bench_below(b, 1500)};
    }
    check_batch(b, shape, three, 3, "decode");
    check_batch(b, shape, many, 32, "decode");
}

static void check_prefill(struct bench *b, struct paged_shape shape)
{
    static const struct batch_sequence one[] = {{2, 2},      {63, 63},    {100, 100},   {512, 512},
                                                {512, 1300}, {130, 5000}, {1100, 2000}, {2313, 6313}};
    static const struct batch_sequence two[] = {{300, 300}, {212, 1000}};
    static const struct batch_sequence mixed[] = {{1, 1},    {1, 300}, {17, 17},  {64, 200},
                                                  {5, 5000}, {1, 65},  {129, 129}};
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        check_batch(b, shape, &one[i], 1, "prefill");
    }
    check_batch(b, shape, two, 2, "prefill");
    check_batch(b, shape, mixed, 7, "mixed");
}

void check_paged(struct bench *b)
{
    static const struct paged_shape small[] = {
        {6, 3, 64, 16}, {2, 2, 72, 16}, {3, 1, 80, 16}, {4, 1, 128, 16}, {8, 1, 128, 64}};
    static const struct batch_sequence ragged[] = {{1, 1}, {7, 7}, {1, 40}, {3, 35}, {33, 33}, {20, 90}};
    static const struct batch_sequence decode[] = {{1, 1}, {1, 16}, {1, 17}, {1, 200}, {1, 33}};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        check_batch(b, small[i], ragged, 6, "mixed");
        check_batch(b, small[i], decode, 5, "decode");
        check_batch(b, small[i], &(struct batch_sequence){70, 100}, 1, "prefill");
    }
    if (b->type == SL_BF16) {
        // Of the published models, the last two of mixtures; then groups of one and of three heads.
        static const struct paged_shape real[] = {{16, 8, 128, SL_KV_PAGE_TOKENS}, {32, 8, 128, SL_KV_PAGE_TOKENS},
                                                  {32, 4, 128, SL_KV_PAGE_TOKENS}, {64, 4, 128, SL_KV_PAGE_TOKENS},
                                                  {4, 4, 128, SL_KV_PAGE_TOKENS},  {6, 2, 128, SL_KV_PAGE_TOKENS}};
        for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
            check_decode(b, real[i]);
            check_prefill(b, real[i]);
        }
        check_decode(b, (struct paged_shape){2, 1, 64, 16}); // one key head: as many splits as there can be
        check_batch(b, (struct paged_shape){64, 8, 128, SL_KV_PAGE_TOKENS}, ragged, 6, "mixed");
    }
}
