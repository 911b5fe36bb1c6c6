// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>

#include "cpu/internal.h"
#include "cpu/ops.h"

static float block_difference(const uint8_t *a, const uint8_t *b, int64_t line_bytes, int64_t width, int64_t height)
{
    int sum = 0;
    for (int64_t y = 0; y < height; y++, a += line_bytes, b += line_bytes) {
        for (int64_t i = 0; i < 3 * width; i++) {
            sum += abs(a[i] - b[i]);
        }
    }
    return (float)sum / (float)(3 * width * height);
}

static float picture_difference(const struct sl_tensor *pictures, int32_t a, int32_t b)
{
    int64_t height = pictures->shape[1], width = pictures->shape[2], line = pictures->stride[1];
    const uint8_t *first = (const uint8_t *)pictures->data + a * pictures->stride[0];
    const uint8_t *second = (const uint8_t *)pictures->data + b * pictures->stride[0];
    float largest = 0;
    for (int64_t y = 0; a != b && y < height; y += SL_STILL_BLOCK) {
        for (int64_t x = 0; x < width; x += SL_STILL_BLOCK) {
            int64_t at = y * line + 3 * x, columns = width - x, rows = height - y;
            columns = columns < SL_STILL_BLOCK ? columns : SL_STILL_BLOCK;
            rows = rows < SL_STILL_BLOCK ? rows : SL_STILL_BLOCK;
            largest = fmaxf(largest, block_difference(first + at, second + at, line, columns, rows));
        }
    }
    return largest;
}

void cpu_pair_differences(struct sl_stream *stream, const struct sl_tensor *pictures, const struct sl_tensor *pair,
                          float level, const struct sl_tensor *difference)
{
    if (!cpu_begin(stream)) {
        return;
    }
    const int32_t *picture = pair->data;
    float *out = difference->data;
    int32_t shown = 0;
    for (int64_t i = 0; i < pair->shape[0]; i++) {
        const int32_t *two = picture + 2 * i;
        out[i] = i == 0
                     ? INFINITY
                     : fmaxf(picture_difference(pictures, two[0], shown), picture_difference(pictures, two[1], shown));
        shown = out[i] > level ? two[1] : shown;
    }
    cpu_end(stream);
}
