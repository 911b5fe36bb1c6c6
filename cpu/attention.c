// SPDX-License-Identifier: Apache-2.0
// Attention. Many queries: blocks of keys against panels of queries with a running softmax, so that no row of scores is
// ever whole (Milakov and Gimelshein 2018; Dao et al. 2022). A query is a lane: S = K Q' and O' = V' P' both have
// queries across, and the softmax needs no sum across lanes. One query a sequence, as in decoding: keys are read once
// for all query heads that share them; the result does not depend on what else is in the batch.
#include <math.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/ragged.h"

enum {
    BLOCK = 192,    // keys taken at a time
    HEAD_MAX = 512, // values of a head
};

struct shape {
    const struct cpu_kernels *kernels;
    int bf16;
    int64_t size;           // bytes of a value
    int64_t d, steps;       // of a head
    int64_t shared;         // query heads that share a key head
    int64_t row_bytes;      // from one query's row to the next
    int64_t unit_rows;      // query rows in a unit of work
    int64_t panel_rows;     // queries in a panel
    int64_t panels_of_head; // in a unit
    float scale;
};

// The keys and values of one head.
struct keys {
    const char *k, *v;
    int64_t k_stride, v_stride; // bytes from one token to the next, in a page
    const int32_t *page;        // NULL: one page
    int64_t page_tokens, k_page, v_page;
};

// Some query rows against one key head: what a thread takes at a time.
struct unit {
    struct keys keys;
    const char *q;         // first row, first of the shared heads
    int64_t rows, length;  // length: keys that the last row sees
    int64_t causal;        // 1: row r sees the first length - rows + r + 1 keys; 0: all see all
    struct cpu_finish out; // from the first row and head on
};

// A thread's buffers.
struct room {
    float *q, *o;      // [panel][step or d][lane]
    float *max, *sum;  // [panel][lane]
    float *s, *p;      // [key][lane]
    float *correction; // [lane]
    int32_t *limit;    // [lane]
    uint32_t *values;  // [step][d]
    const char *k[BLOCK], *v[BLOCK];
};

static int64_t room_floats(const struct shape *shape)
{
    int64_t panels = shape->shared * shape->panels_of_head, lanes = shape->panel_rows;
    return panels * (2 * shape->d + 2) * lanes + (2 * BLOCK + 2) * lanes + BLOCK * shape->d;
}

static void room_cut(const struct shape *shape, float *from, struct room *room)
{
    int64_t panels = shape->shared * shape->panels_of_head, lanes = shape->panel_rows;
    room->q = from;
    room->o = room->q + panels * shape->d * lanes;
    room->max = room->o + panels * shape->d * lanes;
    room->sum = room->max + panels * lanes;
    room->s = room->sum + panels * lanes;
    room->p = room->s + BLOCK * lanes;
    room->correction = room->p + BLOCK * lanes;
    room->limit = (int32_t *)(room->correction + lanes);
    room->values = (uint32_t *)(room->limit + lanes);
}

static struct shape shape_of(const struct sl_stream *stream, const struct sl_tensor *qkv, int64_t d, int64_t shared)
{
    const struct cpu_kernels *kernels = stream->device->kernels;
    struct shape shape = {.kernels = kernels,
                          .bf16 = qkv->dtype == SL_BF16,
                          .size = sl_dtype_bytes(qkv->dtype),
                          .d = d,
                          .shared = shared,
                          .panel_rows = kernels->vectors * kernels->lanes,
                          .scale = 1.0f / sqrtf((float)d)};
    shape.steps = shape.bf16 ? d / 2 : d;
    shape.row_bytes = qkv->stride[0] * shape.size;
    shape.unit_rows = shared > 1 ? 64 : 128;
    shape.panels_of_head = shape.unit_rows / shape.panel_rows;
    return shape;
}

