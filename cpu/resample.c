// SPDX-License-Identifier: Apache-2.0
#include "cpu/resample.h"

#include <string.h>

#include "core/picture.h"
#include "cpu/simd.h"

int64_t cpu_resample_bytes(int in, int out)
{
    int64_t taps = sl_resample_taps(in, out);
    return taps * (int64_t)sizeof(double) + out * (1 + 4 * taps) * (int64_t)sizeof(int32_t);
}

void cpu_resample_init(struct cpu_resample *axis, int in, int out, void *memory)
{
    int taps = sl_resample_taps(in, out);
    double *value = memory;
    *axis = (struct cpu_resample){.in = in, .out = out, .taps = taps};
    axis->first = (int32_t *)(value + taps);
    axis->weights = axis->first + out;
    axis->precision = sl_resample_weights(in, out, value, axis->first, axis->weights);
    for (int64_t i = (int64_t)out * taps; i-- > 0;) { // from the end, so that none is lost
        int32_t weight = axis->weights[i];
        for (int channel = 0; channel < 4; channel++) {
            axis->weights[4 * i + channel] = weight;
        }
    }
}

// Two RGBx pixels, widened.
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

CPU_BODY void resample_widen_body(const uint8_t *in, int64_t n, int32_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = in[i];
    }
}
CPU_SIMD(resample_widen, (const uint8_t *in, int64_t n, int32_t *out), (in, n, out))

CPU_BODY void resample_round_body(const int32_t *in, int precision, int64_t n, uint8_t *out)
{
    int32_t half = 1 << precision >> 1;
    for (int64_t i = 0; i < n; i++) {
        int32_t value = (in[i] + half) >> precision;
        value = value > 0 ? value : 0;
        out[i] = (uint8_t)(value < 255 ? value : 255);
    }
}
CPU_SIMD(resample_round, (const int32_t *in, int precision, int64_t n, uint8_t *out), (in, precision, n, out))

CPU_BODY void resample_products_body(const struct cpu_resample *axis, const int32_t *in, int32_t *out)
{
    const int32_t *weight = axis->weights;
    for (int x = 0; x < axis->out; x++) {
        const int32_t *pixel = in + 4 * (int64_t)axis->first[x];
        i32x8 sum = {0};
        for (int k = 0; k < axis->taps; k += 2, pixel += 8, weight += 8) {
            i32x8 two, weights;
            memcpy(&two, pixel, sizeof two);
            memcpy(&weights, weight, sizeof weights);
            sum += two * weights;
        }
        i32x4 half[2];
        memcpy(half, &sum, sizeof sum);
        half[0] += half[1];
        memcpy(out + 4 * (int64_t)x, half, sizeof *half);
    }
}
CPU_SIMD(resample_products, (const struct cpu_resample *axis, const int32_t *in, int32_t *out), (axis, in, out))

// sum = a * wa + b * wb, added to what is there unless `fresh`.
CPU_BODY void resample_two_rows_body(const uint8_t *a, int32_t wa, const uint8_t *b, int32_t wb, int fresh, int n,
                                     int32_t *sum)
{
    if (fresh) {
        for (int i = 0; i < n; i++) {
            sum[i] = a[i] * wa + b[i] * wb;
        }
    } else {
        for (int i = 0; i < n; i++) {
            sum[i] += a[i] * wa + b[i] * wb;
        }
    }
}
CPU_SIMD(resample_two_rows,
         (const uint8_t *a, int32_t wa, const uint8_t *b, int32_t wb, int fresh, int n, int32_t *sum),
         (a, wa, b, wb, fresh, n, sum))

int64_t cpu_resample_scratch_bytes(const struct cpu_resample *axis)
{
    int64_t in = axis->in > axis->taps ? axis->in : axis->taps;
    return 4 * (in + axis->out) * (int64_t)sizeof(int32_t);
}

void cpu_resample_row(const struct cpu_resample *axis, const uint8_t *in, int32_t *scratch, uint8_t *out)
{
    int64_t width = axis->in > axis->taps ? axis->in : axis->taps;
    int32_t *sums = scratch + 4 * width;
    resample_widen(in, 4 * (int64_t)axis->in, scratch);
    memset(scratch + 4 * (int64_t)axis->in, 0, sizeof *scratch * 4 * (size_t)(width - axis->in));
    resample_products(axis, scratch, sums);
    resample_round(sums, axis->precision, 4 * (int64_t)axis->out, out);
}

void cpu_resample_column(const struct cpu_resample *axis, int y, const uint8_t *rows, int64_t pitch, int64_t bytes,
                         uint8_t *out)
{
    enum { RUN = 1024 }; // the sums of a run stay in the nearest cache
    int32_t sums[RUN];
    const int32_t *weight = axis->weights + 4 * (int64_t)y * axis->taps;
    for (int64_t at = 0; at < bytes; at += RUN) {
        int n = bytes - at < RUN ? (int)(bytes - at) : RUN;
        for (int k = 0; k < axis->taps; k += 2) {
            // Taps past the last row have no weight; any row will do for them.
            int64_t a = axis->first[y] + k, b = a + 1, last = axis->in - 1;
            a = a < last ? a : last;
            b = b < last ? b : last;
            resample_two_rows(rows + a * pitch + at, weight[4 * k], rows + b * pitch + at, weight[4 * k + 4], k == 0, n,
                              sums);
        }
        resample_round(sums, axis->precision, n, out + at);
    }
}
