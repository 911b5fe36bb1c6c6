// SPDX-License-Identifier: Apache-2.0
// The vision tower against transformers (tests/golden/make_vision.py), fed with the reference's own patches.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "tests/support/golden.h"
#include "vision/grid.h"
#include "vision/vision.h"

enum { GRIDS = 2, MAX_PATCHES = 192 };

static const char *const cases[] = {"a", "b", "c", "d"};
enum { CASES = sizeof cases / sizeof *cases };

static struct sl_device *device;
static struct sl_stream *stream;

static int setup(void **state)
{
    (void)state;
    struct sl_error error;
    return sl_cpu_create(2, &device, &error) || device->ops->stream_create(device, &stream, &error);
}

static int teardown(void **state)
{
    (void)state;
    device->ops->stream_destroy(stream);
    device->ops->destroy(device);
    return 0;
}

static void must(int status, const struct sl_error *error)
{
    if (status != SL_OK) {
        fail_msg("%s", error->text);
    }
}

// --- a tower and the golden beside it ---

struct trial {
    struct sl_model_config config;
    struct sl_weights *weights, *golden;
    struct sl_vision *vision;
    enum sl_dtype compute;
};

static struct trial open_trial(const char *name, enum sl_dtype compute, int64_t max_patches)
{
    struct trial t = {.compute = compute, .golden = golden_open(name, "vision"), .weights = golden_open(name, "")};
    struct sl_error error;
    char folder[64];
    snprintf(folder, sizeof folder, GOLDEN_DATA "%s", name);
    must(sl_config_read(folder, &t.config, &error), &error);
    must(sl_vision_create(device, t.weights, &t.config, compute, max_patches, &t.vision, &error), &error);
    return t;
}

static void close_trial(struct trial *t)
{
    sl_vision_destroy(t->vision);
    sl_weights_close(t->weights);
    sl_weights_close(t->golden);
}

static struct sl_tensor golden_part(struct trial *t, int grid, const char *part, enum sl_dtype dtype)
{
    char name[64];
    snprintf(name, sizeof name, "%d.%s", grid, part);
    return golden_tensor(t->golden, name, dtype);
}

static struct sl_tensor device_tensor(enum sl_dtype dtype, int64_t rows, int64_t columns)
{
    struct sl_error error;
    struct sl_tensor t = sl_tensor_2d(NULL, dtype, rows, columns);
    must(device->ops->alloc(device, sl_tensor_bytes(&t), &t.data, &error), &error);
    return t;
}

// Values of a CPU tensor, as f32.
static float *values(const struct sl_tensor *t)
{
    int64_t n = sl_tensor_elements(t);
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = t->dtype == SL_F32 ? ((const float *)t->data)[i] : sl_bf16_to_f32(((const uint16_t *)t->data)[i]);
    }
    return out;
}

static struct sl_tensor make_patches(struct trial *t, int grid)
{
    struct sl_tensor pixels = golden_part(t, grid, "pixels", SL_U8);
    struct sl_tensor patches = device_tensor(t->compute, pixels.shape[0], pixels.shape[1]);
    for (int64_t i = 0; i < sl_tensor_elements(&pixels); i++) {
        float value = (((const uint8_t *)pixels.data)[i] - 127.5f) / 127.5f;
        if (t->compute == SL_F32) {
            ((float *)patches.data)[i] = value;
        } else {
            ((uint16_t *)patches.data)[i] = sl_bf16_from_f32(value);
        }
    }
    return patches;
}

// Features and taps of groups [first, first + groups) of a golden's grid: out[0] and out[1...].
static void encode(struct trial *t, int grid, int first, int groups, struct sl_tensor *out)
{
    const int32_t *shape = golden_part(t, grid, "grid", SL_I32).data;
    const struct sl_vision_config *c = &t->config.vision;
    int64_t rows = shape[1] * shape[2], tokens = rows / (c->merge * c->merge);
    struct sl_tensor patches = make_patches(t, grid), some = sl_tensor_rows(&patches, first * rows, groups * rows);
    for (int i = 0; i <= c->deepstack_count; i++) {
        out[i] = device_tensor(t->compute, groups * tokens, c->out_hidden);
    }
    struct sl_error error;
    must(sl_vision_encode(t->vision, stream, &some, groups, shape[1], shape[2], &out[0], out + 1, &error), &error);
    must(device->ops->wait(stream, &error), &error);
    device->ops->release(device, patches.data);
}

static void release_outputs(const struct trial *t, struct sl_tensor *out)
{
    for (int i = 0; i <= t->config.vision.deepstack_count; i++) {
        device->ops->release(device, out[i].data);
    }
}

static double output_error(struct trial *t, int grid, int index, const struct sl_tensor *got)
{
    char part[32] = "features";
    if (index > 0) {
        snprintf(part, sizeof part, "deepstack.%d", index - 1);
    }
    struct sl_tensor want = golden_part(t, grid, part, SL_F32);
    assert_int_equal(want.shape[0], got->shape[0]);
    assert_int_equal(want.shape[1], got->shape[1]);
    float *mine = values(got);
    double error = relative_error(mine, want.data, sl_tensor_elements(&want));
    free(mine);
    return error;
}

// --- tests ---

