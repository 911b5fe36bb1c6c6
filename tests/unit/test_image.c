// SPDX-License-Identifier: Apache-2.0
// The CPU's picture operations: resizing against torchvision (tests/golden/make_pixels.py), colour against float64
// from the definitions, patches against transformers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/weights.h"
#include "cpu/cpu.h"

static struct sl_device *device;
static struct sl_stream *stream;
static struct sl_error error;

static int setup(void **state)
{
    (void)state;
    return sl_cpu_create(2, &device, &error) || device->ops->stream_create(device, &stream, &error);
}

static int teardown(void **state)
{
    (void)state;
    device->ops->stream_destroy(stream);
    device->ops->destroy(device);
    return 0;
}

// --- frames made of synthetic samples ---

// make_pixels.py has the same.
static int picture(int x, int y, int c)
{
    uint32_t h = (uint32_t)x * 73856093u ^ (uint32_t)y * 19349663u ^ (uint32_t)c * 83492791u;
    h = (h ^ h >> 13) * 0x5bd1e995u;
    switch (((x >> 4) + (y >> 4)) & 3) {
    case 0:
        return (int)((h ^ h >> 15) & 255);
    case 1:
        return (x * 3 + y * 2 + c * 40) & 255;
    case 2:
        return ((x + y) & 1) * 255;
    default:
        return (x + y + c * 16) >> 1 & 255;
    }
}

// Colours that vary slowly, so that nothing clips and linear chroma is well inside the range.
static int shade(int x, int y, int c, int depth)
{
    static const int base[3] = {110, 120, 136}, dx[3] = {1, 2, -1}, dy[3] = {2, -1, 1};
    return (base[c] + (x * dx[c] + y * dy[c]) % 24 + ((x * 7 + y * 13 + c) & 3)) << (depth - 8);
}

struct picture_frame {
    struct sl_frame frame;
    uint8_t *bytes;
};

static int plane_width(const struct sl_frame *f, int plane)
{
    return plane == 0 || f->layout >= SL_LAYOUT_GRAY ? f->width
                                                     : (f->width + (1 << f->chroma_shift_x) - 1) >> f->chroma_shift_x;
}

static int plane_height(const struct sl_frame *f, int plane)
{
    return plane == 0 || f->layout >= SL_LAYOUT_GRAY ? f->height
                                                     : (f->height + (1 << f->chroma_shift_y) - 1) >> f->chroma_shift_y;
}

// Where sample (x, y) of component c lies.
static void place(const struct sl_frame *f, int c, int *plane, int *first, int *step)
{
    int packed = f->layout == SL_LAYOUT_RGB_PACKED, semi = f->layout == SL_LAYOUT_YUV_SEMIPLANAR && c > 0;
    *plane = packed ? 0 : semi ? 1 : c;
    *first = packed ? c : semi ? c - 1 : 0;
    *step = packed ? 3 : semi ? 2 : 1;
}

static void put_sample(const struct sl_frame *f, int c, int x, int y, int value)
{
    int plane, first, step;
    place(f, c, &plane, &first, &step);
    uint8_t *line = (uint8_t *)f->plane[plane] + y * f->pitch[plane];
    if (f->bit_depth == 8) {
        line[first + step * x] = (uint8_t)value;
    } else {
        uint16_t wide = (uint16_t)(value << f->msb_shift);
        memcpy(line + 2 * (first + step * x), &wide, 2);
    }
}

static int get_sample(const struct sl_frame *f, int c, int x, int y)
{
    int plane, first, step;
    place(f, c, &plane, &first, &step);
    x = x < 0 ? 0 : x < plane_width(f, c) ? x : plane_width(f, c) - 1;
    y = y < 0 ? 0 : y < plane_height(f, c) ? y : plane_height(f, c) - 1;
    const uint8_t *line = f->plane[plane] + y * f->pitch[plane];
    if (f->bit_depth == 8) {
        return line[first + step * x];
    }
    uint16_t wide;
    memcpy(&wide, line + 2 * (first + step * x), 2);
    return wide >> f->msb_shift;
}

static int components(const struct sl_frame *f)
{
    return f->layout == SL_LAYOUT_GRAY ? 1 : 3;
}

