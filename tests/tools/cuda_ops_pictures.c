// SPDX-License-Identifier: Apache-2.0
// image_resize of frames in host memory and, on a GPU, of the same in its memory; how far pictures differ; and drawing
// tokens.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/cuda_ops.h"

// --- frames ---

static void released(struct sl_frame *frame)
{
    *(int *)frame->owner += 1;
}

static int planes_of(const struct sl_frame *f)
{
    return f->layout == SL_LAYOUT_GRAY || f->layout == SL_LAYOUT_RGB_PACKED ? 1
           : f->layout == SL_LAYOUT_YUV_SEMIPLANAR                          ? 2
                                                                            : 3;
}

static int is_chroma(const struct sl_frame *f, int plane)
{
    return plane > 0 && (f->layout == SL_LAYOUT_YUV_PLANAR || f->layout == SL_LAYOUT_YUV_SEMIPLANAR);
}

static int64_t plane_lines(const struct sl_frame *f, int plane)
{
    return is_chroma(f, plane) ? (f->height + (1 << f->chroma_shift_y) - 1) >> f->chroma_shift_y : f->height;
}

static int64_t plane_samples(const struct sl_frame *f, int plane)
{
    int64_t wide = is_chroma(f, plane) ? (f->width + (1 << f->chroma_shift_x) - 1) >> f->chroma_shift_x : f->width;
    return wide * (f->layout == SL_LAYOUT_RGB_PACKED ? 3 : is_chroma(f, plane) && planes_of(f) == 2 ? 2 : 1);
}

// Waves, an edge now and then, and noise.
static int sample_value(struct bench *b, int64_t x, int64_t y, int plane)
{
    double wave = 110 + 60 * sin((double)x * 0.05 + plane) * cos((double)y * 0.07) + ((x / 24 + y / 16) % 5 == 0) * 60;
    return (int)(wave + 12 * bench_uniform(b));
}

// Planes with lines of 32 bytes more than needed; `upside_down`: the last line first in memory.
static void create_planes(struct bench *b, struct sl_frame *f, int upside_down)
{
    int64_t bytes = f->bit_depth > 8 ? 2 : 1;
    for (int p = 0; p < planes_of(f); p++) {
        int64_t samples = plane_samples(f, p), lines = plane_lines(f, p), pitch = samples * bytes + 32;
        uint8_t *data = bench_host(b, pitch * lines);
        for (int64_t y = 0; y < lines; y++) {
            for (int64_t x = 0; x < samples; x++) {
                int value = sample_value(b, x, y, p);
                uint16_t wide = (uint16_t)(value << (f->bit_depth - 8) << f->msb_shift);
                memcpy(data + y * pitch + x * bytes, &wide, (size_t)bytes);
            }
        }
        f->plane[p] = upside_down ? data + pitch * (lines - 1) : data;
        f->pitch[p] = upside_down ? -pitch : pitch;
    }
}

// The same frame in the memory of the device under test.
static struct sl_frame on_device(struct bench *b, const struct sl_frame *host)
{
    struct sl_frame f = *host;
    f.memory = SL_MEMORY_CUDA;
    f.device_index = b->device_index;
    for (int p = 0; p < planes_of(host); p++) {
        int64_t lines = plane_lines(host, p), bytes = llabs(host->pitch[p]) * lines;
        int64_t first = host->pitch[p] < 0 ? host->pitch[p] * (lines - 1) : 0; // the lowest address
        char *data = bench_device(b, bytes);
        b->dut->ops->upload(b->stream, data, host->plane[p] + first, bytes);
        f.plane[p] = (uint8_t *)data - first;
    }
    b->dut->ops->wait(b->stream, NULL);
    return f;
}

static void compare_pictures(struct bench *b, struct operand *out, const char *what)
{
    if (bench_failed_stream(b, what)) {
        return;
    }
    operand_fetch(b, out);
    const uint8_t *got = out->host.data, *wanted = out->ref.data;
    int64_t n = sl_tensor_elements(&out->host), off = 0, far = 0, first = -1;
    for (int64_t i = 0; i < n; i++) {
        int difference = abs(got[i] - wanted[i]);
        off += difference == 1;
        far += difference > 1;
        first = first < 0 && difference > 1 ? i : first;
    }
    char why[160] = "";
    if (first >= 0) {
        int64_t pixel = first / 3, width = out->host.shape[1];
        snprintf(why, sizeof why, "%lld of %lld differ by more than 1; first at x %lld, y %lld, channel %d: %d for %d",
                 (long long)far, (long long)n, (long long)(pixel % width), (long long)(pixel / width), (int)(first % 3),
                 got[first], wanted[first]);
    }
    char text[300];
    snprintf(text, sizeof text, "%s: %.4f %% off by one, %.4f %% by more", what, 100.0 * (double)off / (double)n,
             100.0 * (double)far / (double)n);
    judge_plain(b, far * 1000 <= n, text, why);
}