static void key_rows(const struct keys *keys, int64_t first, int64_t count, const char **k, const char **v)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + i, page = 0;
        if (keys->page) {
            page = keys->page[token / keys->page_tokens];
            token %= keys->page_tokens;
        }
        k[i] = keys->k + page * keys->k_page + token * keys->k_stride;
        v[i] = keys->v + page * keys->v_page + token * keys->v_stride;
    }
}

// --- many queries ---

struct panel {
    int64_t first, rows; // of the unit's rows
    int64_t head;        // of the shared heads
    int vectors;
    float *q, *o, *max, *sum;
};

static struct panel panel_at(const struct shape *shape, const struct unit *unit, const struct room *room, int64_t i)
{
    struct panel panel = {.first = i % shape->panels_of_head * shape->panel_rows, .head = i / shape->panels_of_head};
    int64_t left = unit->rows - panel.first, lanes = shape->kernels->lanes;
    panel.rows = left < shape->panel_rows ? left : shape->panel_rows;
    panel.vectors = left > 0 ? (int)((panel.rows + lanes - 1) / lanes) : 0;
    panel.q = room->q + i * shape->d * shape->panel_rows;
    panel.o = room->o + i * shape->d * shape->panel_rows;
    panel.max = room->max + i * shape->panel_rows;
    panel.sum = room->sum + i * shape->panel_rows;
    return panel;
}

static void begin_panel(const struct shape *shape, const struct unit *unit, const struct panel *panel)
{
    const char *q = unit->q + panel->first * shape->row_bytes + panel->head * shape->d * shape->size;
    shape->kernels->pack(q, shape->row_bytes, (int)panel->rows, shape->steps, panel->vectors, panel->q);
    for (int64_t lane = 0; lane < shape->panel_rows; lane++) {
        panel->max[lane] = -1e30f;
        panel->sum[lane] = 0;
    }
}

// Keys [first, first + count) for one panel. Their addresses are in `room`; the values' are what `product` takes.
static void attend(const struct shape *shape, const struct unit *unit, const struct panel *panel, struct room *room,
                   int64_t first, int64_t count, const char *const *values)
{
    const struct cpu_kernels *kernels = shape->kernels;
    int64_t width = panel->vectors * kernels->lanes;
    int64_t seen = unit->length - unit->rows + panel->first + 1 - first; // by the panel's first row, of this block
    int masked = unit->causal && seen < count;
    if (unit->causal && seen + panel->rows - 1 <= 0) {
        return;
    }
    for (int64_t lane = 0; masked && lane < width; lane++) {
        int64_t limit = seen + (lane < panel->rows ? lane : panel->rows - 1);
        room->limit[lane] = (int32_t)(limit < 0 ? 0 : limit);
    }
    kernels->product(shape->bf16, count, room->k, 0, 4, panel->q, panel->vectors, shape->steps, room->s, width, 0);
    kernels->softmax_panel(room->s, count, panel->vectors, masked ? room->limit : NULL, shape->scale, panel->max,
                           panel->sum, room->correction, shape->bf16, room->p);
    if (first > 0) {
        kernels->scale_panel(panel->o, shape->d, panel->vectors, room->correction);
    }
    kernels->product(shape->bf16, shape->d, values, 0, shape->d * 4, room->p, panel->vectors,
                     shape->bf16 ? (count + 1) / 2 : count, panel->o, width, first > 0);
}

static void end_panel(const struct shape *shape, const struct unit *unit, const struct panel *panel)
{
    const struct cpu_kernels *kernels = shape->kernels;
    struct cpu_finish out = unit->out;
    out.y = (char *)out.y + panel->head * shape->d * shape->size;
    for (int64_t lane = 0; lane < shape->panel_rows; lane++) {
        panel->sum[lane] = 1.0f / panel->sum[lane];
    }
    kernels->scale_panel(panel->o, shape->d, panel->vectors, panel->sum);
    kernels->finish_columns(&out, panel->o, NULL, panel->vectors * kernels->lanes, panel->first, panel->rows, 0,
                            shape->d);
}

