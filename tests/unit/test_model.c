// SPDX-License-Identifier: Apache-2.0
// What models are thought to take of a GPU's memory before they are loaded: against what their makers say they weigh,
// and against the one GPU that must hold two of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/models.h"

#define GIB ((int64_t)1 << 30)

static void h100_info(struct sl_device *device, struct sl_device_info *out)
{
    (void)device;
    *out = (struct sl_device_info){.compute = SL_BF16, .memory_bytes = 79 * GIB, .free_bytes = 79 * GIB - GIB / 2};
}

static const struct sl_device_ops ops = {.info = h100_info};

static void open_shape(const char *config, const struct sl_model_options *options, struct sl_device *device,
                       struct sl_model *model)
{
    struct sl_error e = {0};
    if (sl_model_open_shape(config, NULL, model, &e) != SL_OK) {
        fail_msg("%s", e.text);
    }
    model->device_is_shared = 1;
    sl_model_place(options, device, model);
}

// More than the weights, of which there are as many as published; not half as much again, and some GB.
static void more_than_the_weights(void **state)
{
    (void)state;
    struct sl_device device = {.ops = &ops};
    struct sl_model_options options = {.pairs_per_window = 31, .max_new_tokens = 1024};
    static const struct {
        const char *config;
        double parameters;
    } shapes[] = {{"samples/configs/2b.json", 2.13e9},
                  {"samples/configs/4b.json", 4.44e9},
                  {"samples/configs/8b.json", 8.77e9},
                  {"samples/configs/30b-a3b.json", 31.1e9}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct sl_model model;
        open_shape(shapes[i].config, &options, &device, &model);
        double bytes = (double)sl_model_bytes(&options, &model), weights = 2 * shapes[i].parameters;
        assert_true(bytes > weights);
        assert_true(bytes < 1.1 * weights + 5e9);
        sl_model_close(&model);
    }
}

// The smallest published model for live work and the mixture of experts for files, on one GPU of 80 GB.
static void two_fit(void **state)
{
    (void)state;
    struct sl_device device = {.ops = &ops};
    struct sl_model_options options = {.pairs_per_window = 31, .max_new_tokens = 1024};
    struct sl_model fast, deep;
    struct sl_device_info info;
    h100_info(&device, &info);
    open_shape("samples/configs/2b.json", &options, &device, &fast);
    open_shape("samples/configs/30b-a3b.json", &options, &device, &deep);
    int64_t both = sl_model_bytes(&options, &fast) + sl_model_bytes(&options, &deep);
    int64_t windows = sl_model_window_bytes(&options, &fast) + sl_model_window_bytes(&options, &deep);
    assert_true(both + windows + SL_MODEL_SURFACE_BYTES < info.free_bytes);
    sl_model_close(&fast);
    sl_model_close(&deep);
}

// One that is too large takes no room from those behind it.
static void too_large_first(void **state)
{
    (void)state;
    assert_int_equal(sl_models_that_fit((int64_t[]){470, 5}, 2, 76), 2);
    assert_int_equal(sl_models_that_fit((int64_t[]){5, 470}, 2, 76), 1);
    assert_int_equal(sl_models_that_fit((int64_t[]){40, 40, 36}, 3, 76), 5);
    assert_int_equal(sl_models_that_fit((int64_t[]){0, 76}, 2, 76), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(more_than_the_weights), cmocka_unit_test(two_fit),
                                       cmocka_unit_test(too_large_first)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