static void check_frame(struct bench *b, struct sl_frame like, int upside_down, int width, int height, const char *kind)
{
    int ended = 0;
    like.bit_depth = like.bit_depth ? like.bit_depth : 8;
    like.references = 1;
    like.release = released;
    like.owner = &ended;
    create_planes(b, &like, upside_down);
    int64_t shape[3] = {height, width, 3}, bytes = (int64_t)width * height * 3;
    uint8_t *poison = bench_host(b, bytes);
    memset(poison, 0xaa, (size_t)bytes);
    struct operand flat = operand_bytes(b, poison, 1, bytes), out = operand_reshaped(&flat, 3, shape);
    out.ref.data = bench_host(b, bytes);
    b->reference->ops->image_resize(b->reference_stream, &like, &out.ref);
    int gpu = b->dut->ops->native_context(b->dut) != NULL;
    for (int memory = 0; memory < 1 + gpu; memory++) {
        struct sl_frame frame = memory ? on_device(b, &like) : like;
        char what[200];
        snprintf(what, sizeof what, "image_resize: %s, %dx%d to %dx%d, %s memory", kind, like.width, like.height, width,
                 height, memory ? "device" : "host");
        b->dut->ops->upload(b->stream, out.dut.data, poison, bytes);
        b->dut->ops->image_resize(b->stream, &frame, &out.dut);
        compare_pictures(b, &out, what);
        if (frame.references != 1 || ended != 0) {
            judge_plain(b, 0, what, "the frame's references are not what they were");
        }
    }
    bench_clear(b);
}

#define YUV420 .layout = SL_LAYOUT_YUV_PLANAR, .chroma_shift_x = 1, .chroma_shift_y = 1
#define NV12   .layout = SL_LAYOUT_YUV_SEMIPLANAR, .chroma_shift_x = 1, .chroma_shift_y = 1
#define P010   NV12, .bit_depth = 10, .msb_shift = 6

