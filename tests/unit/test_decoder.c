// SPDX-License-Identifier: Apache-2.0
// The decoder against transformers (tests/golden/make_text.py, make_moe.py): on the CPU device in f32 and bf16, and on
// the plain device of the tests. Then what must not change the answer: chunks, page sizes, batches, forks.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/config.h"
#include "cpu/cpu.h"
#include "lm/decoder.h"
#include "lm/position.h"
#include "tests/support/golden.h"
#include "tests/support/stub_device.h"

enum { MAX_ROWS = 256, MAX_SEQUENCES = 4, STEPS = 64, MAX_PROMPT = 128, MAX_SEGMENTS = 32 };

struct rig {
    struct sl_device *device;
    const struct sl_device_ops *ops;
    struct sl_stream *stream;
    struct sl_weights *weights, *golden;
    struct sl_model_config config;
    enum sl_dtype compute;
    struct sl_decoder *decoder;
    struct sl_kv *kv;
    struct sl_segment segments[MAX_SEGMENTS];
    int segment_count;
    int64_t tokens, end_position;
    struct sl_visual visual;
    float *logits; // [MAX_ROWS, vocab] of the last step
};

static void check(int rc, const struct sl_error *error)
{
    if (rc) {
        fail_msg("%s", error->text);
    }
}

static struct sl_device *open_device(const char *kind)
{
    struct sl_error error = {0};
    struct sl_device *device = stub_create();
    if (!strcmp(kind, "cpu")) {
        device->ops->destroy(device);
        check(sl_cpu_create(2, &device, &error), &error);
    }
    return device;
}

// Segments as the golden lists them; the frame groups of a case are one clip.
static void read_segments(struct rig *rig)
{
    struct sl_tensor table = golden_tensor(rig->golden, "segments", SL_I32);
    const int32_t *row = table.data;
    const int32_t *ids = golden_tensor(rig->golden, "ids", SL_I32).data;
    int64_t visual = 0;
    rig->segment_count = (int)table.shape[0];
    assert_true(rig->segment_count <= MAX_SEGMENTS);
    for (int i = 0; i < rig->segment_count; i++, row += 3) {
        rig->segments[i] = (struct sl_segment){.count = row[0], .ids = ids};
        ids += row[0];
        if (row[1]) {
            rig->segments[i] = (struct sl_segment){
                .count = row[0], .visual = &rig->visual, .visual_first = visual, .rows = row[1], .columns = row[2]};
            visual += row[0];
        }
    }
    struct sl_error error = {0};
    check(sl_prompt_measure(rig->segments, rig->segment_count, &rig->tokens, &rig->end_position, &error), &error);
    assert_true(rig->tokens <= MAX_PROMPT);
}

static void make_cache(struct rig *rig, int page_tokens)
{
    struct sl_error error = {0};
    const struct sl_text_config *c = &rig->config.text;
    struct sl_kv_shape shape = {
        c->layers, c->kv_heads, c->head_dim, rig->compute, page_tokens, 1 + 1024 / page_tokens, MAX_SEQUENCES};
    sl_kv_destroy(rig->kv);
    check(sl_kv_create(rig->device, &shape, &rig->kv, &error), &error);
}

static struct rig *open_rig_of(const char *name, const char *device, enum sl_dtype compute, const char *config_file,
                               int layers)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct sl_error error = {0};
    char path[256];
    rig->device = open_device(device);
    rig->ops = rig->device->ops;
    rig->compute = compute;
    check(rig->ops->stream_create(rig->device, &rig->stream, &error), &error);
    rig->weights = golden_open(name, "");
    rig->golden = golden_open(name, "text");
    snprintf(path, sizeof path, GOLDEN_DATA "%s/%s", name, config_file);
    check(sl_config_read_file(path, &rig->config, &error), &error);
    rig->config.text.layers = layers ? layers : rig->config.text.layers;
    struct sl_decoder_limits limits = {MAX_ROWS, MAX_SEQUENCES, MAX_ROWS, 1024};
    check(sl_decoder_create(rig->device, rig->weights, &rig->config, compute, &limits, &rig->decoder, &error), &error);
    make_cache(rig, 16);
    read_segments(rig);
    rig->logits = malloc(sizeof(float) * MAX_ROWS * (size_t)rig->config.text.vocab);
    return rig;
}

