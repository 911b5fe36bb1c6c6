// SPDX-License-Identifier: Apache-2.0
#include "core/picture.h"

#include <math.h>
#include <string.h>

// --- the matrix ---

int sl_frame_is_yuv(const struct sl_frame *frame)
{
    return frame->layout == SL_LAYOUT_YUV_PLANAR || frame->layout == SL_LAYOUT_YUV_SEMIPLANAR;
}

int sl_frame_is_rgb(const struct sl_frame *frame)
{
    return frame->layout == SL_LAYOUT_RGB_PLANAR || frame->layout == SL_LAYOUT_RGB_PACKED;
}

static void luma_weights(const struct sl_frame *frame, double *kr, double *kb)
{
    enum sl_matrix matrix = frame->matrix;
    if (matrix == SL_MATRIX_UNKNOWN) {
        matrix = frame->height >= 720 ? SL_MATRIX_BT709 : SL_MATRIX_BT601;
    }
    static const double table[][2] = {
        [SL_MATRIX_BT601] = {0.299, 0.114},    [SL_MATRIX_BT709] = {0.2126, 0.0722},
        [SL_MATRIX_BT2020] = {0.2627, 0.0593}, [SL_MATRIX_SMPTE240M] = {0.212, 0.087},
        [SL_MATRIX_FCC] = {0.30, 0.11},
    };
    *kr = table[matrix][0];
    *kb = table[matrix][1];
}

// R = Y + 2(1-kr) V, B = Y + 2(1-kb) U, and G from Y = kr R + kg G + kb B; Y in 0..1, U and V in -0.5..0.5.
static void yuv_matrix(const struct sl_frame *frame, double m[3][3])
{
    double kr, kb;
    luma_weights(frame, &kr, &kb);
    double kg = 1 - kr - kb, u = 2 * (1 - kb), v = 2 * (1 - kr);
    const double full[3][3] = {{1, 0, v}, {1, -u * kb / kg, -v * kr / kg}, {1, u, 0}};
    memcpy(m, full, sizeof full);
}

// Range and depth are folded into the matrix, so that it applies to the samples as stored.
void sl_colour_matrix_init(struct sl_colour_matrix *colour, const struct sl_frame *frame)
{
    double m[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, out_max = 255;
    if (frame->transfer != SL_TRANSFER_SDR) {
        out_max = SL_HDR_STEPS - 1;
    }
    if (sl_frame_is_yuv(frame)) {
        yuv_matrix(frame, m);
    } else if (frame->layout == SL_LAYOUT_GRAY) {
        m[1][0] = m[2][0] = 1;
        m[1][1] = m[2][2] = 0;
    }
    // RGB of unknown range is full: limited RGB is rare and always says so.
    int limited = sl_frame_is_rgb(frame) ? frame->range == SL_RANGE_LIMITED : frame->range != SL_RANGE_FULL;
    double one = (double)(1 << (frame->bit_depth - 8)), top = (double)((1 << frame->bit_depth) - 1);
    for (int i = 0; i < 3; i++) {
        double offset = 0;
        for (int j = 0; j < 3; j++) {
            int chroma = sl_frame_is_yuv(frame) && j > 0;
            double black = chroma ? 128 * one : limited ? 16 * one : 0;
            double span = !limited ? top : (chroma ? 224 : 219) * one;
            colour->matrix[i][j] = (float)(m[i][j] / span * out_max);
            offset -= m[i][j] / span * black * out_max;
        }
        colour->offset[i] = (float)(offset + 0.5); // the conversion to integer truncates
    }
}

// --- HDR ---

// Signal to light with 1 = 203 nits, the SDR white of BT.2408. PQ: SMPTE ST 2084. HLG: BT.2100's inverse OETF on a
// display of 1000 nits, its system gamma of 1.2 taken per channel.
static double light_of(enum sl_transfer transfer, double signal)
{
    if (transfer == SL_TRANSFER_PQ) {
        double e = pow(signal, 32.0 / 2523);
        return 10000 / 203.0 * pow(fmax(e - 0.8359375, 0) / (18.8515625 - 18.6875 * e), 8192 / 1305.0);
    }
    double scene = signal <= 0.5 ? signal * signal / 3 : (exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12;
    return 1000 / 203.0 * pow(scene, 1.2);
}

void sl_hdr_tables(enum sl_transfer transfer, float *light, uint8_t *encoded)
{
    for (int i = 0; i < SL_HDR_STEPS; i++) {
        double x = i / (double)(SL_HDR_STEPS - 1);
        light[i] = (float)light_of(transfer, x);
        encoded[i] = (uint8_t)(255 * pow(x * x, 1 / 2.4) + 0.5); // BT.1886 display
    }
}

struct sl_component sl_frame_component(const struct sl_frame *frame, int component)
{
    if (frame->layout == SL_LAYOUT_YUV_SEMIPLANAR && component > 0) {
        return (struct sl_component){.plane = 1, .first = component - 1, .step = 2};
    }
    if (frame->layout == SL_LAYOUT_RGB_PACKED) {
        return (struct sl_component){.plane = 0, .first = component, .step = 3};
    }
    return (struct sl_component){.plane = component, .first = 0, .step = 1};
}

// --- size ---

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

int sl_resample_taps(int in, int out)
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

int sl_resample_weights(int in, int out, double *value, int32_t *first, int32_t *weights)
{
    int taps = sl_resample_taps(in, out);
    double largest = 0;
    for (int i = 0; i < out; i++) {
        first[i] = kernel(in, out, i, taps, value);
        for (int k = 0; k < taps; k++) {
            largest = fmax(largest, value[k]);
        }
    }
    int precision = precision_of(largest);
    memset(weights, 0, sizeof *weights * (size_t)out * (size_t)taps);
    for (int i = 0; i < out; i++) {
        kernel(in, out, i, taps, value);
        // Near the far edge the run begins earlier, so that it ends inside; what it gained has no weight.
        int room = in > taps ? in - taps : 0, early = first[i] > room ? first[i] - room : 0;
        first[i] -= early;
        for (int k = early; k < taps; k++) {
            weights[(int64_t)i * taps + k] = (int32_t)round(value[k - early] * (1 << precision));
        }
    }
    return precision;
}

// --- turning ---

int sl_frame_lies_on_its_side(const struct sl_frame *frame)
{
    return frame->rotation == 90 || frame->rotation == 270;
}

struct sl_placement sl_frame_place(const struct sl_frame *frame, int64_t width, int64_t height, int64_t line_bytes,
                                   int64_t pixel_bytes)
{
    int64_t right = (width - 1) * pixel_bytes, bottom = (height - 1) * line_bytes, x = 0;
    struct sl_placement p = {.origin = 0, .along = pixel_bytes, .below = line_bytes};
    if (frame->rotation == 90) {
        p = (struct sl_placement){.origin = x = right, .along = line_bytes, .below = -pixel_bytes};
    } else if (frame->rotation == 180) {
        p = (struct sl_placement){.origin = right + bottom, .along = -pixel_bytes, .below = -line_bytes};
        x = right;
    } else if (frame->rotation == 270) {
        p = (struct sl_placement){.origin = bottom, .along = -line_bytes, .below = pixel_bytes};
    }
    if (frame->mirrored) {
        // x becomes right - x: whichever step moves along x turns round.
        p.origin += right - 2 * x;
        *(sl_frame_lies_on_its_side(frame) ? &p.below : &p.along) *= -1;
    }
    return p;
}
