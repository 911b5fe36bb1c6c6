// SPDX-License-Identifier: Apache-2.0
#include "cpu/colour.h"

#include <math.h>
#include <string.h>

#include "cpu/simd.h"

enum { ROW_PADDING = 16 }; // floats: chroma is written in whole groups, past the width of odd sizes

static int ceil_shift(int n, int shift)
{
    return (n + (1 << shift) - 1) >> shift;
}

int64_t cpu_colour_table_bytes(const struct sl_frame *frame)
{
    return frame->transfer == SL_TRANSFER_SDR ? 0 : SL_HDR_STEPS * (int64_t)(sizeof(float) + 1);
}

// One pixel of HDR signal to SDR: light, BT.2020 to BT.709 primaries, then the extended Reinhard curve
// x (1 + x / w^2) / (1 + x) on the largest channel, with w = 1000 nits becoming white; hue is kept.
static void tone_map(const struct cpu_colour *colour, const int signal[3], uint8_t *rgb)
{
    static const float to_709[3][3] = {
        {1.6605f, -0.5876f, -0.0728f}, {-0.1246f, 1.1329f, -0.0083f}, {-0.0182f, -0.1006f, 1.1187f}};
    static const float white = 1000 / 203.0f;
    float light[3], largest = 0;
    for (int i = 0; i < 3; i++) {
        light[i] = 0;
        for (int j = 0; j < 3; j++) {
            light[i] += to_709[i][j] * colour->light[signal[j]];
        }
        light[i] = fmaxf(light[i], 0);
        largest = fmaxf(largest, light[i]);
    }
    float gain = (1 + largest / (white * white)) / (1 + largest);
    for (int i = 0; i < 3; i++) {
        float root = sqrtf(fminf(light[i] * gain, 1));
        rgb[i] = colour->encoded[(int)(root * (SL_HDR_STEPS - 1) + 0.5f)];
    }
}

void cpu_colour_init(struct cpu_colour *colour, const struct sl_frame *frame, void *tables)
{
    *colour = (struct cpu_colour){.frame = frame};
    sl_colour_matrix_init(&colour->samples, frame);
    if (frame->transfer != SL_TRANSFER_SDR) {
        float *light = tables;
        uint8_t *encoded = (uint8_t *)(light + SL_HDR_STEPS);
        sl_hdr_tables(frame->transfer, light, encoded);
        colour->light = light;
        colour->encoded = encoded;
    }
}

// --- rows of samples ---

// Every step-th sample of a line, from `first` on.
CPU_BODY void load8_body(const uint8_t *line, int first, int step, int n, float *out)
{
    line += first;
    if (step == 1) {
        for (int i = 0; i < n; i++) {
            out[i] = line[i];
        }
    } else if (step == 2) {
        for (int i = 0; i < n; i++) {
            out[i] = line[2 * i];
        }
    } else {
        for (int i = 0; i < n; i++) {
            out[i] = line[(int64_t)step * i];
        }
    }
}
CPU_SIMD(load8, (const uint8_t *line, int first, int step, int n, float *out), (line, first, step, n, out))

CPU_BODY void load16_body(const uint16_t *line, int first, int step, int shift, int n, float *out)
{
    line += first;
    if (step == 1) {
        for (int i = 0; i < n; i++) {
            out[i] = (float)(line[i] >> shift);
        }
    } else {
        for (int i = 0; i < n; i++) {
            out[i] = (float)(line[(int64_t)step * i] >> shift);
        }
    }
}
CPU_SIMD(load16, (const uint16_t *line, int first, int step, int shift, int n, float *out),
         (line, first, step, shift, n, out))

// Samples of component 0, 1 or 2 in one line of its plane.
static void load(const struct sl_frame *frame, int component, int row, int n, float *out)
{
    struct sl_component at = sl_frame_component(frame, component);
    const uint8_t *line = frame->plane[at.plane] + row * frame->pitch[at.plane];
    if (frame->bit_depth == 8) {
        load8(line, at.first, at.step, n, out);
    } else {
        load16((const uint16_t *)(const void *)line, at.first, at.step, frame->msb_shift, n, out);
    }
}

// --- chroma ---

// Where luma sample i lies in the chroma grid: on a sample when co-sited, else between.
static double chroma_position(int i, int shift, int co_sited)
{
    double factor = (double)(1 << shift);
    return co_sited ? i / factor : (i + 0.5) / factor - 0.5;
}

CPU_BODY void mix_body(float *a, const float *b, float weight, int n)
{
    for (int i = 0; i < n; i++) {
        a[i] += (b[i] - a[i]) * weight;
    }
}
CPU_SIMD(mix, (float *a, const float *b, float weight, int n), (a, b, weight, n))

CPU_BODY void double_row_body(const float *in, float w0, float w1, int first, int n, float *out)
{
    for (int i = 0; i < n; i++) {
        float a = in[i + first], b = in[i + first + 1], c = in[i + 1], d = in[i + 2];
        out[2 * i] = a + (b - a) * w0;
        out[2 * i + 1] = c + (d - c) * w1;
    }
}
CPU_SIMD(double_row, (const float *in, float w0, float w1, int first, int n, float *out), (in, w0, w1, first, n, out))

