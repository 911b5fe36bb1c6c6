// SPDX-License-Identifier: Apache-2.0
// What is not arithmetic: copies, fences, captured graphs, failures that stick.
#include <stdio.h>
#include <string.h>

#include "tests/tools/cuda_ops.h"

// --- copies ---

static uint8_t *random_bytes(struct bench *b, int64_t n)
{
    uint8_t *bytes = bench_host(b, n);
    for (int64_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)bench_below(b, 256);
    }
    return bytes;
}

// Up, across, down; the host's bytes are overwritten as soon as upload returns.
static void check_round_trip(struct bench *b, int64_t n, int64_t offset)
{
    const struct sl_device_ops *ops = b->dut->ops;
    uint8_t *sent = random_bytes(b, n), *kept = bench_host(b, n), *back = bench_host(b, n);
    char *first = (char *)bench_device(b, n + offset) + offset, *second = (char *)bench_device(b, n + offset) + offset;
    char what[80];
    memcpy(kept, sent, (size_t)n);
    ops->upload(b->stream, first, sent, n);
    memset(sent, 0xee, (size_t)n);
    ops->copy(b->stream, second, first, n);
    ops->zero(b->stream, first, n);
    ops->download(b->stream, back, second, n);
    snprintf(what, sizeof what, "upload, copy, download: %lld bytes, offset %lld", (long long)n, (long long)offset);
    if (!bench_failed_stream(b, what)) {
        judge_plain(b, memcmp(back, kept, (size_t)n) == 0, what, "not the bytes that were sent");
        ops->download(b->stream, back, first, n);
        ops->wait(b->stream, NULL);
        int64_t zeros = 0;
        while (zeros < n && back[zeros] == 0) {
            zeros++;
        }
        snprintf(what, sizeof what, "zero: %lld bytes, offset %lld", (long long)n, (long long)offset);
        judge_plain(b, zeros == n, what, "not all zero");
    }
    bench_clear(b);
}

// More small copies between two waits than any ring has room for.
static void check_many(struct bench *b, int count, int64_t size)
{
    const struct sl_device_ops *ops = b->dut->ops;
    uint8_t *sent = random_bytes(b, count * size), *back = bench_host(b, count * size);
    char *there = bench_device(b, count * size), what[80];
    for (int i = 0; i < count; i++) {
        ops->upload(b->stream, there + i * size, sent + i * size, size);
        ops->download(b->stream, back + i * size, there + i * size, size);
    }
    snprintf(what, sizeof what, "%d uploads and downloads of %lld bytes", count, (long long)size);
    if (!bench_failed_stream(b, what)) {
        judge_plain(b, memcmp(back, sent, (size_t)(count * size)) == 0, what, "not the bytes that were sent");
    }
    bench_clear(b);
}

void check_copies(struct bench *b)
{
    static const int64_t sizes[] = {1, 3, 64, 1000, 1 << 20, (2 << 20) + 1, 10000001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_round_trip(b, sizes[i], 0);
        check_round_trip(b, sizes[i], 5);
    }
    check_many(b, 300, 1);
    check_many(b, 200, 40000);
}

// --- fences ---

// What one stream has enqueued before the fence, another sees after it. Slow work goes first, so that a fence that does
// nothing shows.
void check_fences(struct bench *b)
{
    const struct sl_device_ops *ops = b->dut->ops;
    enum { BYTES = 200 << 20, ROUNDS = 20 };
    struct sl_error error = {0};
    struct sl_stream *other = NULL;
    struct sl_fence *fence = NULL;
    int status = ops->stream_create(b->dut, &other, &error);
    status = status == SL_OK ? ops->fence_create(b->dut, &fence, &error) : status;
    if (status != SL_OK) {
        judge_plain(b, 0, "fences", error.text);
        return;
    }
    char *from = bench_device(b, BYTES), *to = bench_device(b, BYTES), *end = bench_device(b, 64);
    uint8_t mark = 77, seen = 0, host = 0;
    ops->zero(b->stream, to, BYTES);
    ops->zero(b->stream, from, BYTES);
    ops->upload(b->stream, from + BYTES - 1, &mark, 1);
    for (int i = 0; i < ROUNDS; i++) {
        ops->copy(b->stream, to, from, BYTES);
    }
    ops->fence_record(fence, b->stream);
    ops->fence_enqueue_wait(fence, other);
    ops->copy(other, end, to + BYTES - 1, 1);
    ops->download(other, &seen, end, 1);
    status = ops->wait(other, &error);
    judge_plain(b, status == SL_OK && seen == mark, "fence_enqueue_wait", status ? error.text : "did not wait");
    ops->zero(b->stream, to, BYTES);
    for (int i = 0; i < ROUNDS; i++) {
        ops->copy(b->stream, to, from, BYTES);
    }
    ops->fence_record(fence, b->stream);
    status = ops->fence_wait(fence, &error);
    ops->download(other, &host, to + BYTES - 1, 1);
    status = status == SL_OK ? ops->wait(other, &error) : status;
    judge_plain(b, status == SL_OK && host == mark, "fence_wait", status ? error.text : "did not wait");
    ops->fence_destroy(fence);
    ops->stream_destroy(other);
}

