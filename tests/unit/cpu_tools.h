// SPDX-License-Identifier: Apache-2.0
// What the tests of cpu/ share: random tensors, a float64 view of them, comparison by relative norm, and a loop over
// all sets of kernels that this processor can run.
#ifndef SL_TESTS_CPU_TOOLS_H
#define SL_TESTS_CPU_TOOLS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "cpu/internal.h"
#include "cpu/kernels.h"

static struct sl_device *device;
static struct sl_stream *stream;
static uint64_t random_state = 1;

static inline double uniform(void) // [0, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static inline int64_t below(int64_t n)
{
    return (int64_t)(uniform() * (double)n);
}

static inline float of_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline double of_f16(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double size = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                  : exponent == 0 ? ldexp(fraction, -24)
                                  : ldexp(1024 + fraction, exponent - 25);
    return h >> 15 ? -size : size;
}

static inline uint16_t to_f16(double x) // of what f16 can hold
{
    int exponent, sign = x < 0 ? 0x8000 : 0;
    double fraction = frexp(fabs(x), &exponent); // in [1/2, 1)
    if (exponent < -13) {
        return (uint16_t)(sign + (int)rint(ldexp(fabs(x), 24)));
    }
    return (uint16_t)(sign + ((exponent + 14) << 10) + (int)rint(fraction * 2048) - 1024);
}

static inline double get(const struct sl_tensor *t, int64_t i)
{
    return t->dtype == SL_BF16  ? (double)of_bf16(((const uint16_t *)t->data)[i])
           : t->dtype == SL_F16 ? of_f16(((const uint16_t *)t->data)[i])
                                : (double)((const float *)t->data)[i];
}

static inline void set(const struct sl_tensor *t, int64_t i, double x)
{
    if (t->dtype == SL_BF16) {
        ((uint16_t *)t->data)[i] = to_bf16((float)x);
    } else if (t->dtype == SL_F16) {
        ((uint16_t *)t->data)[i] = to_f16(x);
    } else {
        ((float *)t->data)[i] = (float)x;
    }
}

static inline double at(const struct sl_tensor *t, int64_t row, int64_t column)
{
    return get(t, row * t->stride[0] + column);
}

// Exactly the needed bytes, so that a sanitizer sees what is read beyond them. Values uniform in +-scale.
static inline struct sl_tensor random_tensor(enum sl_dtype dtype, int64_t rows, int64_t columns, double scale)
{
    struct sl_tensor t = sl_tensor_2d(NULL, dtype, rows, columns);
    t.data = malloc((size_t)sl_tensor_bytes(&t) + 1);
    assert_non_null(t.data);
    for (int64_t i = 0; i < rows * columns; i++) {
        set(&t, i, (2 * uniform() - 1) * scale);
    }
    return t;
}

static inline struct sl_tensor random_vector(enum sl_dtype dtype, int64_t n, double scale)
{
    struct sl_tensor t = random_tensor(dtype, 1, n, scale);
    return sl_tensor_1d(t.data, dtype, n);
}

static inline struct sl_tensor copy_of(const struct sl_tensor *t)
{
    struct sl_tensor copy = *t;
    copy.data = malloc((size_t)sl_tensor_bytes(t) + 1);
    memcpy(copy.data, t->data, (size_t)sl_tensor_bytes(t));
    return copy;
}

static inline void assert_near(const struct sl_tensor *t, const double *wanted, double tolerance, const char *what)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < sl_tensor_elements(t); i++) {
        double x = get(t, i);
        difference += (x - wanted[i]) * (x - wanted[i]);
        size += wanted[i] * wanted[i];
    }
    double relative = sqrt(difference) / (sqrt(size) + 1e-30);
    if (!(relative <= tolerance)) {
        fail_msg("%s: relative error %g, allowed %g", what, relative, tolerance);
    }
}

static inline void assert_no_failure(void)
{
    struct sl_error error = {0};
    if (device->ops->wait(stream, &error) != SL_OK) {
        fail_msg("the stream has failed: %s", error.text);
    }
}

static inline int open_device(void **state)
{
    (void)state;
    return sl_cpu_create(2, &device, NULL) || device->ops->stream_create(device, &stream, NULL);
}

static inline int close_device(void **state)
{
    (void)state;
    device->ops->stream_destroy(stream);
    device->ops->destroy(device);
    return 0;
}

// Runs `body` once for each set of kernels.
static inline void for_all_kernels(void (*body)(void))
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    const struct cpu_kernels *best = cpu->kernels;
    for (int level = 0; level < CPU_LEVELS; level++) {
        if (cpu_kernels_at(level)) {
            cpu->kernels = cpu_kernels_at(level);
            random_state = 1;
            body();
            assert_no_failure();
        }
    }
    cpu->kernels = best;
}

#endif