static void grid_agrees_with_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct trial t = open_trial(cases[i], SL_F32, MAX_PATCHES);
        const struct sl_vision_config *c = &t.config.vision;
        struct sl_tensor host, want;
        struct sl_error error;
        int64_t shape[2] = {c->position_side * c->position_side, c->hidden};
        must(sl_weights_require(t.weights, "model.visual.pos_embed.weight", 2, shape, &host, &error), &error);
        float *table = values(&host), *sum = malloc((size_t)c->hidden * sizeof *sum);
        assert_non_null(sum);
        for (int g = 0; g < GRIDS; g++) {
            const int32_t *grid = golden_part(&t, g, "grid", SL_I32).data;
            const int32_t *position = golden_part(&t, g, "position", SL_I32).data;
            want = golden_part(&t, g, "embedding", SL_F32);
            for (int64_t row = 0; row < want.shape[0]; row++) {
                struct sl_grid_row got =
                    sl_grid_row(grid[1], grid[2], c->merge, c->position_side, row % (grid[1] * grid[2]));
                assert_memory_equal(got.position, position + 2 * row, sizeof got.position);
                for (int k = 0; k < c->hidden; k++) {
                    sum[k] = 0;
                    for (int corner = 0; corner < 4; corner++) {
                        sum[k] += got.weight[corner] * table[(int64_t)got.corner[corner] * c->hidden + k];
                    }
                }
                assert_true(relative_error(sum, (const float *)want.data + row * c->hidden, c->hidden) < 1e-6);
            }
        }
        free(table);
        free(sum);
        close_trial(&t);
    }
}

static void agrees_with_transformers_in_f32(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct trial t = open_trial(cases[i], SL_F32, MAX_PATCHES);
        for (int round = 0; round < GRIDS + 1; round++) { // back to the first grid at the end
            int grid = round % GRIDS;
            struct sl_tensor out[1 + SL_MAX_DEEPSTACK];
            encode(&t, grid, 0, ((const int32_t *)golden_part(&t, grid, "grid", SL_I32).data)[0], out);
            for (int k = 0; k <= t.config.vision.deepstack_count; k++) {
                double error = output_error(&t, grid, k, &out[k]);
                print_message("%s, grid %d, output %d: %.2e\n", cases[i], grid, k, error);
                assert_true(error < 1e-4);
            }
            release_outputs(&t, out);
        }
        close_trial(&t);
    }
}

static void bf16_errs_no_more_than_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct trial t = open_trial(cases[i], SL_BF16, MAX_PATCHES);
        for (int grid = 0; grid < GRIDS; grid++) {
            const float *reference = golden_part(&t, grid, "bf16_error", SL_F32).data;
            struct sl_tensor out[1 + SL_MAX_DEEPSTACK];
            encode(&t, grid, 0, ((const int32_t *)golden_part(&t, grid, "grid", SL_I32).data)[0], out);
            for (int k = 0; k <= t.config.vision.deepstack_count; k++) {
                double error = output_error(&t, grid, k, &out[k]);
                print_message("%s, grid %d, output %d: %.2e, transformers %.2e\n", cases[i], grid, k, error,
                              (double)reference[k]);
                assert_true(error <= 1.5 * (double)reference[k]);
            }
            release_outputs(&t, out);
        }
        close_trial(&t);
    }
}

// Frames do not see each other: a group gives the same features in any batch.
static void groups_are_independent(void **state)
{
    (void)state;
    struct trial t = open_trial("c", SL_F32, MAX_PATCHES);
    struct sl_tensor all[1 + SL_MAX_DEEPSTACK], one[1 + SL_MAX_DEEPSTACK];
    encode(&t, 0, 0, 3, all);
    for (int group = 0; group < 3; group++) {
        encode(&t, 0, group, 1, one);
        for (int k = 0; k <= t.config.vision.deepstack_count; k++) {
            struct sl_tensor part = sl_tensor_rows(&all[k], group * one[k].shape[0], one[k].shape[0]);
            assert_true(relative_error(one[k].data, part.data, sl_tensor_elements(&part)) < 1e-6);
        }
        release_outputs(&t, one);
    }
    release_outputs(&t, all);
    close_trial(&t);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct trial t = open_trial("a", SL_F32, 16); // merge 2, patch 8, no taps
    struct sl_tensor patches = device_tensor(SL_F32, 16, 384), features = device_tensor(SL_F32, 4, 72);
    struct sl_error error;
    must(sl_vision_encode(t.vision, stream, &patches, 2, 2, 4, &features, NULL, &error), &error);
    assert_int_equal(sl_vision_encode(t.vision, stream, &patches, 1, 4, 3, &features, NULL, &error), SL_ERR_INTERNAL);
    assert_int_equal(sl_vision_encode(t.vision, stream, &patches, 3, 2, 4, &features, NULL, &error), SL_ERR_INTERNAL);
    assert_int_equal(sl_vision_encode(t.vision, stream, &patches, 1, 2, 4, &features, NULL, &error), SL_ERR_INTERNAL);
    features.dtype = SL_BF16;
    assert_int_equal(sl_vision_encode(t.vision, stream, &patches, 2, 2, 4, &features, NULL, &error), SL_ERR_INTERNAL);
    device->ops->release(device, patches.data);
    device->ops->release(device, features.data);
    close_trial(&t);
}

static void says_which_tensor_is_missing(void **state)
{
    (void)state;
    struct sl_model_config config;
    struct sl_weights *weights = golden_open("a", "");
    struct sl_vision *vision;
    struct sl_error error;
    must(sl_config_read(GOLDEN_DATA "a", &config, &error), &error);
    config.vision.depth++;
    assert_int_equal(sl_vision_create(device, weights, &config, SL_F32, 16, &vision, &error), SL_ERR_MODEL_SHAPE);
    assert_non_null(strstr(error.text, "model.visual.blocks.2.norm1.weight"));
    sl_vision_destroy(NULL);
    sl_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_agrees_with_transformers),       cmocka_unit_test(agrees_with_transformers_in_f32),
        cmocka_unit_test(bf16_errs_no_more_than_transformers), cmocka_unit_test(groups_are_independent),
        cmocka_unit_test(refuses_what_does_not_fit),           cmocka_unit_test(says_which_tensor_is_missing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