static struct rig *open_rig(const char *name, const char *device, enum sl_dtype compute, const char *config_file)
{
    return open_rig_of(name, device, compute, config_file, 0);
}

static void close_rig(struct rig *rig)
{
    sl_kv_destroy(rig->kv);
    sl_decoder_destroy(rig->decoder);
    rig->ops->stream_destroy(rig->stream);
    sl_weights_close(rig->weights);
    sl_weights_close(rig->golden);
    rig->ops->destroy(rig->device);
    free(rig->logits);
    free(rig);
}

static void upload_floats(struct rig *rig, const float *from, const struct sl_tensor *to)
{
    int64_t n = sl_tensor_elements(to);
    uint16_t *half = malloc((size_t)n * sizeof *half);
    for (int64_t i = 0; i < n; i++) {
        half[i] = sl_bf16_from_f32(from[i]);
    }
    rig->ops->upload(rig->stream, to->data, to->dtype == SL_F32 ? (const void *)from : half, sl_tensor_bytes(to));
    free(half);
}

// Puts the golden's features [first, first + count) where the step takes them.
static void give_features(struct rig *rig, int at, int64_t first, int count)
{
    struct sl_tensor features, deepstack[SL_MAX_DEEPSTACK];
    int64_t hidden = rig->config.text.hidden;
    sl_decoder_visual(rig->decoder, at, count, &features, deepstack);
    upload_floats(rig, (const float *)golden_tensor(rig->golden, "features", SL_F32).data + first * hidden, &features);
    for (int k = 0; k < rig->config.vision.deepstack_count; k++) {
        struct sl_tensor all = golden_tensor(rig->golden, "deepstack", SL_F32);
        upload_floats(rig, (const float *)all.data + k * all.stride[0] + first * hidden, &deepstack[k]);
    }
}

static void begin_step(struct rig *rig)
{
    struct sl_step *step = sl_decoder_step(rig->decoder);
    step->sequences = step->rows = step->visual_rows = step->logit_rows = 0;
    step->row_start[0] = 0;
}

// Adds up to `limit` prompt rows of a sequence; all their logits are wanted.
static int add_prompt_rows(struct rig *rig, struct sl_prompt_walk *walk, struct sl_kv_sequence *kv, int limit)
{
    struct sl_step *step = sl_decoder_step(rig->decoder);
    struct sl_prompt_piece piece;
    int added = 0;
    while (added < limit && sl_prompt_walk_next(walk, limit - added, &piece)) {
        int row = step->rows, count = (int)piece.count;
        sl_prompt_piece_positions(&piece, step->position[0] + row, step->position[1] + row, step->position[2] + row);
        if (!piece.segment->ids) {
            give_features(rig, step->visual_rows, piece.segment->visual_first + piece.offset, count);
        }
        for (int i = 0; i < count; i++) {
            step->ids[row + i] = piece.segment->ids ? piece.segment->ids[piece.offset + i] : rig->config.video_token;
            step->logit_row[step->logit_rows++] = row + i;
            if (!piece.segment->ids) {
                step->visual_row[step->visual_rows++] = row + i;
            }
        }
        step->rows += count;
        added += count;
    }
    sl_kv_grow(kv, added);
    step->kv[step->sequences++] = kv;
    step->row_start[step->sequences] = step->rows;
    return added;
}

static void add_decode_row(struct rig *rig, struct sl_kv_sequence *kv, int32_t id, int64_t position)
{
    struct sl_step *step = sl_decoder_step(rig->decoder);
    int row = step->rows++;
    step->ids[row] = id;
    for (int axis = 0; axis < 3; axis++) {
        step->position[axis][row] = (int32_t)position;
    }
    step->logit_row[step->logit_rows++] = row;
    sl_kv_grow(kv, 1);
    step->kv[step->sequences++] = kv;
    step->row_start[step->sequences] = step->rows;
}