// Allocates exact planes (so that a sanitizer sees every overstep) and fills them.
static struct picture_frame make_frame(struct sl_frame like, int synthetic, int upside_down)
{
    struct picture_frame p = {.frame = like};
    struct sl_frame *f = &p.frame;
    f->bit_depth = f->bit_depth ? f->bit_depth : 8;
    int planes = f->layout == SL_LAYOUT_RGB_PACKED || f->layout == SL_LAYOUT_GRAY ? 1
                 : f->layout == SL_LAYOUT_YUV_SEMIPLANAR                          ? 2
                                                                                  : 3;
    int64_t offset[3], total = 0, sample = f->bit_depth > 8 ? 2 : 1;
    for (int i = 0; i < planes; i++) {
        int each = f->layout == SL_LAYOUT_RGB_PACKED ? 3 : f->layout == SL_LAYOUT_YUV_SEMIPLANAR && i == 1 ? 2 : 1;
        f->pitch[i] = plane_width(f, i) * each * sample;
        offset[i] = total;
        total += f->pitch[i] * plane_height(f, i);
    }
    p.bytes = malloc((size_t)total);
    assert_non_null(p.bytes);
    for (int i = 0; i < planes; i++) {
        f->plane[i] = p.bytes + offset[i];
        if (upside_down) {
            f->plane[i] += f->pitch[i] * (plane_height(f, i) - 1);
            f->pitch[i] = -f->pitch[i];
        }
    }
    for (int c = 0; c < components(f); c++) {
        for (int y = 0; y < plane_height(f, c); y++) {
            for (int x = 0; x < plane_width(f, c); x++) {
                put_sample(f, c, x, y, synthetic ? picture(x, y, c) : shade(x, y, c, f->bit_depth));
            }
        }
    }
    return p;
}

static uint8_t *resized(struct sl_frame *frame, int width, int height)
{
    uint8_t *out = malloc((size_t)width * (size_t)height * 3);
    assert_non_null(out);
    struct sl_tensor tensor = sl_tensor_3d(out, SL_U8, height, width, 3);
    device->ops->image_resize(stream, frame, &tensor);
    if (device->ops->wait(stream, &error) != SL_OK) {
        fail_msg("%s", error.text);
    }
    return out;
}

// --- resizing ---

static void resizes_as_torchvision(void **state)
{
    (void)state;
    static const int sizes[][4] = {{160, 90, 64, 32},   {160, 90, 96, 64}, {160, 90, 224, 128},
                                   {160, 90, 160, 64},  {160, 90, 32, 96}, {640, 360, 352, 192},
                                   {640, 360, 96, 320}, {35, 27, 96, 64},  {5, 3, 32, 32}};
    struct sl_weights *golden;
    assert_int_equal(sl_weights_open("tests/golden/data/pixels", &golden, &error), SL_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *s = sizes[i];
        char name[64];
        snprintf(name, sizeof name, "%dx%d.%dx%d", s[0], s[1], s[2], s[3]);
        struct sl_tensor want;
        assert_true(sl_weights_find(golden, name, &want));
        struct picture_frame p =
            make_frame((struct sl_frame){.width = s[0], .height = s[1], .layout = SL_LAYOUT_RGB_PACKED}, 1, 0);
        uint8_t *got = resized(&p.frame, s[2], s[3]);
        int64_t count[3] = {0}, n = sl_tensor_elements(&want); // differ by 0, 1, more
        for (int64_t k = 0; k < n; k++) {
            int difference = abs(got[k] - ((const uint8_t *)want.data)[k]);
            count[difference > 2 ? 2 : difference]++;
        }
        print_message("%s: %.4f %% equal, %.4f %% off by one, %.4f %% by more\n", name,
                      100.0 * (double)count[0] / (double)n, 100.0 * (double)count[1] / (double)n,
                      100.0 * (double)count[2] / (double)n);
        assert_true(count[2] * 1000 <= n);
        free(got);
        free(p.bytes);
    }
    sl_weights_close(golden);
}

// --- colour, from the definitions, in float64 ---

static double chroma_at(const struct sl_frame *f, int c, int x, int y)
{
    double sx = 1 << f->chroma_shift_x, sy = 1 << f->chroma_shift_y;
    double px = f->siting == SL_SITING_CENTER ? (x + 0.5) / sx - 0.5 : x / sx;
    double py = f->siting == SL_SITING_TOPLEFT ? y / sy : (y + 0.5) / sy - 0.5;
    int ix = (int)floor(px), iy = (int)floor(py);
    double wx = px - ix, wy = py - iy;
    double top = get_sample(f, c, ix, iy) * (1 - wx) + get_sample(f, c, ix + 1, iy) * wx;
    double low = get_sample(f, c, ix, iy + 1) * (1 - wx) + get_sample(f, c, ix + 1, iy + 1) * wx;
    return top * (1 - wy) + low * wy;
}

