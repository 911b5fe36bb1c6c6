// SPDX-License-Identifier: Apache-2.0
// The arithmetic of cuda/'s picture kernels (image_math.h), run on the host in the kernels' order, against cpu/: every
// byte the same. What only a GPU can show is in the device tests.
#include "cuda/image_math.h"

#include "tests/unit/cpu_tools.h"

struct made {
    struct sl_frame frame;
    uint8_t *bytes;
};

// Random samples in planes of the frame's own; every second frame upside down, every third with wider lines.
static struct made make(struct sl_frame like)
{
    static int number = 0;
    struct made m = {.frame = like};
    struct sl_frame *f = &m.frame;
    f->bit_depth = f->bit_depth ? f->bit_depth : 8;
    struct image_source s = image_source_of(f);
    int64_t offset[3] = {0}, rows[3] = {0}, size = 0;
    number++;
    for (int i = 0; i < (s.has_chroma ? 3 : 1); i++) {
        int plane = s.component[i].plane, columns = i > 0 ? s.chroma_width : s.width;
        if (rows[plane] == 0) {
            rows[plane] = i > 0 ? s.chroma_height : s.height;
            f->pitch[plane] = (columns * s.component[i].step + (number % 3 ? 0 : 5)) * (s.wide ? 2 : 1);
            offset[plane] = size;
            size += f->pitch[plane] * rows[plane];
        }
    }
    m.bytes = malloc((size_t)size);
    assert_non_null(m.bytes);
    for (int64_t i = 0; i < size; i++) {
        m.bytes[i] = (uint8_t)below(256);
    }
    for (int64_t i = 0; s.wide && i < size; i += 2) { // no more bits than the depth has
        uint16_t value = (uint16_t)(below(1 << f->bit_depth) << f->msb_shift);
        memcpy(m.bytes + i, &value, 2);
    }
    for (int i = 0; i < 3 && rows[i] > 0; i++) {
        f->plane[i] = m.bytes + offset[i];
        if (number % 2) {
            f->plane[i] += f->pitch[i] * (rows[i] - 1);
            f->pitch[i] = -f->pitch[i];
        }
    }
    return m;
}

static struct image_axis axis_of(int in, int out)
{
    int taps = sl_resample_taps(in, out);
    struct image_axis a = {.in = in, .out = out, .taps = taps};
    int32_t *first = calloc((size_t)out, sizeof *first), *weights = calloc((size_t)(out * taps), sizeof *weights);
    int16_t *turned = calloc((size_t)(out * taps), sizeof *turned);
    double *value = calloc((size_t)taps, sizeof *value);
    a.precision = sl_resample_weights(in, out, value, first, weights);
    for (int i = 0; i < out * taps; i++) {
        assert_true(weights[i] >= INT16_MIN && weights[i] <= INT16_MAX);
        turned[i % taps * out + i / taps] = (int16_t)weights[i];
    }
    a.first = first;
    a.weights = turned;
    free(weights);
    free(value);
    return a;
}

static void free_axis(struct image_axis *a)
{
    free((void *)a->first);
    free((void *)a->weights);
}

// As image.cu does it: convert, then across and down, or down and across when the picture lies on its side.
static void resize_as_kernels(const struct sl_frame *f, int width, int height, uint8_t *out)
{
    static float light[SL_HDR_STEPS];
    static uint8_t encoded[SL_HDR_STEPS];
    int turned = sl_frame_lies_on_its_side(f), wide = turned ? height : width, high = turned ? width : height;
    struct image_source s = image_source_of(f);
    if (f->transfer != SL_TRANSFER_SDR) {
        sl_hdr_tables(f->transfer, light, encoded);
        s.light = light;
        s.encoded = encoded;
    }
    struct image_axis across = axis_of(f->width, wide), down = axis_of(f->height, high);
    uint32_t *pixels = calloc((size_t)f->width * (size_t)f->height, 4);
    uint32_t *middle = calloc((size_t)(turned ? f->width : wide) * (size_t)(turned ? high : f->height), 4);
    for (int y = 0; y < f->height; y++) {
        for (int x = 0; x < f->width; x++) {
            pixels[y * f->width + x] = image_pixel(&s, x, y);
        }
        for (int x = 0; x < wide && !turned; x++) {
            middle[y * wide + x] = image_resampled(&across, x, pixels + y * f->width, 1);
        }
    }
    struct sl_placement place = sl_frame_place(f, width, height, 3 * width, 3);
    for (int y = 0; y < high; y++) {
        for (int x = 0; x < f->width && turned; x++) {
            middle[y * f->width + x] = image_resampled(&down, y, pixels + x, f->width);
        }
        for (int x = 0; x < wide; x++) {
            uint32_t rgbx = turned ? image_resampled(&across, x, middle + y * f->width, 1)
                                   : image_resampled(&down, y, middle + x, wide);
            for (int c = 0; c < 3; c++) {
                out[place.origin + x * place.along + y * place.below + c] = (uint8_t)(rgbx >> 8 * c);
            }
        }
    }
    free(pixels);
    free(middle);
    free_axis(&across);
    free_axis(&down);
}