static const struct {
    const char *kind;
    struct sl_frame frame;
    int width, height, upside_down;
} pictures[] = {
    {"yuv420p", {.width = 640, .height = 360, YUV420}, 640, 352, 0},
    {"yuv420p", {.width = 35, .height = 27, YUV420}, 96, 64, 0},
    {"yuv420p", {.width = 5, .height = 3, YUV420}, 32, 32, 0},
    {"yuv420p upside down", {.width = 160, .height = 90, YUV420}, 64, 32, 1},
    {"yuv420p full range", {.width = 160, .height = 90, YUV420, .range = SL_RANGE_FULL}, 160, 64, 0},
    {"yuv420p bt709", {.width = 160, .height = 90, YUV420, .matrix = SL_MATRIX_BT709}, 160, 90, 0},
    {"yuv420p bt2020", {.width = 160, .height = 90, YUV420, .matrix = SL_MATRIX_BT2020}, 160, 90, 0},
    {"yuv420p smpte240m", {.width = 160, .height = 90, YUV420, .matrix = SL_MATRIX_SMPTE240M}, 160, 90, 0},
    {"yuv420p fcc", {.width = 160, .height = 90, YUV420, .matrix = SL_MATRIX_FCC}, 160, 90, 0},
    {"yuv420p centre", {.width = 160, .height = 90, YUV420, .siting = SL_SITING_CENTER}, 160, 90, 0},
    {"yuv420p top left", {.width = 161, .height = 91, YUV420, .siting = SL_SITING_TOPLEFT}, 161, 91, 0},
    {"yuv422p", {.width = 101, .height = 66, .layout = SL_LAYOUT_YUV_PLANAR, .chroma_shift_x = 1}, 96, 64, 0},
    {"yuv410p",
     {.width = 130, .height = 70, .layout = SL_LAYOUT_YUV_PLANAR, .chroma_shift_x = 2, .chroma_shift_y = 2},
     96,
     64,
     0},
    {"yuv444p", {.width = 160, .height = 90, .layout = SL_LAYOUT_YUV_PLANAR}, 96, 64, 0},
    {"yuv420p10", {.width = 160, .height = 90, YUV420, .bit_depth = 10}, 96, 64, 0},
    {"yuv420p12", {.width = 160, .height = 90, YUV420, .bit_depth = 12}, 96, 64, 0},
    {"nv12", {.width = 1920, .height = 1080, NV12}, 640, 352, 0},
    {"nv12", {.width = 639, .height = 361, NV12}, 352, 192, 0},
    {"nv12 enlarged", {.width = 160, .height = 90, NV12}, 224, 128, 0},
    {"p010", {.width = 640, .height = 360, P010}, 352, 192, 0},
    {"p010 pq",
     {.width = 640, .height = 360, P010, .matrix = SL_MATRIX_BT2020, .transfer = SL_TRANSFER_PQ},
     352,
     192,
     0},
    {"p010 hlg",
     {.width = 640, .height = 360, P010, .matrix = SL_MATRIX_BT2020, .transfer = SL_TRANSFER_HLG},
     352,
     192,
     0},
    {"gray", {.width = 161, .height = 91, .layout = SL_LAYOUT_GRAY}, 96, 64, 0},
    {"rgb planar", {.width = 161, .height = 91, .layout = SL_LAYOUT_RGB_PLANAR}, 96, 64, 0},
    {"rgb packed", {.width = 161, .height = 91, .layout = SL_LAYOUT_RGB_PACKED}, 96, 64, 0},
    {"nv12 turned 90", {.width = 640, .height = 360, NV12, .rotation = 90}, 192, 352, 0},
    {"nv12 turned 180", {.width = 640, .height = 360, NV12, .rotation = 180}, 352, 192, 0},
    {"nv12 turned 270", {.width = 640, .height = 360, NV12, .rotation = 270}, 192, 352, 0},
    {"nv12 mirrored", {.width = 640, .height = 360, NV12, .mirrored = 1}, 352, 192, 0},
    {"nv12 turned 90, mirrored", {.width = 160, .height = 90, NV12, .rotation = 90, .mirrored = 1}, 64, 96, 0},
    {"nv12 turned 270, mirrored", {.width = 160, .height = 90, NV12, .rotation = 270, .mirrored = 1}, 64, 96, 0},
};

void check_image_resize(struct bench *b)
{
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        check_frame(b, pictures[i].frame, pictures[i].upside_down, pictures[i].width, pictures[i].height,
                    pictures[i].kind);
    }
}

// --- still pairs ---

// Pictures that wander by a few levels each; every fourth shows what the one before does.
static void check_differences(struct bench *b, int width, int height, int count, float level)
{
    int64_t size = (int64_t)width * height * 3;
    int pairs = count - 1;
    uint8_t *pixels = bench_host(b, size * count);
    int32_t *pair = bench_host(b, 2 * pairs * (int64_t)sizeof *pair);
    for (int64_t i = 0; i < size * count; i++) {
        int still = i >= size && i / size % 4 == 3;
        pixels[i] = (uint8_t)(i < size ? 40 + bench_below(b, 120) : pixels[i - size] + (still ? 0 : bench_below(b, 4)));
    }
    for (int i = 0; i < 2 * pairs; i++) {
        pair[i] = (i + 1) / 2;
    }
    struct operand shown = operand_bytes(b, pixels, 1, size * count), which = operand_ints(b, pair, 1, 2 * pairs);
    struct operand out = operand_output(b, SL_F32, 1, pairs);
    shown = operand_reshaped(&shown, 4, (int64_t[]){count, height, width, 3});
    which = operand_reshaped(&which, 2, (int64_t[]){pairs, 2});
    out = operand_reshaped(&out, 1, (int64_t[]){pairs});
    b->dut->ops->pair_differences(b->stream, &shown.dut, &which.dut, level, &out.dut);
    b->reference->ops->pair_differences(b->reference_stream, &shown.ref, &which.ref, level, &out.ref);
    char what[120], why[120] = "";
    snprintf(what, sizeof what, "pair_differences: %d pairs of %dx%d, level %g", pairs, width, height, (double)level);
    if (!bench_failed_stream(b, what)) {
        operand_fetch(b, &out);
        const float *got = out.host.data, *wanted = out.ref.data;
        for (int i = pairs - 1; i >= 0; i--) {
            if (got[i] != wanted[i]) {
                snprintf(why, sizeof why, "pair %d: %g for %g", i, (double)got[i], (double)wanted[i]);
            }
        }
        judge_plain(b, why[0] == 0, what, why);
    }
    bench_clear(b);
}