static void reference_colour(const struct sl_frame *f, int x, int y, double rgb[3])
{
    double one = 1 << (f->bit_depth - 8), top = (1 << f->bit_depth) - 1;
    int is_rgb = f->layout == SL_LAYOUT_RGB_PACKED || f->layout == SL_LAYOUT_RGB_PLANAR;
    int full = f->range == SL_RANGE_FULL || (is_rgb && f->range == SL_RANGE_UNKNOWN);
    double v[3] = {0};
    for (int c = 0; c < components(f); c++) {
        int chroma = !is_rgb && c > 0;
        v[c] = chroma ? chroma_at(f, c, x, y) : get_sample(f, c, x, y);
        v[c] = chroma ? (v[c] - 128 * one) / (full ? top : 224 * one)
               : full ? v[c] / top
                      : (v[c] - 16 * one) / (219 * one);
    }
    if (is_rgb) {
        memcpy(rgb, v, sizeof v);
    } else {
        int bt709 = f->matrix == SL_MATRIX_BT709 || (f->matrix == SL_MATRIX_UNKNOWN && f->height >= 720);
        double kr = bt709 ? 0.2126 : f->matrix == SL_MATRIX_BT2020 ? 0.2627 : 0.299;
        double kb = bt709 ? 0.0722 : f->matrix == SL_MATRIX_BT2020 ? 0.0593 : 0.114;
        rgb[0] = v[0] + 2 * (1 - kr) * v[2];
        rgb[2] = v[0] + 2 * (1 - kb) * v[1];
        rgb[1] = (v[0] - kr * rgb[0] - kb * rgb[2]) / (1 - kr - kb);
    }
}

// At the frame's own size the resampling is the identity, so the colours come out alone.
static void check_colours(struct sl_frame like, int upside_down)
{
    struct picture_frame p = make_frame(like, 0, upside_down);
    struct sl_frame *f = &p.frame;
    uint8_t *got = resized(f, f->width, f->height);
    for (int y = 0; y < f->height; y++) {
        for (int x = 0; x < f->width; x++) {
            double want[3];
            reference_colour(f, x, y, want);
            for (int c = 0; c < 3; c++) {
                double level = fmin(fmax(want[c] * 255, 0), 255), miss = got[(y * f->width + x) * 3 + c] - level;
                if (fabs(miss) > 0.501) {
                    fail_msg("layout %d depth %d siting %d: (%d, %d) channel %d is off by %f", f->layout, f->bit_depth,
                             f->siting, x, y, c, miss);
                }
            }
        }
    }
    free(got);
    free(p.bytes);
}

static void converts_every_layout(void **state)
{
    (void)state;
    static const int shifts[][2] = {{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 2}, {0, 1}};
    static const int depths[][2] = {{8, 0}, {10, 0}, {10, 6}, {12, 0}, {16, 0}};
    for (int layout = SL_LAYOUT_YUV_PLANAR; layout <= SL_LAYOUT_RGB_PACKED; layout++) {
        for (size_t d = 0; d < 5; d++) {
            for (size_t s = 0; s < (layout <= SL_LAYOUT_YUV_SEMIPLANAR ? 6 : 1); s++) {
                struct sl_frame like = {.width = 37, .height = 23, .layout = (enum sl_layout)layout};
                like.bit_depth = depths[d][0];
                like.msb_shift = depths[d][1];
                like.chroma_shift_x = shifts[s][0];
                like.chroma_shift_y = shifts[s][1];
                for (int siting = SL_SITING_UNKNOWN; siting <= SL_SITING_TOPLEFT; siting++) {
                    like.siting = (enum sl_siting)siting;
                    check_colours(like, siting & 1);
                }
            }
        }
    }
}

static void obeys_range_and_matrix(void **state)
{
    (void)state;
    for (int range = SL_RANGE_UNKNOWN; range <= SL_RANGE_FULL; range++) {
        for (int matrix = SL_MATRIX_UNKNOWN; matrix <= SL_MATRIX_BT2020; matrix++) {
            struct sl_frame like = {.width = 33, .height = 20, .chroma_shift_x = 1, .chroma_shift_y = 1};
            like.range = (enum sl_range)range;
            like.matrix = (enum sl_matrix)matrix;
            check_colours(like, 0);
            like.layout = SL_LAYOUT_RGB_PLANAR;
            check_colours(like, 0);
        }
    }
    check_colours((struct sl_frame){.width = 8, .height = 720, .chroma_shift_x = 1, .chroma_shift_y = 1}, 0);
    check_colours((struct sl_frame){.width = 1, .height = 1, .chroma_shift_x = 1, .chroma_shift_y = 1}, 0);
    check_colours((struct sl_frame){.width = 2, .height = 3, .chroma_shift_x = 2, .chroma_shift_y = 1}, 0);
}