static void run_step(struct rig *rig)
{
    struct sl_tensor logits;
    struct sl_error error = {0};
    sl_decoder_run(rig->decoder, rig->stream, rig->kv, &logits);
    rig->ops->download(rig->stream, rig->logits, logits.data, sl_tensor_bytes(&logits));
    check(rig->ops->wait(rig->stream, &error), &error);
}

static struct sl_prompt_walk begin_walk(const struct rig *rig)
{
    return (struct sl_prompt_walk){.segments = rig->segments, .segment_count = rig->segment_count};
}

static struct sl_kv_sequence start(struct rig *rig)
{
    struct sl_kv_sequence kv;
    struct sl_error error = {0};
    check(sl_kv_start(rig->kv, rig->tokens + STEPS, &kv, &error), &error);
    return kv;
}

// Logits [tokens, vocab] of the whole prompt, in chunks.
static float *prefill(struct rig *rig, struct sl_kv_sequence *kv, int chunk)
{
    int64_t vocab = rig->config.text.vocab, row = 0;
    float *all = malloc(sizeof(float) * (size_t)(rig->tokens * vocab));
    struct sl_prompt_walk walk = begin_walk(rig);
    while (row < rig->tokens) {
        begin_step(rig);
        int added = add_prompt_rows(rig, &walk, kv, chunk);
        run_step(rig);
        memcpy(all + row * vocab, rig->logits, sizeof(float) * (size_t)(added * vocab));
        row += added;
    }
    return all;
}

// A prompt's logits at the golden's rows, [rows, vocab]; *n values.
static float *pick_rows(struct rig *rig, const float *all, int64_t *n)
{
    struct sl_tensor rows = golden_tensor(rig->golden, "rows", SL_I32);
    int64_t vocab = rig->config.text.vocab;
    *n = rows.shape[0] * vocab;
    float *picked = malloc(sizeof(float) * (size_t)*n);
    for (int64_t i = 0; i < rows.shape[0]; i++) {
        memcpy(picked + i * vocab, all + ((const int32_t *)rows.data)[i] * vocab, sizeof(float) * (size_t)vocab);
    }
    return picked;
}

static double error_at_rows(struct rig *rig, const float *all, const char *golden)
{
    int64_t n = 0;
    float *picked = pick_rows(rig, all, &n);
    double error = relative_error(picked, golden_tensor(rig->golden, golden, SL_F32).data, n);
    free(picked);
    return error;
}

