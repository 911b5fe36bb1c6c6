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

void check_graphs(struct bench *b)
{
    check_graph(b, 1, 72, 48);
    check_graph(b, 3, 2048, 12288);
    check_graph(b, 40, 2048, 4096);
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