void check_pair_differences(struct bench *b)
{
    check_differences(b, 64, 32, 2, 1);
    check_differences(b, 64, 32, 20, 0);
    check_differences(b, 56, 40, 20, 4);
    check_differences(b, 56, 40, 20, 255);
    check_differences(b, 640, 352, 32, 6);
}

struct sl_frame *bench_frame(struct bench *b, int width, int height)
{
    struct sl_frame *frame = bench_host(b, sizeof *frame);
    *frame = (struct sl_frame){.width = width, .height = height, NV12, .bit_depth = 8, .references = 1};
    create_planes(b, frame, 0);
    if (b->dut->ops->native_context(b->dut) != NULL) {
        *frame = on_device(b, frame);
    }
    return frame;
}

// --- drawing tokens ---

struct candidate {
    double value;
    int32_t id;
};

static int by_value(const void *x, const void *y)
{
    const struct candidate *a = x, *b = y;
    return a->value != b->value ? (a->value < b->value) - (a->value > b->value) : (a->id > b->id) - (a->id < b->id);
}

static int by_id(const void *x, const void *y)
{
    return ((const struct candidate *)x)->id - ((const struct candidate *)y)->id;
}

static int has_bit(const uint32_t *bits, int64_t id)
{
    return bits == NULL || (bits[id / 32] >> (id % 32) & 1);
}

// What may be drawn of one row, in float64, in order of ids, the values as probabilities.
static int64_t distribution(const float *logits, int64_t vocab, const struct sl_sample_row *how,
                            const uint32_t *allowed, const uint32_t *seen, struct candidate *c)
{
    int64_t n = 0, kept;
    double total = 0, sum = 0;
    for (int64_t id = 0; id < vocab; id++) {
        if (has_bit(allowed, id)) {
            double penalty = seen != NULL && has_bit(seen, id) ? (double)how->presence : 0;
            c[n++] = (struct candidate){(double)logits[id] - penalty, (int32_t)id};
        }
    }
    qsort(c, (size_t)n, sizeof *c, by_value);
    n = how->top_k > 0 && how->top_k < n ? how->top_k : n;
    double top = c[0].value;
    for (int64_t i = 0; i < n; i++) {
        c[i].value = exp((c[i].value - top) / (how->temperature > 0 ? (double)how->temperature : 1e-3));
        total += c[i].value;
    }
    for (kept = 0; kept < n && (how->top_p >= 1 || sum < (double)how->top_p * total); kept++) {
        sum += c[kept].value;
    }
    qsort(c, (size_t)kept, sizeof *c, by_id);
    for (int64_t i = 0; i < kept; i++) {
        c[i].value /= sum;
    }
    return kept;
}

// By how much the row's random number misses the share of the token that was drawn; 0: not at all.
static double miss(const struct candidate *c, int64_t n, double uniform, int32_t token)
{
    double sum = 0;
    for (int64_t i = 0; i < n; sum += c[i++].value) {
        if (c[i].id == token) {
            return uniform < sum ? sum - uniform : uniform > sum + c[i].value ? uniform - sum - c[i].value : 0;
        }
    }
    return 1;
}

struct draw {
    const char *kind;
    struct sl_sample_row how;
    int masked, marked; // with a mask of few tokens; with tokens seen
    double spread;      // of the logits
};

enum { MOST_DRAWS = 40 };

static uint32_t *random_bits(struct bench *b, int64_t words, int sparse)
{
    uint32_t *bits = bench_host(b, words * (int64_t)sizeof *bits);
    for (int64_t i = 0; i < words; i++) {
        uint32_t word = (uint32_t)(bench_uniform(b) * 4294967296.0);
        // A mask's bits stay below every vocabulary here.
        bits[i] = sparse ? (i % 7 == 3 || i == words - 1 ? 1u << (word % 8) : 0) : word;
    }
    return bits;
}