// --- graphs ---

// Captured once, launched with other content of the same tensors. Where nothing is captured the operations run at once.
static void check_graph(struct bench *b, int64_t rows, int64_t in, int64_t out)
{
    const struct sl_device_ops *ops = b->dut->ops;
    struct layer layer = layer_create(b, out, in, 2, 0, 1);
    struct operand x = operand_random(b, b->type, rows, in, 1), norm = operand_vector(b, b->type, in, 1, 0.2);
    struct operand normed = operand_output(b, b->type, rows, in), y = operand_output(b, b->type, rows, out / 2);
    struct sl_graph *graph = NULL;
    int capturing = ops->graph_begin(b->stream);
    if (!capturing && ops->native_context(b->dut) != NULL) {
        judge_plain(b, 0, "graph_begin", "a GPU captures nothing");
    }
    ops->rmsnorm_linear(b->stream, &x.dut, &norm.dut, 1e-6f, &normed.dut, layer.dut, SL_EPILOGUE_SILU_GATE, &y.dut);
    if (capturing && !ops->graph_end(b->stream, &graph)) {
        judge_plain(b, 0, "graph_end", "nothing was captured");
    }
    for (int round = 0; round < (graph != NULL ? 3 : 1); round++) {
        if (graph != NULL) {
            bench_fill(b, &x.host, 1 + round);
            ops->upload(b->stream, x.dut.data, x.host.data, sl_tensor_bytes(&x.host));
            operand_take_over(b, &x);
            ops->graph_launch(graph, b->stream);
        }
        b->reference->ops->rmsnorm_linear(b->reference_stream, &x.ref, &norm.ref, 1e-6f, &normed.ref, layer.reference,
                                          SL_EPILOGUE_SILU_GATE, &y.ref);
        judge(b, &y, bench_limit(b->type, b->type), "graph %s: rmsnorm_linear, rows %d, in %d, out %d, %s",
              short_type(b->type), (int)rows, (int)in, (int)out, graph != NULL ? "launched" : "not captured");
    }
    ops->graph_destroy(graph);
    layer_destroy(b, &layer);
    bench_clear(b);
}

// A decoder's step in small: each operation reads what the one before it has written, and some are shared by all
// layers, so that one which begins too early shows.
struct step {
    struct paged paged;
    struct layer qkv, o, gate_up, down;
    struct operand hidden, norm, normed, inner;
    int waits; // after each operation
};

enum { STEP_LAYERS = 12 };

static void settle(struct bench *b, const struct step *s)
{
    if (s->waits) {
        b->dut->ops->wait(b->stream, NULL);
    }
}

static void run_step(struct bench *b, const struct step *s)
{
    const struct sl_device_ops *ops = b->dut->ops;
    const struct paged *p = &s->paged;
    for (int i = 0; i < STEP_LAYERS; i++) {
        ops->rmsnorm_linear(b->stream, &s->hidden.dut, &s->norm.dut, 1e-6f, &s->normed.dut, s->qkv.dut,
                            SL_EPILOGUE_NONE, &p->qkv.dut);
        settle(b, s);
        int done = i % 3 != 0 && ops->turn_and_attend != NULL &&
                   ops->turn_and_attend(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->q_norm.dut, &p->k_norm.dut,
                                        1e-6f, &p->dut_rope, &p->dut_kv, &p->y.dut);
        if (!done) {
            ops->qk_norm_rope_store(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->q_norm.dut, &p->k_norm.dut,
                                    1e-6f, &p->dut_rope, &p->dut_kv);
            settle(b, s);
            ops->attention_paged(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->dut_kv, &p->y.dut);
        }
        settle(b, s);
        ops->linear(b->stream, s->o.dut, &p->y.dut, SL_EPILOGUE_NONE, &s->hidden.dut, &s->hidden.dut);
        settle(b, s);
        ops->rmsnorm_linear(b->stream, &s->hidden.dut, &s->norm.dut, 1e-6f, &s->normed.dut, s->gate_up.dut,
                            SL_EPILOGUE_SILU_GATE, &s->inner.dut);
        settle(b, s);
        ops->linear(b->stream, s->down.dut, &s->inner.dut, SL_EPILOGUE_NONE, &s->hidden.dut, &s->hidden.dut);
        settle(b, s);
    }
}