static void check(struct sl_frame like, int width, int height)
{
    struct made m = make(like);
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *want = malloc(size), *got = malloc(size);
    struct sl_tensor out = sl_tensor_3d(want, SL_U8, height, width, 3);
    device->ops->image_resize(stream, &m.frame, &out);
    assert_no_failure();
    resize_as_kernels(&m.frame, width, height, got);
    for (size_t i = 0; i < size; i++) {
        if (got[i] != want[i]) {
            fail_msg("layout %d, %d bits, %dx%d to %dx%d, turned by %d: byte %zu is %d, not %d", like.layout,
                     like.bit_depth, like.width, like.height, width, height, like.rotation, i, got[i], want[i]);
        }
    }
    free(want);
    free(got);
    free(m.bytes);
}

static void converts_every_layout_as_the_cpu(void **state)
{
    (void)state;
    static const int shifts[][2] = {{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 2}, {0, 1}};
    static const int depths[][2] = {{8, 0}, {10, 0}, {10, 6}, {12, 4}, {16, 0}};
    for (int layout = SL_LAYOUT_YUV_PLANAR; layout <= SL_LAYOUT_RGB_PACKED; layout++) {
        for (size_t d = 0; d < 5; d++) {
            for (size_t s = 0; s < (layout <= SL_LAYOUT_YUV_SEMIPLANAR ? 6 : 1); s++) {
                for (int siting = SL_SITING_UNKNOWN; siting <= SL_SITING_TOPLEFT; siting++) {
                    struct sl_frame like = {.width = 37, .height = 23, .layout = (enum sl_layout)layout};
                    like.bit_depth = depths[d][0];
                    like.msb_shift = depths[d][1];
                    like.chroma_shift_x = shifts[s][0];
                    like.chroma_shift_y = shifts[s][1];
                    like.siting = (enum sl_siting)siting;
                    check(like, 37, 23);
                }
            }
        }
    }
}

static void obeys_matrix_range_and_transfer_as_the_cpu(void **state)
{
    (void)state;
    for (int matrix = SL_MATRIX_UNKNOWN; matrix <= SL_MATRIX_FCC; matrix++) {
        for (int range = SL_RANGE_UNKNOWN; range <= SL_RANGE_FULL; range++) {
            for (int transfer = SL_TRANSFER_SDR; transfer <= SL_TRANSFER_HLG; transfer++) {
                struct sl_frame like = {.width = 40, .height = 22, .layout = SL_LAYOUT_YUV_SEMIPLANAR};
                like.bit_depth = transfer == SL_TRANSFER_SDR ? 8 : 10;
                like.msb_shift = like.bit_depth == 8 ? 0 : 6;
                like.chroma_shift_x = like.chroma_shift_y = 1;
                like.matrix = (enum sl_matrix)matrix;
                like.range = (enum sl_range)range;
                like.transfer = (enum sl_transfer)transfer;
                check(like, 40, 22);
            }
        }
    }
}

static void resizes_and_turns_as_the_cpu(void **state)
{
    (void)state;
    static const int sizes[][4] = {{160, 90, 64, 32}, {160, 90, 224, 128}, {35, 27, 96, 64},
                                   {5, 3, 32, 32},    {1, 1, 32, 32},      {640, 360, 96, 320}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int turn = 0; turn < 8; turn++) {
            struct sl_frame like = {.width = sizes[i][0], .height = sizes[i][1], .layout = SL_LAYOUT_YUV_SEMIPLANAR};
            like.chroma_shift_x = like.chroma_shift_y = 1;
            like.rotation = turn % 4 * 90;
            like.mirrored = turn / 4;
            check(like, sizes[i][2], sizes[i][3]);
        }
    }
}

static void cuts_patches_as_the_cpu(void **state)
{
    (void)state;
    enum { WIDTH = 96, HEIGHT = 64, PATCH = 16, ROWS = WIDTH / PATCH * HEIGHT / PATCH, COLUMNS = 6 * PATCH * PATCH };
    static uint8_t pixels[2][HEIGHT][WIDTH][3];
    static float want[ROWS][COLUMNS], got[ROWS][COLUMNS];
    for (size_t i = 0; i < sizeof pixels; i++) {
        (&pixels[0][0][0][0])[i] = (uint8_t)below(256);
    }
    const float mean[3] = {0.5f, 0.4f, 0.6f}, std[3] = {0.5f, 0.3f, 0.25f};
    struct sl_tensor out = sl_tensor_2d(want, SL_F32, ROWS, COLUMNS);
    struct sl_tensor rgb[2] = {sl_tensor_3d(pixels[0], SL_U8, HEIGHT, WIDTH, 3),
                               sl_tensor_3d(pixels[1], SL_U8, HEIGHT, WIDTH, 3)};
    device->ops->patchify(stream, rgb, 2, PATCH, 2, mean, std, &out);
    assert_no_failure();
    struct image_patches p = image_patches_of(WIDTH, 2, PATCH, 2, mean, std);
    for (int i = 0; i < 2 * HEIGHT * WIDTH * 3; i++) {
        int channel = i % 3, x = i / 3 % WIDTH, y = i / 3 / WIDTH % HEIGHT, picture = i / 3 / WIDTH / HEIGHT;
        got[image_patch_row(&p, x / PATCH, y / PATCH)][image_patch_column(&p, channel, picture, y % PATCH, x % PATCH)] =
            image_normalised(&p, channel, pixels[picture][y][x][channel]);
    }
    assert_memory_equal(got, want, sizeof got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(converts_every_layout_as_the_cpu),
        cmocka_unit_test(obeys_matrix_range_and_transfer_as_the_cpu),
        cmocka_unit_test(resizes_and_turns_as_the_cpu),
        cmocka_unit_test(cuts_patches_as_the_cpu),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