static void judge_draw(struct bench *b, const struct operand *logits, const struct draw *d, int row, int32_t token,
                       float logprob, const uint32_t *allowed, const uint32_t *seen)
{
    int64_t vocab = logits->host.shape[1];
    const float *values = (const float *)logits->ref.data + row * vocab;
    struct candidate *c = bench_host(b, vocab * (int64_t)sizeof *c);
    int64_t n = distribution(values, vocab, &d->how, allowed, seen, c);
    double top = values[0], sum = 0, off;
    for (int64_t i = 0; i < vocab; i++) {
        top = (double)values[i] > top ? (double)values[i] : top;
    }
    for (int64_t i = 0; i < vocab; i++) {
        sum += exp((double)values[i] - top);
    }
    if (d->how.temperature > 0) {
        off = miss(c, n, (double)d->how.uniform, token);
    } else { // the best, of equals the first
        int64_t best = 0;
        for (int64_t i = 1; i < n; i++) {
            best = c[i].value > c[best].value ? i : best;
        }
        off = c[best].id == token ? 0 : 1;
    }
    double wanted = token >= 0 && token < vocab ? (double)values[token] - top - log(sum) : 0;
    char what[160], why[160];
    snprintf(what, sizeof what, "sample: %s, vocab %d, row %d", d->kind, (int)vocab, row);
    snprintf(why, sizeof why, "token %d misses by %.2g of the probability; log probability %.6g for %.6g", token, off,
             (double)logprob, wanted);
    judge_plain(b, off < 1e-4 && fabs((double)logprob - wanted) < 1e-3, what, why);
}

static void check_draws(struct bench *b, const struct draw *draw, int count, int64_t vocab)
{
    int64_t words = (vocab + 31) / 32;
    struct sl_sample_row rows[MOST_DRAWS];
    float uniform[MOST_DRAWS];
    struct operand logits = operand_random(b, SL_F32, count, vocab, draw->spread);
    struct operand logprob = operand_output(b, SL_F32, 1, count);
    int32_t poison[MOST_DRAWS];
    memset(poison, 0xff, sizeof poison);
    struct operand token = operand_ints(b, poison, 1, count);
    uint32_t *allowed = random_bits(b, words * count, 1), *seen = random_bits(b, words * count, 0);
    struct operand mask = operand_ints(b, (const int32_t *)allowed, count, words);
    struct operand marks = operand_ints(b, (const int32_t *)seen, count, words);
    mask = operand_reshaped(&mask, 2, (int64_t[]){count, words});
    marks = operand_reshaped(&marks, 2, (int64_t[]){count, words});
    logprob = operand_reshaped(&logprob, 1, (int64_t[]){count});
    for (int i = 0; i < count; i++) {
        rows[i] = draw->how;
        uniform[i] = i == 0 ? 0 : i == 1 ? 0.9999999f : (float)bench_uniform(b) * 0.9999f;
        rows[i].uniform = uniform[i];
    }
    b->dut->ops->sample(b->stream, &logits.dut, rows, draw->masked ? &mask.dut : NULL, draw->marked ? &marks.dut : NULL,
                        &token.dut, &logprob.dut);
    memset(rows, 0, sizeof rows); // it has been copied
    if (!bench_failed_stream(b, draw->kind)) {
        operand_fetch(b, &token);
        operand_fetch(b, &logprob);
        for (int i = 0; i < count; i++) {
            struct draw one = *draw;
            one.how.uniform = uniform[i];
            judge_draw(b, &logits, &one, i, ((const int32_t *)token.host.data)[i],
                       ((const float *)logprob.host.data)[i], draw->masked ? allowed + i * words : NULL,
                       draw->marked ? seen + i * words : NULL);
        }
    }
    bench_clear(b);
}

// `grid` > 0: multiples of it, so that many are equal. `holes`: a third of the logits of some rows is -inf.
static void roughen(struct bench *b, struct operand *logits, float grid, int holes)
{
    float *x = logits->host.data;
    int64_t vocab = logits->host.shape[1];
    for (int64_t i = 0; i < sl_tensor_elements(&logits->host); i++) {
        x[i] = grid > 0 ? floorf(x[i] / grid) * grid : x[i];
        x[i] = holes && i / vocab % 3 == 1 && bench_below(b, 3) == 0 ? -INFINITY : x[i];
    }
    b->dut->ops->upload(b->stream, logits->dut.data, x, sl_tensor_bytes(&logits->host));
    operand_take_over(b, logits);
}