// The same bits, whether the host waits after each operation or all are in a graph.
static void check_step(struct bench *b, int sequences, int length)
{
    const struct sl_device_ops *ops = b->dut->ops;
    enum { HIDDEN = 2048, INNER = 6144, ROUNDS = 20 };
    struct batch_sequence sequence[16];
    for (int i = 0; i < sequences; i++) {
        sequence[i] = (struct batch_sequence){1, length - 37 * i};
    }
    struct step s = {.paged = paged_create(b, (struct paged_shape){16, 8, 128, 64}, sequence, sequences)};
    s.qkv = layer_create(b, 4096, HIDDEN, 3, 0, 0);
    s.o = layer_create(b, HIDDEN, 2048, 1, 0, 0);
    s.gate_up = layer_create(b, 2 * INNER, HIDDEN, 2, 0, 0);
    s.down = layer_create(b, HIDDEN, INNER, 1, 0, 0);
    s.hidden = operand_random(b, b->type, sequences, HIDDEN, 1);
    s.norm = operand_vector(b, b->type, HIDDEN, 1, 0.2);
    s.normed = operand_output(b, b->type, sequences, HIDDEN);
    s.inner = operand_output(b, b->type, sequences, INNER);
    int64_t bytes = sl_tensor_bytes(&s.hidden.host);
    void *before = bench_host(b, bytes), *wanted = bench_host(b, bytes);
    struct sl_graph *graph = NULL;
    char what[80];
    snprintf(what, sizeof what, "graph %s: a step of %d layers, %d sequences", short_type(b->type), STEP_LAYERS,
             sequences);
    memcpy(before, s.hidden.host.data, (size_t)bytes);
    s.waits = 1;
    run_step(b, &s);
    operand_fetch(b, &s.hidden);
    memcpy(wanted, s.hidden.host.data, (size_t)bytes);
    s.waits = 0;
    int capturing = ops->graph_begin(b->stream), same = memcmp(before, wanted, (size_t)bytes) != 0;
    if (capturing) {
        run_step(b, &s);
        capturing = ops->graph_end(b->stream, &graph);
    }
    for (int round = 0; round < ROUNDS && same; round++) {
        ops->upload(b->stream, s.hidden.dut.data, before, bytes);
        if (graph != NULL) {
            ops->graph_launch(graph, b->stream);
        } else {
            run_step(b, &s);
        }
        operand_fetch(b, &s.hidden);
        same = memcmp(s.hidden.host.data, wanted, (size_t)bytes) == 0;
    }
    if (!bench_failed_stream(b, what)) {
        judge_plain(b, same, what, "not what the operations give one by one");
    }
    ops->graph_destroy(graph);
    layer_destroy(b, &s.qkv);
    layer_destroy(b, &s.o);
    layer_destroy(b, &s.gate_up);
    layer_destroy(b, &s.down);
    bench_clear(b);
}

void check_graphs(struct bench *b)
{
    check_graph(b, 1, 72, 48);
    check_graph(b, 3, 2048, 12288);
    check_graph(b, 40, 2048, 4096);
    if (b->type == SL_BF16) {
        check_step(b, 1, 4000);
        check_step(b, 3, 1000);
        check_step(b, 16, 900);
    }
}

// --- failures ---

// Shapes that do not fit mark the stream; it says so until it is destroyed, and does nothing more. Others go on.
void check_errors(struct bench *b)
{
    const struct sl_device_ops *ops = b->dut->ops;
    struct sl_error error = {0};
    struct sl_stream *broken = NULL;
    struct sl_fence *fence = NULL;
    struct layer layer = layer_create(b, 64, 64, 1, 0, 0);
    struct operand x = operand_random(b, b->type, 64, 72, 1), y = operand_output(b, b->type, 64, 64);
    if (ops->stream_create(b->dut, &broken, &error) != SL_OK || ops->fence_create(b->dut, &fence, &error) != SL_OK) {
        judge_plain(b, 0, "errors", error.text);
        return;
    }
    ops->linear(broken, layer.dut, &x.dut, SL_EPILOGUE_NONE, NULL, &y.dut);
    int first = ops->wait(broken, &error);
    judge_plain(b, first != SL_OK, "a wrong shape marks the stream", "wait reports nothing");
    judge_plain(b, error.text[0] != 0, "the failure has a text", "it has none");
    ops->zero(broken, x.dut.data, 64);
    judge_plain(b, ops->wait(broken, &error) == first, "the failure stays", "the second wait reports another");
    ops->fence_record(fence, broken);
    judge_plain(b, ops->fence_wait(fence, &error) == first, "a fence carries the failure",
                "fence_wait does not report it");
    operand_fetch(b, &x);
    judge_plain(b, sl_tensor_bytes(&x.host) > 0 && memcmp(x.host.data, "\0\0\0\0\0\0\0\0", 8) != 0,
                "a failed stream does nothing more", "it has zeroed memory");
    judge_plain(b, ops->wait(b->stream, &error) == SL_OK, "another stream goes on", error.text);
    ops->fence_destroy(fence);
    ops->stream_destroy(broken);
    layer_destroy(b, &layer);
    ops->linear_destroy(NULL);
    ops->release(b->dut, NULL);
}
