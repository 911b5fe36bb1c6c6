// SPDX-License-Identifier: Apache-2.0
#include "cpu/resample.h"

#include <math.h>
#include <string.h>

#include "cpu/simd.h"

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Half the width of the kernel, in input samples: stretched when shrinking, which is the antialiasing.
static double support_of(int in, int out)
{
    return in > out ? 2.0 * in / out : 2.0;
}

static int taps_of(int in, int out)
{
    int taps = 2 * (int)ceil(support_of(in, out)) + 1;
    return (taps + 1) / 2 * 2;
}

// Kernel values of output sample i, summing to 1; returns the first input sample that they apply to.
static int kernel(int in, int out, int i, int taps, double *value)
{
    double scale = (double)in / out, stretch = fmax(scale, 1), support = support_of(in, out);
    double center = scale * (i + 0.5), sum = 0;
    int first = (int)fmax(center - support + 0.5, 0), last = (int)fmin(center + support + 0.5, in);
    for (int k = 0; k < taps; k++) {
        value[k] = first + k < last ? cubic((first + k - center + 0.5) / stretch) : 0;
        sum += value[k];
    }
    for (int k = 0; k < taps; k++) {
        value[k] /= sum;
    }
    return first;
}

// The most fractional bits with which the largest weight still fits 16 bits.
static int precision_of(double largest)
{
    int bits = 0;
    while (bits < 22 && 0.5 + largest * (1 << (bits + 1)) < 1 << 15) {
        bits++;
    }
    return bits;
}

int64_t cpu_resample_bytes(int in, int out)
{
    int64_t taps = taps_of(in, out);
    return taps * (int64_t)sizeof(double) + out * (1 + 4 * taps) * (int64_t)sizeof(int32_t);
}

void cpu_resample_init(struct cpu_resample *axis, int in, int out, void *memory)
{
    int taps = taps_of(in, out);
    double *value = memory, largest = 0;
    *axis = (struct cpu_resample){.in = in, .out = out, .taps = taps};
    axis->first = (int32_t *)(value + taps);
    axis->weights = axis->first + out;
    for (int i = 0; i < out; i++) {
        axis->first[i] = kernel(in, out, i, taps, value);
        for (int k = 0; k < taps; k++) {
            largest = fmax(largest, value[k]);
        }
    }
    axis->precision = precision_of(largest);
    memset(axis->weights, 0, sizeof *axis->weights * 4 * (size_t)out * (size_t)taps);
    for (int i = 0; i < out; i++) {
        kernel(in, out, i, taps, value);
        // Near the far edge the run begins earlier, so that it ends inside; what it gained has no weight.
        int room = in > taps ? in - taps : 0, early = axis->first[i] > room ? axis->first[i] - room : 0;
        axis->first[i] -= early;
        int32_t *weight = axis->weights + 4 * ((int64_t)i * taps + early);
        for (int k = 0; k < 4 * (taps - early); k++) {
            weight[k] = (int32_t)round(value[k / 4] * (1 << axis->precision));
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
