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
    return taps * (int64_t)sizeof(double) + out * (int64_t)sizeof(int32_t) + out * taps * (int64_t)sizeof(int16_t);
}

void cpu_resample_init(struct cpu_resample *axis, int in, int out, void *memory)
{
    int taps = taps_of(in, out);
    double *value = memory, largest = 0;
    *axis = (struct cpu_resample){.in = in, .out = out, .taps = taps};
    axis->first = (int32_t *)(value + taps);
    axis->weights = (int16_t *)(axis->first + out);
    for (int i = 0; i < out; i++) {
        axis->first[i] = kernel(in, out, i, taps, value);
        for (int k = 0; k < taps; k++) {
            largest = fmax(largest, value[k]);
        }
    }
    axis->precision = precision_of(largest);
    memset(axis->weights, 0, sizeof *axis->weights * (size_t)out * (size_t)taps);
    for (int i = 0; i < out; i++) {
        kernel(in, out, i, taps, value);
        // Near the far edge the run begins earlier, so that it ends inside; what it gained has no weight.
        int room = in > taps ? in - taps : 0, early = axis->first[i] > room ? axis->first[i] - room : 0;
        axis->first[i] -= early;
        int16_t *weight = axis->weights + (int64_t)i * taps;
        for (int k = 0; k + early < taps; k++) {
            weight[k + early] = (int16_t)round(value[k] * (1 << axis->precision));
        }
    }
}

// Vectors of the compiler: two RGBx pixels, or a run of a row, widened for the products.
typedef uint8_t u8x4 __attribute__((vector_size(4)));
typedef uint8_t u8x8 __attribute__((vector_size(8)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef int32_t i32x16 __attribute__((vector_size(64)));

// Rounds a fixed-point vector to 0..255.
#define ROUND_TO_8_BITS(v, bits)                                                                                       \
    do {                                                                                                               \
        (v) = ((v) + (1 << (bits) >> 1)) >> (bits);                                                                    \
        (v) &= (v) >= 0;                                                                                               \
        (v) = ((v) & ((v) <= 255)) | (255 & ((v) > 255));                                                              \
    } while (0)

CPU_SIMD void cpu_resample_row(const struct cpu_resample *axis, const uint8_t *in, uint8_t *out)
{
    const int16_t *weight = axis->weights;
    for (int x = 0; x < axis->out; x++) {
        const uint8_t *pixel = in + 4 * (int64_t)axis->first[x];
        i32x8 sum = {0};
        for (int k = 0; k < axis->taps; k += 2) {
            int a = weight[k], b = weight[k + 1];
            u8x8 two;
            memcpy(&two, pixel + 4 * k, sizeof two);
            sum += __builtin_convertvector(two, i32x8) * (i32x8){a, a, a, a, b, b, b, b};
        }
        weight += axis->taps;
        i32x4 half[2];
        memcpy(half, &sum, sizeof sum);
        half[0] += half[1];
        ROUND_TO_8_BITS(half[0], axis->precision);
        u8x4 rounded = __builtin_convertvector(half[0], u8x4);
        memcpy(out + 4 * (int64_t)x, &rounded, sizeof rounded);
    }
}

CPU_SIMD void cpu_resample_column(const struct cpu_resample *axis, int y, const uint8_t *rows, int64_t pitch,
                                  int64_t bytes, uint8_t *out)
{
    int first = axis->first[y], taps = axis->taps < axis->in ? axis->taps : axis->in;
    const int16_t *weight = axis->weights + (int64_t)y * axis->taps;
    for (int64_t i = 0; i < bytes; i += CPU_RESAMPLE_LANES) {
        const uint8_t *lane = rows + first * pitch + i;
        i32x16 low = {0}, high = {0};
        for (int k = 0; k < taps; k++, lane += pitch) {
            u8x16 a, b;
            memcpy(&a, lane, sizeof a);
            memcpy(&b, lane + sizeof a, sizeof b);
            low += __builtin_convertvector(a, i32x16) * weight[k];
            high += __builtin_convertvector(b, i32x16) * weight[k];
        }
        ROUND_TO_8_BITS(low, axis->precision);
        ROUND_TO_8_BITS(high, axis->precision);
        u8x16 a = __builtin_convertvector(low, u8x16), b = __builtin_convertvector(high, u8x16);
        memcpy(out + i, &a, sizeof a);
        memcpy(out + i + sizeof a, &b, sizeof b);
    }
}