// Rows that want different things, some of them the best token: the same tokens as the reference.
static void check_same_tokens(struct bench *b, int count, int64_t vocab, float grid, int masked)
{
    static const int top_k[] = {20, 1, 64, 65, 0, 256, 257, 1000};
    static const float top_p[] = {0.8f, 1, 0.95f}, temperature[] = {0.7f, 1, 0.3f, 1.5f, 0};
    int64_t words = (vocab + 31) / 32;
    struct sl_sample_row *rows = bench_host(b, count * (int64_t)sizeof *rows);
    struct operand logits = operand_random(b, SL_F32, count, vocab, 3);
    struct operand logprob = operand_output(b, SL_F32, 1, count);
    struct operand token = operand_ints(b, bench_host(b, count * (int64_t)sizeof(int32_t)), 1, count);
    uint32_t *allowed = random_bits(b, words * count, 1), *seen = random_bits(b, words * count, 0);
    struct operand mask = operand_ints(b, (const int32_t *)allowed, count, words);
    struct operand marks = operand_ints(b, (const int32_t *)seen, count, words);
    roughen(b, &logits, grid, !masked || vocab > 1000); // never all of the few that a mask leaves
    logprob = operand_reshaped(&logprob, 1, (int64_t[]){count});
    for (int i = 0; i < count; i++) {
        rows[i] = (struct sl_sample_row){temperature[i % 5], top_p[i % 3], top_k[i % 8], i % 2 ? 1.5f : 0, 0};
        rows[i].uniform = 0.0001f + (float)bench_uniform(b) * 0.9998f;
    }
    token.ref.data = bench_host(b, sl_tensor_bytes(&token.ref)); // not where the device's are fetched to
    b->dut->ops->sample(b->stream, &logits.dut, rows, masked ? &mask.dut : NULL, &marks.dut, &token.dut, &logprob.dut);
    b->reference->ops->sample(b->reference_stream, &logits.ref, rows, masked ? &mask.ref : NULL, &marks.ref, &token.ref,
                              &logprob.ref);
    if (!bench_failed_stream(b, "sample")) {
        const int32_t *got = token.host.data, *wanted = token.ref.data;
        int others = 0, last = 0;
        char what[100], why[160];
        operand_fetch(b, &token);
        for (int i = 0; i < count; i++) {
            others += got[i] != wanted[i];
            last = got[i] != wanted[i] ? i : last;
        }
        snprintf(what, sizeof what, "sample: %d different rows, vocab %d, logits in steps of %g%s", count, (int)vocab,
                 (double)grid, masked ? ", mask" : "");
        snprintf(why, sizeof why, "%d tokens differ; row %d (top-k %d, top-p %g): %d, not %d", others, last,
                 rows[last].top_k, (double)rows[last].top_p, got[last], wanted[last]);
        judge_plain(b, others == 0, what, why);
        judge(b, &logprob, 1e-5, "sample: their log probabilities");
    }
    bench_clear(b);
}

void check_sample(struct bench *b)
{
    static const struct draw draws[] = {
        {"greedy", {0, 1, 0, 0, 0}, 0, 0, 3},
        {"greedy, mask", {0, 1, 0, 0, 0}, 1, 0, 3},
        {"greedy, seen", {0, 1, 0, 1.5f, 0}, 0, 1, 3},
        {"greedy, mask, seen", {0, 1, 0, 1.5f, 0}, 1, 1, 3},
        {"temperature", {1, 1, 0, 0, 0}, 0, 0, 2},
        {"temperature 0.7, mask", {0.7f, 1, 0, 0, 0}, 1, 0, 2},
        {"top-k 20", {0.7f, 1, 20, 0, 0}, 0, 0, 3},
        {"top-k 1", {1, 1, 1, 0, 0}, 0, 0, 3},
        {"top-p 0.8", {0.7f, 0.8f, 0, 0, 0}, 0, 0, 3},
        {"top-p 0.95, flat", {1, 0.95f, 0, 0, 0}, 0, 0, 0.5},
        {"top-k 20, top-p 0.8, seen", {0.7f, 0.8f, 20, 1.5f, 0}, 0, 1, 3},
        {"top-k 20, top-p 0.8, mask, seen", {0.7f, 0.8f, 20, 1.5f, 0}, 1, 1, 3},
        {"top-k 1000", {1, 1, 1000, 0, 0}, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof draws / sizeof *draws; i++) {
        check_draws(b, &draws[i], 1, 302);
        check_draws(b, &draws[i], 5, 331);
        check_draws(b, &draws[i], 3, 151936);
    }
    check_draws(b, &draws[0], 32, 151936);
    check_draws(b, &draws[1], 32, 151936);
    for (int masked = 0; masked <= 1; masked++) {
        check_same_tokens(b, 130, 302, 0, masked);
        check_same_tokens(b, 130, 331, 0.5f, masked);
        check_same_tokens(b, 120, 5003, 0, masked);
        check_same_tokens(b, 40, 151936, 0, masked);
        check_same_tokens(b, 40, 151936, 1, masked);
    }
}
