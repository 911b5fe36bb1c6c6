// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one pixel, for the kernels of image.cu. In plain C as well, so that the tests hold it against cpu/
// where there is no GPU: sums are rounded step by step, as there, and the bytes come out the same.
#ifndef SL_CUDA_IMAGE_MATH_H
#define SL_CUDA_IMAGE_MATH_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "core/picture.h"
#include "cuda/both.h"

// A frame as a kernel gets it. Tables and planes are in the device's memory.
struct image_source {
    const uint8_t *plane[3];
    int64_t pitch[3];
    struct sl_component component[3];
    int width, height;
    int chroma_width, chroma_height; // of components 1 and 2
    int shift_x, shift_y;            // log2 of the subsampling
    float unit_x, unit_y;            // half a luma sample on the scale of chroma ones
    int co_sited_x, co_sited_y;      // chroma sample 0 lies on luma sample 0; else between the first ones
    int wide, msb_shift;             // samples of 16 bits; their unused low bits
    int has_chroma;                  // components 1 and 2 are there
    struct sl_colour_matrix colour;
    const float *light; // HDR only, as of sl_hdr_tables
    const uint8_t *encoded;
};

// One axis of the resampling. Weights of one output sample lie `out` apart, so that neighbours read neighbours.
struct image_axis {
    int in, out, taps, precision;
    const int32_t *first;   // [out]
    const int16_t *weights; // [taps, out]
};

// What of a source does not depend on where its planes and tables are.
static inline struct image_source image_source_of(const struct sl_frame *frame)
{
    struct image_source s = {};
    int yuv = sl_frame_is_yuv(frame);
    s.width = frame->width;
    s.height = frame->height;
    s.shift_x = yuv ? frame->chroma_shift_x : 0;
    s.shift_y = yuv ? frame->chroma_shift_y : 0;
    s.unit_x = 0.5f / (float)(1 << s.shift_x);
    s.unit_y = 0.5f / (float)(1 << s.shift_y);
    s.chroma_width = (frame->width + (1 << s.shift_x) - 1) >> s.shift_x;
    s.chroma_height = (frame->height + (1 << s.shift_y) - 1) >> s.shift_y;
    s.co_sited_x = frame->siting != SL_SITING_CENTER;
    s.co_sited_y = frame->siting == SL_SITING_TOPLEFT;
    s.wide = frame->bit_depth > 8;
    s.msb_shift = frame->msb_shift;
    s.has_chroma = frame->layout != SL_LAYOUT_GRAY;
    for (int i = 0; i < 3; i++) {
        s.plane[i] = frame->plane[i];
        s.pitch[i] = frame->pitch[i];
        s.component[i] = sl_frame_component(frame, i);
    }
    sl_colour_matrix_init(&s.colour, frame);
    return s;
}

// a b + c, rounded twice.
CUDA_BOTH float image_multiply_add(float a, float b, float c)
{
#ifdef __CUDA_ARCH__
    return __fadd_rn(__fmul_rn(a, b), c);
#else
    return a * b + c;
#endif
}

CUDA_BOTH float image_sample(const struct image_source *s, int component, int x, int y)
{
    const struct sl_component *at = &s->component[component];
    const uint8_t *line = s->plane[at->plane] + y * s->pitch[at->plane];
    int64_t i = at->first + (int64_t)at->step * x;
    return s->wide ? (float)(((const uint16_t *)(const void *)line)[i] >> s->msb_shift) : (float)line[i];
}

// Where luma sample i lies in the chroma grid: behind sample `before`, by `weight` of the way to the next one.
CUDA_BOTH void image_chroma_place(int i, int shift, float unit, int co_sited, int *before, float *weight)
{
    int place = co_sited ? 2 * i : 2 * i + 1 - (1 << shift); // in units
    *before = place >> (shift + 1);
    *weight = (float)(place & ((2 << shift) - 1)) * unit;
}

CUDA_BOTH int image_clamp(int i, int count)
{
    return i < 0 ? 0 : i < count ? i : count - 1;
}

CUDA_BOTH float image_mix(float a, float b, float weight)
{
    return image_multiply_add(b - a, weight, a);
}

// A component of chroma at luma sample (x, y): linear, down first.
CUDA_BOTH float image_chroma(const struct image_source *s, int component, int x, int y)
{
    int left, upper;
    float across, down;
    image_chroma_place(x, s->shift_x, s->unit_x, s->co_sited_x, &left, &across);
    image_chroma_place(y, s->shift_y, s->unit_y, s->co_sited_y, &upper, &down);
    int x0 = image_clamp(left, s->chroma_width), x1 = image_clamp(left + 1, s->chroma_width);
    int y0 = image_clamp(upper, s->chroma_height), y1 = image_clamp(upper + 1, s->chroma_height);
    float a = image_sample(s, component, x0, y0);
    a = down > 0 ? image_mix(a, image_sample(s, component, x0, y1), down) : a;
    if (across == 0) {
        return a;
    }
    float b = image_sample(s, component, x1, y0);
    b = down > 0 ? image_mix(b, image_sample(s, component, x1, y1), down) : b;
    return image_mix(a, b, across);
}