// The values of a block, token steps side by side as `product` takes them.
static void gather_values(const struct shape *shape, int64_t count, struct room *room)
{
    if (shape->bf16) {
        shape->kernels->pair_rows(count, room->v, shape->d, room->values);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        memcpy(room->values + i * shape->d, room->v[i], (size_t)shape->d * 4);
    }
}

static void attend_unit(const struct shape *shape, const struct unit *unit, struct room *room)
{
    const char *column[HEAD_MAX];
    int64_t panels = shape->shared * shape->panels_of_head;
    for (int64_t i = 0; i < shape->d; i++) {
        column[i] = (const char *)(room->values + i);
    }
    for (int64_t i = 0; i < panels; i++) {
        struct panel panel = panel_at(shape, unit, room, i);
        if (panel.vectors) {
            begin_panel(shape, unit, &panel);
        }
    }
    for (int64_t first = 0; first < unit->length; first += BLOCK) {
        int64_t count = unit->length - first < BLOCK ? unit->length - first : BLOCK;
        key_rows(&unit->keys, first, count, room->k, room->v);
        gather_values(shape, count, room);
        for (int64_t i = 0; i < panels; i++) {
            struct panel panel = panel_at(shape, unit, room, i);
            if (panel.vectors) {
                attend(shape, unit, &panel, room, first, count, column);
            }
        }
    }
    for (int64_t i = 0; i < panels; i++) {
        struct panel panel = panel_at(shape, unit, room, i);
        if (panel.vectors) {
            end_panel(shape, unit, &panel);
        }
    }
}

// --- one query of each head ---

static void attend_row(const struct shape *shape, const struct unit *unit, int64_t head, int m, struct room *room)
{
    const struct cpu_kernels *kernels = shape->kernels;
    const char *q = unit->q + head * shape->d * shape->size;
    float max[CPU_DOTS], sum[CPU_DOTS], correction[CPU_DOTS], *scores = room->s, *out = room->o;
    for (int j = 0; j < m; j++) {
        max[j] = -1e30f;
        sum[j] = 0;
    }
    memset(out, 0, (size_t)(m * shape->d) * sizeof *out);
    for (int64_t first = 0; first < unit->length; first += BLOCK) {
        int64_t count = unit->length - first < BLOCK ? unit->length - first : BLOCK;
        key_rows(&unit->keys, first, count, room->k, room->v);
        kernels->dots(shape->bf16, count, room->k, q, shape->d * shape->size, m, shape->d, scores, BLOCK);
        for (int j = 0; j < m; j++) {
            correction[j] = kernels->softmax_row(scores + j * BLOCK, count, shape->scale, &max[j], &sum[j]);
        }
        kernels->combine(shape->bf16, count, room->v, scores, BLOCK, m, correction, shape->d, out);
    }
    for (int j = 0; j < m; j++) {
        float *row = out + j * shape->d;
        for (int64_t i = 0; i < shape->d; i++) {
            row[i] /= sum[j];
        }
        kernels->from_f32(row, shape->d, shape->bf16, (char *)unit->out.y + (head + j) * shape->d * shape->size);
    }
}

static void run_unit(const struct shape *shape, const struct unit *unit, struct room *room)
{
    if (unit->rows > 1 || !unit->causal) {
        attend_unit(shape, unit, room);
        return;
    }
    for (int64_t head = 0; head < shape->shared; head += CPU_DOTS) {
        int64_t left = shape->shared - head;
        attend_row(shape, unit, head, (int)(left < CPU_DOTS ? left : CPU_DOTS), room);
    }
}

// --- all units of an operation ---

// What a unit is: sequence or group `b`, key head, and which of b's row blocks.
typedef struct unit make_unit(const void *job, int b, int64_t head, int64_t block);

struct round {
    const struct shape *shape;
    const int64_t *first_task; // [sequences + 1]: tasks before those of sequence b
    int sequences;
    const int64_t *rows;
    float *floors; // of each worker
    make_unit *make;
    const void *job;
};