// --- turning ---

static void turns_and_mirrors(void **state)
{
    (void)state;
    enum { WIDTH = 13, HEIGHT = 7 };
    struct picture_frame p =
        make_frame((struct sl_frame){.width = WIDTH, .height = HEIGHT, .layout = SL_LAYOUT_RGB_PACKED}, 1, 0);
    for (int turns = 0; turns < 4; turns++) {
        for (int mirrored = 0; mirrored < 2; mirrored++) {
            p.frame.rotation = 90 * turns;
            p.frame.mirrored = mirrored;
            int width = turns % 2 ? HEIGHT : WIDTH, height = turns % 2 ? WIDTH : HEIGHT;
            uint8_t *got = resized(&p.frame, width, height);
            for (int y = 0; y < HEIGHT; y++) {
                for (int x = 0; x < WIDTH; x++) {
                    // Turn clockwise one quarter at a time, then flip.
                    int at_x = x, at_y = y, h = HEIGHT, w = WIDTH;
                    for (int t = 0; t < turns; t++) {
                        int old_x = at_x, old_h = h;
                        at_x = h - 1 - at_y;
                        at_y = old_x;
                        h = w;
                        w = old_h;
                    }
                    at_x = mirrored ? width - 1 - at_x : at_x;
                    for (int c = 0; c < 3; c++) {
                        assert_int_equal(got[(at_y * width + at_x) * 3 + c], picture(x, y, c));
                    }
                }
            }
            free(got);
        }
    }
    free(p.bytes);
}

// Turning and resizing is resizing the turned picture, to the bit: the order of the passes follows.
static void resizes_the_upright_picture(void **state)
{
    (void)state;
    enum { WIDTH = 120, HEIGHT = 66, TO_WIDTH = 32, TO_HEIGHT = 64 };
    struct picture_frame p =
        make_frame((struct sl_frame){.width = WIDTH, .height = HEIGHT, .layout = SL_LAYOUT_RGB_PACKED}, 1, 0);
    struct picture_frame turned =
        make_frame((struct sl_frame){.width = HEIGHT, .height = WIDTH, .layout = SL_LAYOUT_RGB_PACKED}, 1, 0);
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            for (int c = 0; c < 3; c++) {
                put_sample(&turned.frame, c, HEIGHT - 1 - y, x, picture(x, y, c));
            }
        }
    }
    p.frame.rotation = 90;
    uint8_t *got = resized(&p.frame, TO_WIDTH, TO_HEIGHT), *want = resized(&turned.frame, TO_WIDTH, TO_HEIGHT);
    assert_memory_equal(got, want, TO_WIDTH * TO_HEIGHT * 3);
    free(got);
    free(want);
    free(p.bytes);
    free(turned.bytes);
}

// --- HDR ---

// Grey of a PQ or HLG level, straight from the curves.
static double reference_tone(int hlg, double signal)
{
    double light;
    if (hlg) {
        double a = 0.17883277, b = 1 - 4 * a, c = 0.5 - a * log(4 * a);
        double scene = signal <= 0.5 ? signal * signal / 3 : (exp((signal - c) / a) + b) / 12;
        light = 1000 * pow(scene, 1.2);
    } else {
        double m1 = 2610.0 / 16384, m2 = 2523.0 / 32, c1 = 3424.0 / 4096, c2 = 2413.0 / 128, c3 = 2392.0 / 128;
        double e = pow(signal, 1 / m2);
        light = 10000 * pow(fmax(e - c1, 0) / (c2 - c3 * e), 1 / m1);
    }
    double x = light / 203, white = 1000.0 / 203;
    return 255 * pow(fmin(x * (1 + x / white / white) / (1 + x), 1), 1 / 2.4);
}

static void maps_hdr_to_sdr(void **state)
{
    (void)state;
    for (int hlg = 0; hlg < 2; hlg++) {
        struct sl_frame like = {.width = 1024, .height = 1, .layout = SL_LAYOUT_GRAY, .bit_depth = 10};
        like.range = SL_RANGE_FULL;
        like.transfer = hlg ? SL_TRANSFER_HLG : SL_TRANSFER_PQ;
        struct picture_frame p = make_frame(like, 0, 0);
        for (int x = 0; x < 1024; x++) {
            put_sample(&p.frame, 0, x, 0, x);
        }
        uint8_t *got = resized(&p.frame, 1024, 1);
        for (int x = 0; x < 1024; x++) {
            for (int c = 0; c < 3; c++) {
                assert_true(fabs(got[3 * x + c] - reference_tone(hlg, x / 1023.0)) < 1.01);
            }
        }
        assert_int_equal(got[3 * 1023], 255);
        free(got);
        free(p.bytes);
    }
}