CUDA_BOTH int image_level(const struct sl_colour_matrix *colour, int row, const float sample[3], float top)
{
    const float *m = colour->matrix[row];
    float value = m[0] * sample[0];
    value = image_multiply_add(m[1], sample[1], value);
    value = image_multiply_add(m[2], sample[2], value) + colour->offset[row];
    value = value > 0 ? value : 0;
    return (int)(value < top ? value : top);
}

CUDA_BOTH uint32_t image_pack(int red, int green, int blue)
{
    return (uint32_t)red | (uint32_t)green << 8 | (uint32_t)blue << 16;
}

// HDR signal to SDR: light, BT.2020 to BT.709 primaries, then the extended Reinhard curve on the largest channel, with
// 1000 nits becoming white.
CUDA_BOTH uint32_t image_tone_map(const struct image_source *s, const int signal[3])
{
    const float to_709[3][3] = {
        {1.6605f, -0.5876f, -0.0728f}, {-0.1246f, 1.1329f, -0.0083f}, {-0.0182f, -0.1006f, 1.1187f}};
    const float white = 1000 / 203.0f;
    float light[3], largest = 0;
    int level[3];
    for (int i = 0; i < 3; i++) {
        light[i] = 0;
        for (int j = 0; j < 3; j++) {
            light[i] = image_multiply_add(to_709[i][j], s->light[signal[j]], light[i]);
        }
        light[i] = fmaxf(light[i], 0);
        largest = fmaxf(largest, light[i]);
    }
    float gain = (1 + largest / (white * white)) / (1 + largest);
    for (int i = 0; i < 3; i++) {
        float root = sqrtf(fminf(light[i] * gain, 1));
        level[i] = s->encoded[(int)image_multiply_add(root, SL_HDR_STEPS - 1, 0.5f)];
    }
    return image_pack(level[0], level[1], level[2]);
}

// Pixel (x, y) of the stored picture as RGBx.
CUDA_BOTH uint32_t image_pixel(const struct image_source *s, int x, int y)
{
    float sample[3] = {image_sample(s, 0, x, y), 0, 0}, top = s->light != NULL ? SL_HDR_STEPS - 1 : 255;
    if (s->has_chroma) {
        sample[1] = image_chroma(s, 1, x, y);
        sample[2] = image_chroma(s, 2, x, y);
    }
    int level[3];
    for (int i = 0; i < 3; i++) {
        level[i] = image_level(&s->colour, i, sample, top);
    }
    return s->light != NULL ? image_tone_map(s, level) : image_pack(level[0], level[1], level[2]);
}

CUDA_BOTH void image_add(int32_t sum[3], uint32_t rgbx, int32_t weight)
{
    sum[0] += (int32_t)(rgbx & 255) * weight;
    sum[1] += (int32_t)(rgbx >> 8 & 255) * weight;
    sum[2] += (int32_t)(rgbx >> 16 & 255) * weight;
}

CUDA_BOTH uint32_t image_round(const int32_t sum[3], int precision)
{
    int level[3];
    for (int i = 0; i < 3; i++) {
        int32_t value = (sum[i] + (1 << precision >> 1)) >> precision;
        value = value > 0 ? value : 0;
        level[i] = value < 255 ? value : 255;
    }
    return image_pack(level[0], level[1], level[2]);
}

// Output sample `out` of an axis along which the input pixels lie `step` apart, from the first one on.
CUDA_BOTH uint32_t image_resampled(const struct image_axis *axis, int out, const uint32_t *rgbx, int64_t step)
{
    int32_t sum[3] = {0, 0, 0};
    int first = axis->first[out];
    for (int k = 0; k < axis->taps; k++) {
        // Taps past the last sample have no weight; any sample will do for them.
        int i = first + k < axis->in ? first + k : axis->in - 1;
        image_add(sum, rgbx[i * step], axis->weights[(int64_t)k * axis->out + out]);
    }
    return image_round(sum, axis->precision);
}

// --- patches ---

// How the patches of pictures become rows: blocks of merge x merge in raster order, inside a block raster order again.
struct image_patches {
    int patch, merge, across; // across: patches in a line of a picture
    int pictures;             // of the temporal patch
    float mean[3], std[3];    // on the scale of 0..255
};

static inline struct image_patches image_patches_of(int width, int pictures, int patch, int merge, const float mean[3],
                                                    const float std[3])
{
    struct image_patches p = {};
    p.patch = patch;
    p.merge = merge;
    p.across = width / patch;
    p.pictures = pictures;
    for (int i = 0; i < 3; i++) {
        p.mean[i] = mean[i] * 255;
        p.std[i] = std[i] * 255;
    }
    return p;
}

CUDA_BOTH int64_t image_patch_row(const struct image_patches *p, int patch_x, int patch_y)
{
    int64_t block = (int64_t)(patch_y / p->merge) * (p->across / p->merge) + patch_x / p->merge;
    return (block * p->merge + patch_y % p->merge) * p->merge + patch_x % p->merge;
}

// The column of a patch's sample: channel, picture, y, x.
CUDA_BOTH int64_t image_patch_column(const struct image_patches *p, int channel, int picture, int y, int x)
{
    return (((int64_t)channel * p->pictures + picture) * p->patch + y) * p->patch + x;
}

CUDA_BOTH float image_normalised(const struct image_patches *p, int channel, int level)
{
    return ((float)level - p->mean[channel]) / p->std[channel];
}

#endif