// All heads of a sequence, one after another: its keys stay in the cache. Late blocks first: with causal attention they
// are the longest.
static void unit_task(void *pointer, int64_t index, int worker)
{
    const struct round *r = pointer;
    int low = 0, high = r->sequences - 1;
    while (low < high) { // the sequence whose tasks hold the index
        int middle = (low + high + 1) / 2;
        if (r->first_task[middle] <= index) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    int64_t blocks = (r->rows[low] + r->shape->unit_rows - 1) / r->shape->unit_rows, i = index - r->first_task[low];
    struct room room;
    room_cut(r->shape, r->floors + worker * room_floats(r->shape), &room);
    struct unit unit = r->make(r->job, low, i / blocks, blocks - 1 - i % blocks);
    run_unit(r->shape, &unit, &room);
}

// `rows[b]` rows of each sequence, all heads.
static void run(struct sl_stream *stream, const struct shape *shape, int sequences, int64_t heads, const int64_t *rows,
                int64_t work, make_unit *make, const void *job)
{
    int threads = cpu_threads(stream, work);
    float *floors = cpu_scratch(stream, CPU_SLOT_A, threads * room_floats(shape) * 4);
    int64_t *first_task = cpu_scratch(stream, CPU_SLOT_D, (sequences + 1) * (int64_t)sizeof *first_task);
    if (!floors || !first_task) {
        return;
    }
    first_task[0] = 0;
    for (int b = 0; b < sequences; b++) {
        first_task[b + 1] = first_task[b] + (rows[b] + shape->unit_rows - 1) / shape->unit_rows * heads;
    }
    struct round round = {.shape = shape,
                          .first_task = first_task,
                          .sequences = sequences,
                          .rows = rows,
                          .floors = floors,
                          .make = make,
                          .job = job};
    cpu_loop(stream, threads, first_task[sequences], unit_task, &round);
}

// --- groups ---

struct groups {
    const struct shape *shape;
    const struct sl_tensor *qkv, *y;
    const int32_t *start;
    int64_t heads;
};

static struct unit group_unit(const void *job, int b, int64_t head, int64_t block)
{
    const struct groups *groups = job;
    const struct shape *shape = groups->shape;
    int64_t first = groups->start[b], length = groups->start[b + 1] - first, row = block * shape->unit_rows;
    int64_t head_bytes = shape->d * shape->size, part_bytes = groups->heads * head_bytes;
    const char *base = (const char *)groups->qkv->data + first * shape->row_bytes + head * head_bytes;
    char *y = (char *)groups->y->data + ((first + row) * groups->y->stride[0] + head * shape->d) * shape->size;
    return (struct unit){
        .keys = {.k = base + part_bytes,
                 .v = base + 2 * part_bytes,
                 .k_stride = shape->row_bytes,
                 .v_stride = shape->row_bytes},
        .q = base + row * shape->row_bytes,
        .rows = length - row < shape->unit_rows ? length - row : shape->unit_rows,
        .length = length,
        .out = {.y = y, .y_stride = groups->y->stride[0], .y_bf16 = shape->bf16},
    };
}

static void attend_groups(struct sl_stream *stream, const struct groups *job, int groups)
{
    int64_t *rows = cpu_scratch(stream, CPU_SLOT_B, (groups + 1) * (int64_t)sizeof *rows), work = 0;
    for (int b = 0; rows && b < groups; b++) {
        rows[b] = job->start[b + 1] - job->start[b];
        work += rows[b] * rows[b] * job->heads * job->shape->d / 32;
        if (job->start[b] < 0 || rows[b] < 0 || job->start[b + 1] > job->qkv->shape[0]) {
            cpu_fail(stream, SL_ERR_INTERNAL, "attention_groups: rows of group %d are out of range", b);
            return;
        }
    }
    if (rows) {
        run(stream, job->shape, groups, job->heads, rows, work, group_unit, job);
    }
}

void cpu_attention_groups(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                          const struct sl_tensor *group_start, int groups, int max_group_rows,
                          const struct sl_tensor *y)
{
    (void)max_group_rows; // the host can read group_start
    if (!cpu_begin(stream)) {
        return;
    }
    int64_t d = qkv->shape[1] / (3 * heads);
    struct shape shape = shape_of(stream, qkv, d, 1);
    struct groups job = {.shape = &shape, .qkv = qkv, .y = y, .start = group_start->data, .heads = heads};
    if (qkv->shape[1] != 3 * heads * d || d % 2 || d > HEAD_MAX || y->dtype != qkv->dtype) {
        cpu_fail(stream, SL_ERR_INTERNAL, "attention_groups: heads or types do not fit together");
    } else {
        attend_groups(stream, &job, groups);
    }
    cpu_end(stream);
}

// --- pages ---

struct paged {
    const struct shape *shape;
    const struct sl_ragged *ragged;
    const struct sl_tensor *qkv, *y;
    const struct sl_kv_layer *kv;
};

static struct unit paged_unit(const void *job, int b, int64_t head, int64_t block)
{
    const struct paged *paged = job;
    const struct shape *shape = paged->shape;
    const struct sl_tensor *k = &paged->kv->k, *v = &paged->kv->v;
    struct cpu_sequence sequence = cpu_sequence_at(paged->ragged, b);
    int64_t first = block * shape->unit_rows, row = sequence.first_row + first, left = sequence.rows - first;
    int64_t rows = left < shape->unit_rows ? left : shape->unit_rows, column = head * shape->shared * shape->d;
    char *y = (char *)paged->y->data + (row * paged->y->stride[0] + column) * shape->size;
    return (struct unit){
        .keys = {.k = (const char *)k->data + head * k->stride[1] * shape->size,
                 .v = (const char *)v->data + head * v->stride[1] * shape->size,
                 .k_stride = k->stride[2] * shape->size,
                 .v_stride = v->stride[2] * shape->size,
                 .page = sequence.page,
                 .page_tokens = k->shape[2],
                 .k_page = k->stride[0] * shape->size,
                 .v_page = v->stride[0] * shape->size},
        .q = (const char *)paged->qkv->data + row * shape->row_bytes + column * shape->size,
        .rows = rows,
        .length = sequence.length - left + rows,
        .causal = 1,
        .out = {.y = y, .y_stride = paged->y->stride[0], .y_bf16 = shape->bf16},
    };
}

static void attend_pages(struct sl_stream *stream, const struct paged *job, int64_t kv_heads)
{
    int sequences = job->ragged->sequences;
    int64_t *rows = cpu_scratch(stream, CPU_SLOT_B, (sequences + 1) * (int64_t)sizeof *rows), work = 0;
    if (!rows || !cpu_ragged_check(stream, job->ragged, job->kv)) {
        return;
    }
    for (int b = 0; b < sequences; b++) {
        struct cpu_sequence sequence = cpu_sequence_at(job->ragged, b);
        rows[b] = sequence.rows;
        work += sequence.rows * sequence.length * kv_heads * job->shape->shared * job->shape->d / 16;
    }
    run(stream, job->shape, sequences, kv_heads, rows, work, paged_unit, job);
}

void cpu_attention_paged(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                         int heads, const struct sl_kv_layer *kv, const struct sl_tensor *y)
{
    if (!cpu_begin(stream)) {
        return;
    }
    int64_t d = kv->k.shape[3], kv_heads = kv->k.shape[1];
    struct shape shape = shape_of(stream, qkv, d, heads / kv_heads);
    struct paged job = {.shape = &shape, .ragged = ragged, .qkv = qkv, .y = y, .kv = kv};
    if (heads % kv_heads || qkv->shape[1] != (heads + 2 * kv_heads) * d || d % 2 || d > HEAD_MAX ||
        kv->k.dtype != qkv->dtype || y->dtype != qkv->dtype) {
        cpu_fail(stream, SL_ERR_INTERNAL, "attention_paged: heads, head size or types do not fit together");
    } else {
        attend_pages(stream, &job, kv_heads);
    }
    cpu_end(stream);
}