// A pure BT.2020 red is more than BT.709 can show: its other channels go to zero, not below.
static void keeps_hdr_hue(void **state)
{
    (void)state;
    struct sl_frame like = {.width = 16, .height = 4, .layout = SL_LAYOUT_RGB_PLANAR, .transfer = SL_TRANSFER_PQ};
    struct picture_frame p = make_frame(like, 0, 0);
    for (int y = 0; y < 4; y++) {
        for (int x = 0; x < 16; x++) {
            put_sample(&p.frame, 0, x, y, 130);
            put_sample(&p.frame, 1, x, y, 0);
            put_sample(&p.frame, 2, x, y, 0);
        }
    }
    uint8_t *got = resized(&p.frame, 16, 4);
    assert_true(got[0] > 100);
    assert_int_equal(got[1], 0);
    assert_int_equal(got[2], 0);
    free(got);
    free(p.bytes);
}

// --- patches ---

static void cuts_patches_as_transformers(void **state)
{
    (void)state;
    enum {
        WIDTH = 96,
        HEIGHT = 64,
        PATCH = 16,
        ROWS = WIDTH / PATCH * HEIGHT / PATCH,
        COLUMNS = 3 * 2 * PATCH * PATCH
    };
    struct sl_weights *golden;
    struct sl_tensor want;
    assert_int_equal(sl_weights_open("tests/golden/data/pixels", &golden, &error), SL_OK);
    assert_true(sl_weights_find(golden, "patches", &want));
    assert_int_equal(want.shape[0], ROWS);
    assert_int_equal(want.shape[1], COLUMNS);
    static uint8_t pixels[2][HEIGHT][WIDTH][3];
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            for (int c = 0; c < 3; c++) {
                pixels[0][y][x][c] = (uint8_t)picture(x, y, c);
                pixels[1][y][x][c] = (uint8_t)(255 - picture(x, y, c));
            }
        }
    }
    struct sl_tensor rgb[2] = {sl_tensor_3d(pixels[0], SL_U8, HEIGHT, WIDTH, 3),
                               sl_tensor_3d(pixels[1], SL_U8, HEIGHT, WIDTH, 3)};
    const float mean[3] = {0.5f, 0.4f, 0.6f}, std[3] = {0.5f, 0.3f, 0.25f};
    static float full[ROWS * COLUMNS];
    static uint16_t half[ROWS * COLUMNS];
    struct sl_tensor out = sl_tensor_2d(full, SL_F32, ROWS, COLUMNS);
    device->ops->patchify(stream, rgb, 2, PATCH, 2, mean, std, &out);
    struct sl_tensor half_out = sl_tensor_2d(half, SL_BF16, ROWS, COLUMNS);
    device->ops->patchify(stream, rgb, 2, PATCH, 2, mean, std, &half_out);
    assert_int_equal(device->ops->wait(stream, &error), SL_OK);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        float value = ((const float *)want.data)[i];
        assert_true(fabsf(full[i] - value) <= 1e-6f);
        uint32_t bits = (uint32_t)half[i] << 16;
        float widened;
        memcpy(&widened, &bits, sizeof widened);
        assert_true(fabsf(widened - value) <= fabsf(value) / 256 + 1e-6f);
    }
    sl_weights_close(golden);
}

static void refuses_device_memory(void **state)
{
    (void)state;
    struct sl_stream *doomed;
    uint8_t out[12];
    assert_int_equal(device->ops->stream_create(device, &doomed, &error), SL_OK);
    struct sl_frame frame = {.width = 2, .height = 2, .bit_depth = 8, .memory = SL_MEMORY_CUDA};
    struct sl_tensor tensor = sl_tensor_3d(out, SL_U8, 2, 2, 3);
    device->ops->image_resize(doomed, &frame, &tensor);
    assert_int_equal(device->ops->wait(doomed, &error), SL_ERR_INTERNAL);
    device->ops->stream_destroy(doomed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizes_as_torchvision),
        cmocka_unit_test(converts_every_layout),
        cmocka_unit_test(obeys_range_and_matrix),
        cmocka_unit_test(turns_and_mirrors),
        cmocka_unit_test(resizes_the_upright_picture),
        cmocka_unit_test(maps_hdr_to_sdr),
        cmocka_unit_test(keeps_hdr_hue),
        cmocka_unit_test(cuts_patches_as_transformers),
        cmocka_unit_test(refuses_device_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