static int argmax(const float *x, int64_t n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

static const char *cases[] = {"a", "b", "c", "d", "moe-published", "moe-turned", "moe-separate", "fp8", "fp8-moe"};
enum { CASES = sizeof cases / sizeof *cases };

// ---- Against the reference

// The largest difference of any logit of the prompt's last row, which the golden keeps last.
static double logit_error(struct rig *rig, const float *last)
{
    struct sl_tensor golden = golden_tensor(rig->golden, "logits", SL_F32);
    const float *expected = (const float *)golden.data + (golden.shape[0] - 1) * golden.shape[1];
    double most = 0;
    for (int64_t i = 0; i < golden.shape[1]; i++) {
        most = fmax(most, fabs((double)last[i] - expected[i]));
    }
    return most;
}

static void continues_as_the_reference(struct rig *rig, struct sl_kv_sequence *kv, const float *last)
{
    double error = logit_error(rig, last);
    const int32_t *expected = golden_tensor(rig->golden, "greedy", SL_I32).data;
    const float *margin = golden_tensor(rig->golden, "margins", SL_F32).data;
    int64_t vocab = rig->config.text.vocab;
    memcpy(rig->logits, last, sizeof(float) * (size_t)vocab);
    for (int i = 0; i < STEPS; i++) {
        if (margin[i] > 10 * error) { // nearer than that, the reference itself might say the other
            assert_int_equal(argmax(rig->logits, vocab), expected[i]);
        }
        if (i + 1 < STEPS) {
            begin_step(rig);
            add_decode_row(rig, kv, expected[i], rig->end_position + i);
            run_step(rig);
        }
    }
    double end = relative_error(rig->logits, golden_tensor(rig->golden, "greedy_logits", SL_F32).data, vocab);
    print_message("  after 63 decoded tokens: %.2g\n", end);
    assert_true(end < 1e-4);
}

static void matches_the_reference(const char *device)
{
    for (int i = 0; i < CASES; i++) {
        struct rig *rig = open_rig(cases[i], device, SL_F32, "config.json");
        struct sl_kv_sequence kv = start(rig);
        float *all = prefill(rig, &kv, MAX_PROMPT);
        double error = error_at_rows(rig, all, "logits");
        print_message("%s %s f32: relative error of the logits %.2g\n", device, cases[i], error);
        assert_true(error < 1e-4);
        continues_as_the_reference(rig, &kv, all + (rig->tokens - 1) * rig->config.text.vocab);
        free(all);
        sl_kv_finish(&kv);
        close_rig(rig);
    }
}

static void matches_the_reference_on_the_cpu(void **state)
{
    (void)state;
    matches_the_reference("cpu");
}

static void matches_the_reference_on_the_plain_device(void **state)
{
    (void)state;
    matches_the_reference("plain");
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The error of logits at the golden's rows. Of a mixture of experts, the median of the rows' errors: where two experts
// are all but equal, rounding decides which one a row is sent to, for us and for the reference at different rows.
static double bf16_error(struct rig *rig, const float *logits, int64_t n)
{
    const float *exact = golden_tensor(rig->golden, "logits", SL_F32).data;
    int64_t vocab = rig->config.text.vocab, rows = n / vocab;
    double error[MAX_PROMPT];
    for (int64_t i = 0; i < rows; i++) {
        error[i] = relative_error(logits + i * vocab, exact + i * vocab, vocab);
    }
    qsort(error, (size_t)rows, sizeof *error, compare_doubles);
    return rig->config.text.experts ? error[rows / 2] : relative_error(logits, exact, n);
}

static void errs_in_bf16_no_more_than_the_reference_does(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct rig *rig = open_rig(cases[i], "cpu", SL_BF16, "config.json");
        struct sl_kv_sequence kv = start(rig);
        int64_t n = 0;
        float *all = prefill(rig, &kv, MAX_PROMPT), *ours = pick_rows(rig, all, &n);
        const uint16_t *half = golden_tensor(rig->golden, "logits_bf16", SL_BF16).data;
        float *theirs = malloc(sizeof(float) * (size_t)n);
        for (int64_t k = 0; k < n; k++) {
            theirs[k] = sl_bf16_to_f32(half[k]);
        }
        double error = bf16_error(rig, ours, n), reference = bf16_error(rig, theirs, n);
        print_message("cpu %s bf16: error %.3g, the reference's own %.3g, ratio %.2f\n", cases[i], error, reference,
                      error / reference);
        assert_true(error < 1.5 * reference);
        free(theirs);
        free(ours);
        free(all);
        sl_kv_finish(&kv);
        close_rig(rig);
    }
}

// The first router's logits as transformers computed them go to the same experts, with the same weights.
static void routes_as_the_reference(const char *name, const char *kind)
{
    struct rig *rig = open_rig(name, kind, SL_F32, "config.json");
    struct sl_tensor host = golden_tensor(rig->golden, "router_logits", SL_F32);
    struct sl_tensor wanted = golden_tensor(rig->golden, "router_expert", SL_I32);
    int64_t rows = wanted.shape[0], top_k = wanted.shape[1];
    struct sl_tensor t[3] = {host, wanted, sl_tensor_2d(NULL, SL_F32, rows, top_k)};
    struct sl_error error = {0};
    for (int i = 0; i < 3; i++) {
        check(rig->ops->alloc(rig->device, sl_tensor_bytes(&t[i]), &t[i].data, &error), &error);
    }
    rig->ops->upload(rig->stream, t[0].data, host.data, sl_tensor_bytes(&host));
    rig->ops->route(rig->stream, &t[0], rig->config.text.normalise_routing, &t[1], &t[2]);
    int32_t *expert = malloc((size_t)sl_tensor_bytes(&t[1]));
    float *weight = malloc((size_t)sl_tensor_bytes(&t[2]));
    rig->ops->download(rig->stream, expert, t[1].data, sl_tensor_bytes(&t[1]));
    rig->ops->download(rig->stream, weight, t[2].data, sl_tensor_bytes(&t[2]));
    check(rig->ops->wait(rig->stream, &error), &error);
    assert_memory_equal(expert, wanted.data, (size_t)sl_tensor_bytes(&wanted));
    assert_true(relative_error(weight, golden_tensor(rig->golden, "router_weight", SL_F32).data, rows * top_k) < 1e-6);
    for (int i = 0; i < 3; i++) {
        rig->ops->release(rig->device, t[i].data);
    }
    free(expert);
    free(weight);
    close_rig(rig);
}

static void routes_rows_as_the_reference(void **state)
{
    (void)state;
    const char *sparse[] = {"moe-published", "moe-turned", "moe-separate", "fp8-moe"};
    for (size_t i = 0; i < sizeof sparse / sizeof *sparse; i++) {
        routes_as_the_reference(sparse[i], "cpu");
        routes_as_the_reference(sparse[i], "plain");
    }
}

static void stretches_positions_by_yarn(void **state)
{
    (void)state;
    struct rig *rig = open_rig("c", "cpu", SL_F32, "config_yarn.json");
    struct sl_kv_sequence kv = start(rig);
    struct sl_prompt_walk walk = begin_walk(rig);
    const int32_t *positions = golden_tensor(rig->golden, "positions_yarn", SL_I32).data;
    begin_step(rig);
    add_prompt_rows(rig, &walk, &kv, MAX_PROMPT);
    for (int axis = 0; axis < 3; axis++) {
        memcpy(sl_decoder_step(rig->decoder)->position[axis], positions + axis * rig->tokens,
               sizeof(int32_t) * (size_t)rig->tokens);
    }
    run_step(rig);
    double error = error_at_rows(rig, rig->logits, "yarn_logits");
    print_message("cpu c f32 with YaRN: relative error of the logits %.2g\n", error);
    assert_true(error < 1e-4);
    sl_kv_finish(&kv);
    close_rig(rig);
}

// ---- What must not matter

static void takes_prompts_in_any_chunks_and_pages(void **state)
{
    (void)state;
    const int chunks[] = {1, 7, 33, MAX_PROMPT}, pages[] = {1, 5, 64};
    struct rig *rig = open_rig("b", "cpu", SL_F32, "config.json");
    for (int p = 0; p < 3; p++) {
        make_cache(rig, pages[p]);
        for (int c = 0; c < 4; c++) {
            struct sl_kv_sequence kv = start(rig);
            float *all = prefill(rig, &kv, chunks[c]);
            assert_true(error_at_rows(rig, all, "logits") < 1e-5);
            free(all);
            sl_kv_finish(&kv);
        }
    }
    close_rig(rig);
}

// Wanting fewer logits changes none of them, be the last layer one with DeepStack features or not.
static void gives_the_logits_asked_for(void **state)
{
    (void)state;
    for (int layers = 3; layers <= 4; layers++) {
        struct rig *rig = open_rig_of("b", "cpu", SL_F32, "config.json", layers);
        struct sl_kv_sequence first = start(rig), second = start(rig);
        struct sl_step *step = sl_decoder_step(rig->decoder);
        int64_t vocab = rig->config.text.vocab;
        float *all = prefill(rig, &first, MAX_PROMPT);
        struct sl_prompt_walk walk = begin_walk(rig);
        begin_step(rig);
        add_prompt_rows(rig, &walk, &second, 30);
        step->logit_rows = 0;
        run_step(rig);
        begin_step(rig);
        add_prompt_rows(rig, &walk, &second, MAX_PROMPT);
        step->logit_rows = 2;
        step->logit_row[0] = 11;
        step->logit_row[1] = 42;
        run_step(rig);
        assert_true(relative_error(rig->logits, all + (30 + 11) * vocab, vocab) < 1e-5);
        assert_true(relative_error(rig->logits + vocab, all + (30 + 42) * vocab, vocab) < 1e-5);
        sl_kv_finish(&first);
        sl_kv_finish(&second);
        free(all);
        close_rig(rig);
    }
}

// Three sequences in one step, each somewhere else: at the prompt's start, in the middle of it, and decoding.
static void mixes_sequences_of(const char *name)
{
    struct rig *rig = open_rig(name, "cpu", SL_F32, "config.json");
    struct sl_kv_sequence alone = start(rig), early = start(rig), late = start(rig), decoding = start(rig);
    int64_t vocab = rig->config.text.vocab;
    float *all = prefill(rig, &alone, MAX_PROMPT);
    free(prefill(rig, &decoding, MAX_PROMPT));
    int32_t next = argmax(all + (rig->tokens - 1) * vocab, vocab);
    begin_step(rig);
    add_decode_row(rig, &alone, next, rig->end_position);
    run_step(rig);
    float *decoded = malloc(sizeof(float) * (size_t)vocab);
    memcpy(decoded, rig->logits, sizeof(float) * (size_t)vocab);

    struct sl_prompt_walk early_walk = begin_walk(rig), late_walk = begin_walk(rig);
    begin_step(rig);
    add_prompt_rows(rig, &late_walk, &late, 40);
    run_step(rig);
    begin_step(rig);
    int late_rows = add_prompt_rows(rig, &late_walk, &late, MAX_PROMPT);
    add_decode_row(rig, &decoding, next, rig->end_position);
    int early_rows = add_prompt_rows(rig, &early_walk, &early, 21);
    run_step(rig);
    assert_true(relative_error(rig->logits, all + 40 * vocab, late_rows * vocab) < 1e-5);
    assert_true(relative_error(rig->logits + late_rows * vocab, decoded, vocab) < 1e-5);
    assert_true(relative_error(rig->logits + (late_rows + 1) * vocab, all, early_rows * vocab) < 1e-5);

    struct sl_kv_sequence *every[] = {&alone, &early, &late, &decoding};
    for (int i = 0; i < 4; i++) {
        sl_kv_finish(every[i]);
    }
    free(decoded);
    free(all);
    close_rig(rig);
}

static void mixes_sequences_in_one_step(void **state)
{
    (void)state;
    mixes_sequences_of("d");
    mixes_sequences_of("moe-published");
}

static void forks_without_touching_the_parent(void **state)
{
    (void)state;
    struct rig *rig = open_rig("a", "cpu", SL_F32, "config.json");
    struct sl_kv_sequence parent = start(rig), child;
    struct sl_error error = {0};
    int64_t vocab = rig->config.text.vocab;
    float *all = prefill(rig, &parent, MAX_PROMPT);
    // The child goes another way after token 60 (a partial page), then the parent goes on.
    check(sl_kv_fork(rig->stream, &parent, 60, rig->tokens + STEPS, &child, &error), &error);
    struct sl_prompt_walk walk = begin_walk(rig);
    struct sl_prompt_piece piece;
    for (int64_t walked = 0; walked < 60; walked += piece.count) {
        sl_prompt_walk_next(&walk, 60 - walked, &piece);
    }
    struct sl_prompt_walk other = walk;
    begin_step(rig);
    add_prompt_rows(rig, &walk, &child, MAX_PROMPT);
    sl_decoder_step(rig->decoder)->ids[35] ^= 1;
    run_step(rig);
    assert_true(relative_error(rig->logits, all + 60 * vocab, 35 * vocab) < 1e-5);
    assert_true(relative_error(rig->logits + 35 * vocab, all + 95 * vocab, vocab) > 1e-2);
    continues_as_the_reference(rig, &parent, all + (rig->tokens - 1) * vocab);
    sl_kv_finish(&parent); // the child keeps the shared pages
    child.length = 60;
    begin_step(rig);
    int rows = add_prompt_rows(rig, &other, &child, MAX_PROMPT);
    run_step(rig);
    assert_true(relative_error(rig->logits, all + 60 * vocab, rows * vocab) < 1e-5);
    sl_kv_finish(&child);
    free(all);
    close_rig(rig);
}

// ---- What it refuses

static void names_a_tensor_of_another_shape(void **state)
{
    (void)state;
    struct sl_error error = {0};
    struct sl_model_config config;
    struct sl_device *device = stub_create();
    struct sl_weights *weights = golden_open("a", "");
    struct sl_decoder_limits limits = {8, 1, 1, 1};
    struct sl_decoder *decoder;
    check(sl_config_read_file(GOLDEN_DATA "a/config.json", &config, &error), &error);
    config.text.intermediate++;
    assert_int_equal(sl_decoder_create(device, weights, &config, SL_F32, &limits, &decoder, &error),
                     SL_ERR_MODEL_SHAPE);
    assert_non_null(strstr(error.text, "gate_proj"));
    assert_int_equal(stub_of(device)->allocations, 0);
    sl_weights_close(weights);
    device->ops->destroy(device);
}

static void assert_not_made(const char *name, const struct sl_model_config *config, const char *words)
{
    struct sl_error error = {0};
    struct sl_device *device = stub_create();
    struct sl_weights *weights = golden_open(name, "");
    struct sl_decoder_limits limits = {8, 1, 1, 1};
    struct sl_decoder *decoder;
    assert_int_equal(sl_decoder_create(device, weights, config, SL_F32, &limits, &decoder, &error), SL_ERR_MODEL_SHAPE);
    if (!strstr(error.text, words)) {
        fail_msg("'%s' lacks '%s'", error.text, words);
    }
    assert_int_equal(stub_of(device)->allocations, 0);
    sl_weights_close(weights);
    device->ops->destroy(device);
}

static void names_experts_that_are_not_as_the_config_says(void **state)
{
    (void)state;
    const struct {
        const char *name;
        int more; // than the tensors hold
        const char *words;
    } counts[] = {
        {"moe-published", 1, "hold 8 and 8 experts, config.json says 9"},
        {"moe-published", -1, "hold 8 and 8 experts, config.json says 7"},
        {"moe-turned", 1, "hold 6 and 6 experts, config.json says 7"},
        {"moe-separate", 1, "mlp.experts.5.gate_proj.weight is missing"},
        {"moe-separate", -1, "mlp.experts.4.gate_proj.weight is one expert more than the 4"},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct sl_error error = {0};
        struct sl_model_config config;
        char path[256];
        snprintf(path, sizeof path, GOLDEN_DATA "%s/config.json", counts[i].name);
        check(sl_config_read_file(path, &config, &error), &error);
        config.text.experts += counts[i].more;
        assert_not_made(counts[i].name, &config, counts[i].words);
        config.text.experts -= counts[i].more;
        config.text.expert_intermediate++;
        assert_not_made(counts[i].name, &config, "config.json needs");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_reference_on_the_plain_device),
        cmocka_unit_test(matches_the_reference_on_the_cpu),
        cmocka_unit_test(errs_in_bf16_no_more_than_the_reference_does),
        cmocka_unit_test(routes_rows_as_the_reference),
        cmocka_unit_test(stretches_positions_by_yarn),
        cmocka_unit_test(takes_prompts_in_any_chunks_and_pages),
        cmocka_unit_test(gives_the_logits_asked_for),
        cmocka_unit_test(mixes_sequences_in_one_step),
        cmocka_unit_test(forks_without_touching_the_parent),
        cmocka_unit_test(names_a_tensor_of_another_shape),
        cmocka_unit_test(names_experts_that_are_not_as_the_config_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
