// SPDX-License-Identifier: Apache-2.0
// Reading goldens (tests/golden/) and comparing with them. Tests run in the source folder. Include after cmocka.h.
#ifndef SL_TESTS_SUPPORT_GOLDEN_H
#define SL_TESTS_SUPPORT_GOLDEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/half.h"
#include "core/weights.h"

#define GOLDEN_DATA "tests/golden/data/"

static inline struct sl_weights *golden_open(const char *name, const char *part)
{
    char path[256];
    struct sl_error error = {0};
    struct sl_weights *weights;
    snprintf(path, sizeof path, GOLDEN_DATA "%s/%s", name, part);
    if (sl_weights_open(path, &weights, &error)) {
        fail_msg("%s", error.text);
    }
    return weights;
}

static inline struct sl_tensor golden_tensor(struct sl_weights *golden, const char *name, enum sl_dtype dtype)
{
    struct sl_tensor tensor;
    if (!sl_weights_find(golden, name, &tensor) || tensor.dtype != dtype) {
        fail_msg("golden has no %s tensor %s", sl_dtype_name(dtype), name);
    }
    return tensor;
}

// |a - b| / |b| over n values.
static inline double relative_error(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / size);
}

#endif