// in: n samples from in[1], with one repeated on either side. out: n << shift samples.
static void upsample(const float *in, int shift, int co_sited, int n, float *out)
{
    if (shift == 1) {
        double_row(in, co_sited ? 0 : 0.75f, co_sited ? 0.5f : 0.25f, co_sited ? 1 : 0, n, out);
        return;
    }
    for (int phase = 0; phase < 1 << shift; phase++) {
        double position = chroma_position(phase, shift, co_sited);
        int first = 1 + (int)floor(position);
        float weight = (float)(position - floor(position));
        for (int i = 0; i < n; i++) {
            float a = in[i + first], b = in[i + first + 1];
            out[((int64_t)i << shift) + phase] = a + (b - a) * weight;
        }
    }
}

// One component of chroma at the luma row's place and width.
static void chroma_row(const struct sl_frame *frame, int component, int row, float *scratch, float *out)
{
    int n = ceil_shift(frame->width, frame->chroma_shift_x),
        last = ceil_shift(frame->height, frame->chroma_shift_y) - 1;
    float *above = scratch, *below = scratch + n + 2;
    double position = chroma_position(row, frame->chroma_shift_y, frame->siting == SL_SITING_TOPLEFT);
    int upper = (int)floor(position);
    float weight = (float)(position - upper);
    load(frame, component, upper < 0 ? 0 : upper, n, above + 1);
    if (weight > 0 && upper >= 0 && upper < last) {
        load(frame, component, upper + 1, n, below + 1);
        mix(above + 1, below + 1, weight, n);
    }
    above[0] = above[1];
    above[n + 1] = above[n];
    upsample(above, frame->chroma_shift_x, frame->siting != SL_SITING_CENTER, n, out);
}

// --- rows of pixels ---

int64_t cpu_colour_scratch_bytes(const struct sl_frame *frame)
{
    return (5 * (int64_t)frame->width + 5 * ROW_PADDING) * (int64_t)sizeof(float);
}

static inline float clamp(float x, float top)
{
    x = x > 0 ? x : 0;
    return x < top ? x : top;
}

CPU_BODY void pack_body(const struct cpu_colour *colour, const float *a, const float *b, const float *c, int n,
                        uint8_t *rgbx)
{
    const float(*m)[3] = colour->samples.matrix, *offset = colour->samples.offset;
    const float m00 = m[0][0], m01 = m[0][1], m02 = m[0][2], m10 = m[1][0], m11 = m[1][1], m12 = m[1][2], m20 = m[2][0],
                m21 = m[2][1], m22 = m[2][2], o0 = offset[0], o1 = offset[1], o2 = offset[2];
    uint32_t *out = (uint32_t *)(void *)rgbx;
    for (int i = 0; i < n; i++) {
        int red = (int)clamp(m00 * a[i] + m01 * b[i] + m02 * c[i] + o0, 255);
        int green = (int)clamp(m10 * a[i] + m11 * b[i] + m12 * c[i] + o1, 255);
        int blue = (int)clamp(m20 * a[i] + m21 * b[i] + m22 * c[i] + o2, 255);
        out[i] = (uint32_t)(red | green << 8 | blue << 16);
    }
}
CPU_SIMD(pack, (const struct cpu_colour *colour, const float *a, const float *b, const float *c, int n, uint8_t *rgbx),
         (colour, a, b, c, n, rgbx))

static void pack_hdr(const struct cpu_colour *colour, const float *a, const float *b, const float *c, int n,
                     uint8_t *rgbx)
{
    for (int i = 0; i < n; i++) {
        int signal[3];
        for (int j = 0; j < 3; j++) {
            const float *m = colour->samples.matrix[j];
            signal[j] =
                (int)clamp(m[0] * a[i] + m[1] * b[i] + m[2] * c[i] + colour->samples.offset[j], SL_HDR_STEPS - 1);
        }
        tone_map(colour, signal, rgbx + 4 * (int64_t)i);
    }
}

void cpu_colour_row(const struct cpu_colour *colour, int row, float *scratch, uint8_t *rgbx)
{
    const struct sl_frame *frame = colour->frame;
    int width = frame->width;
    float *component[3];
    for (int i = 0; i < 3; i++) {
        component[i] = scratch + i * (int64_t)(width + ROW_PADDING);
    }
    float *chroma = scratch + 3 * (int64_t)(width + ROW_PADDING);
    load(frame, 0, row, width, component[0]);
    if (sl_frame_is_yuv(frame)) {
        chroma_row(frame, 1, row, chroma, component[1]);
        chroma_row(frame, 2, row, chroma, component[2]);
    } else if (sl_frame_is_rgb(frame)) {
        load(frame, 1, row, width, component[1]);
        load(frame, 2, row, width, component[2]);
    } else {
        component[1] = component[2] = component[0]; // their weights are zero
    }
    (frame->transfer == SL_TRANSFER_SDR ? pack : pack_hdr)(colour, component[0], component[1], component[2], width,
                                                           rgbx);
}
