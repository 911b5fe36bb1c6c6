// SPDX-License-Identifier: Apache-2.0
// What a frame says of itself is true: layout, depth, planes, colour tags, turning, fields. The clips are lossless, so
// samples can be compared exactly with what was drawn.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>

#include "decode/decode.h"
#include "tests/support/clipmaker.h"

static const int64_t three_ms[] = {0, 500, 1000};

static struct sl_frame *first_frame(const char *path)
{
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.threads = 2;
    struct sl_source *source = NULL;
    struct sl_error error = {0};
    struct sl_sample sample = {0};
    if (sl_source_open(path, &options, &source, &error) != SL_OK || sl_source_next(source, &sample, &error) != SL_OK) {
        fail_msg("%s", error.text);
    }
    sl_source_close(source);
    return sample.frame;
}

// The sample of plane `plane`, part `part` of `parts` interleaved ones, in units of 8 bits.
static double sample_at(const struct sl_frame *frame, int plane, int parts, int part, int x, int y)
{
    const uint8_t *line = frame->plane[plane] + y * frame->pitch[plane];
    if (frame->bit_depth == 8) {
        return line[x * parts + part];
    }
    uint16_t value;
    memcpy(&value, line + 2 * (x * parts + part), 2);
    assert_int_equal(value & ((1 << frame->msb_shift) - 1), 0);
    return (double)(value >> frame->msb_shift) / (1 << (frame->bit_depth - 8));
}

static void assert_flat(const struct sl_frame *frame, int plane, int parts, int part, double level, double slack)
{
    int width = -((-frame->width) >> frame->chroma_shift_x);
    int height = -((-frame->height) >> frame->chroma_shift_y);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            double difference = sample_at(frame, plane, parts, part, x, y) - level;
            assert_true(difference <= slack && difference >= -slack);
        }
    }
}

// Checks every sample of a frame against what clipmaker draws; `slack` for formats that had to be converted.
static void assert_drawn(const struct sl_frame *frame, double slack)
{
    assert_int_equal(clip_read_clock(frame), 0);
    int is_packed = frame->layout == SL_LAYOUT_RGB_PACKED;
    int is_rgb = is_packed || frame->layout == SL_LAYOUT_RGB_PLANAR;
    for (int y = 0; y < frame->height; y++) {
        for (int x = 0; x < frame->width; x++) {
            double light = sample_at(frame, 0, is_packed ? 3 : 1, 0, x, y);
            int is_dark = light >= 25 - slack && light <= 25 + slack;
            assert_true(is_dark || (light >= 225 - slack && light <= 225 + slack));
            for (int c = 1; is_rgb && c < 3; c++) {
                double other = sample_at(frame, is_packed ? 0 : c, is_packed ? 3 : 1, is_packed ? c : 0, x, y);
                assert_true(other - light >= 4 * c - slack && other - light <= 4 * c + slack);
            }
        }
    }
    if (frame->layout == SL_LAYOUT_YUV_PLANAR) {
        assert_flat(frame, 1, 1, 0, 120, slack);
        assert_flat(frame, 2, 1, 0, 136, slack);
    } else if (frame->layout == SL_LAYOUT_YUV_SEMIPLANAR) {
        assert_flat(frame, 1, 2, 0, 120, slack);
        assert_flat(frame, 1, 2, 1, 136, slack);
    }
}

struct format_case {
    enum AVPixelFormat format;
    const char *container, *encoder;
    enum sl_layout layout;
    int depth, msb_shift;
    double slack; // 0: passed by reference
};

static const struct format_case formats[] = {
    {AV_PIX_FMT_YUV420P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV422P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV444P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV440P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV411P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV410P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0},
    {AV_PIX_FMT_YUV420P9, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 9, 0, 0},
    {AV_PIX_FMT_YUV420P10, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 10, 0, 0},
    {AV_PIX_FMT_YUV422P12, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 12, 0, 0},
    {AV_PIX_FMT_YUV444P16, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 16, 0, 0},
    {AV_PIX_FMT_GRAY8, "nut", "ffv1", SL_LAYOUT_GRAY, 8, 0, 0},
    {AV_PIX_FMT_GRAY10, "nut", "ffv1", SL_LAYOUT_GRAY, 10, 0, 0},
    {AV_PIX_FMT_GRAY16, "nut", "ffv1", SL_LAYOUT_GRAY, 16, 0, 0},
    {AV_PIX_FMT_GBRP10, "nut", "ffv1", SL_LAYOUT_RGB_PLANAR, 10, 0, 0},
    {AV_PIX_FMT_GBRP16, "nut", "ffv1", SL_LAYOUT_RGB_PLANAR, 16, 0, 0},
    {AV_PIX_FMT_NV12, "nut", "rawvideo", SL_LAYOUT_YUV_SEMIPLANAR, 8, 0, 0},
    {AV_PIX_FMT_RGB24, "nut", "rawvideo", SL_LAYOUT_RGB_PACKED, 8, 0, 0},
    {AV_PIX_FMT_RGB48LE, "nut", "rawvideo", SL_LAYOUT_RGB_PACKED, 16, 0, 0},
    {AV_PIX_FMT_YUVA420P, "nut", "ffv1", SL_LAYOUT_YUV_PLANAR, 8, 0, 0.5},
    {AV_PIX_FMT_NV21, "nut", "rawvideo", SL_LAYOUT_YUV_PLANAR, 8, 0, 0.5},
    {AV_PIX_FMT_YUYV422, "nut", "rawvideo", SL_LAYOUT_YUV_PLANAR, 8, 0, 0.5},
    {AV_PIX_FMT_UYVY422, "nut", "rawvideo", SL_LAYOUT_YUV_PLANAR, 8, 0, 0.5},
    {AV_PIX_FMT_BGR24, "nut", "rawvideo", SL_LAYOUT_RGB_PACKED, 8, 0, 0.5},
    {AV_PIX_FMT_RGBA, "nut", "rawvideo", SL_LAYOUT_RGB_PACKED, 8, 0, 0.5},
    {AV_PIX_FMT_ARGB, "nut", "rawvideo", SL_LAYOUT_RGB_PACKED, 8, 0, 0.5},
    {AV_PIX_FMT_YUV420P10BE, "nut", "rawvideo", SL_LAYOUT_YUV_PLANAR, 10, 0, 0.5},
    {AV_PIX_FMT_GRAY16BE, "nut", "rawvideo", SL_LAYOUT_GRAY, 16, 0, 0.5},
    {AV_PIX_FMT_YA8, "nut", "rawvideo", SL_LAYOUT_GRAY, 8, 0, 0.5},
};

static void every_format(void **state)
{
    (void)state;
    static const int sizes[][2] = {{192, 128}, {97, 67}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const struct format_case *f = &formats[i];
        const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
        for (int s = 0; s < 2; s++) {
            struct clip clip = {.path = clip_path("format.nut"),
                                .encoder = f->encoder,
                                .pixel_format = f->format,
                                .width = sizes[s][0],
                                .height = sizes[s][1],
                                .pts = three_ms,
                                .count = 3,
                                .options = strcmp(f->encoder, "ffv1") == 0 ? "level=3" : NULL};
            if (s == 1 && strcmp(f->encoder, "rawvideo") == 0 && d->log2_chroma_w > 0) {
                continue; // raw video has no odd sizes
            }
            clip_make(&clip);
            struct sl_frame *frame = first_frame(clip.path);
            if (frame->layout != f->layout) {
                fail_msg("%s: layout %d instead of %d", d->name, frame->layout, f->layout);
            }
            assert_int_equal(frame->memory, SL_MEMORY_HOST);
            assert_int_equal(frame->wall_us, SL_NO_TIME);
            assert_int_equal(frame->width, sizes[s][0]);
            assert_int_equal(frame->height, sizes[s][1]);
            assert_int_equal(frame->bit_depth, f->depth);
            assert_int_equal(frame->msb_shift, f->msb_shift);
            int has_chroma = frame->layout == SL_LAYOUT_YUV_PLANAR || frame->layout == SL_LAYOUT_YUV_SEMIPLANAR;
            assert_int_equal(frame->chroma_shift_x, has_chroma ? d->log2_chroma_w : 0);
            assert_int_equal(frame->chroma_shift_y, has_chroma ? d->log2_chroma_h : 0);
            assert_drawn(frame, f->slack);
            sl_frame_unref(frame);
        }
    }
}

static void turned_and_mirrored(void **state)
{
    (void)state;
    // Where the point one to the right, and the point one below, of the stored picture go, y downwards.
    static const struct {
        int turn[4], rotation, mirrored;
    } cases[] = {
        {{1, 0, 0, 1}, 0, 0},     {{0, 1, -1, 0}, 90, 0},  {{-1, 0, 0, -1}, 180, 0}, {{0, -1, 1, 0}, 270, 0},
        {{-1, 0, 0, 1}, 0, 1},    {{1, 0, 0, -1}, 180, 1}, // left-right; upside down = turned, then left-right
        {{0, 1, 1, 0}, 90, 1}, // right goes down, down goes right: turned clockwise, then left-right
        {{0, -1, -1, 0}, 270, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct clip clip = {.path = clip_path("turn.mp4"), .pts = three_ms, .count = 3};
        memcpy(clip.turn, cases[i].turn, sizeof clip.turn);
        clip_make(&clip);
        struct sl_frame *frame = first_frame(clip.path);
        assert_int_equal(frame->rotation, cases[i].rotation);
        assert_int_equal(frame->mirrored, cases[i].mirrored);
        assert_int_equal(frame->width, 192); // planes are not turned
        assert_int_equal(clip_read_clock(frame), 0);
        sl_frame_unref(frame);
        struct sl_source_options options;
        sl_source_defaults(&options);
        struct sl_source *source = NULL;
        assert_int_equal(sl_source_open(clip.path, &options, &source, NULL), SL_OK);
        assert_int_equal(sl_source_info(source)->rotation, cases[i].rotation);
        assert_int_equal(sl_source_info(source)->mirrored, cases[i].mirrored);
        sl_source_close(source);
    }
}

static void colour_tags(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        enum sl_matrix matrix;
        enum sl_range range;
        enum sl_siting siting;
        enum sl_transfer transfer;
    } cases[] = {
        {"level=3", SL_MATRIX_UNKNOWN, SL_RANGE_UNKNOWN, SL_SITING_UNKNOWN, SL_TRANSFER_SDR},
        {"colorspace=bt709:color_range=tv:color_trc=bt709", SL_MATRIX_BT709, SL_RANGE_LIMITED, SL_SITING_UNKNOWN,
         SL_TRANSFER_SDR},
        {"colorspace=smpte170m:color_range=pc:chroma_sample_location=left", SL_MATRIX_BT601, SL_RANGE_FULL,
         SL_SITING_LEFT, SL_TRANSFER_SDR},
        {"colorspace=bt470bg:color_range=tv:chroma_sample_location=topleft", SL_MATRIX_BT601, SL_RANGE_LIMITED,
         SL_SITING_TOPLEFT, SL_TRANSFER_SDR},
        {"colorspace=bt2020nc:color_range=tv:color_trc=smpte2084", SL_MATRIX_BT2020, SL_RANGE_LIMITED,
         SL_SITING_UNKNOWN, SL_TRANSFER_PQ},
        {"colorspace=bt2020nc:color_range=tv:color_trc=arib-std-b67", SL_MATRIX_BT2020, SL_RANGE_LIMITED,
         SL_SITING_UNKNOWN, SL_TRANSFER_HLG},
        {"colorspace=smpte240m:color_range=tv", SL_MATRIX_SMPTE240M, SL_RANGE_LIMITED, SL_SITING_UNKNOWN,
         SL_TRANSFER_SDR},
        {"colorspace=fcc:color_range=tv", SL_MATRIX_FCC, SL_RANGE_LIMITED, SL_SITING_UNKNOWN, SL_TRANSFER_SDR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct clip clip = {.path = clip_path("colour.mkv"),
                            .encoder = "ffv1",
                            .pts = three_ms,
                            .count = 3,
                            .options = cases[i].options};
        clip_make(&clip);
        struct sl_frame *frame = first_frame(clip.path);
        assert_int_equal(frame->matrix, cases[i].matrix);
        assert_int_equal(frame->range, cases[i].range);
        assert_int_equal(frame->siting, cases[i].siting);
        assert_int_equal(frame->transfer, cases[i].transfer);
        sl_frame_unref(frame);
    }
    struct clip jpeg = {.path = clip_path("jpeg.avi"),
                        .encoder = "mjpeg",
                        .pixel_format = AV_PIX_FMT_YUVJ422P,
                        .pts = three_ms,
                        .count = 3,
                        .time_base = {1, 1000}};
    clip_make(&jpeg);
    struct sl_frame *frame = first_frame(jpeg.path);
    assert_int_equal(frame->range, SL_RANGE_FULL);
    sl_frame_unref(frame);
    struct clip rgb = {.path = clip_path("rgb.nut"),
                       .encoder = "rawvideo",
                       .pixel_format = AV_PIX_FMT_RGB24,
                       .pts = three_ms,
                       .count = 3};
    clip_make(&rgb);
    frame = first_frame(rgb.path);
    assert_int_equal(frame->range, SL_RANGE_FULL);
    sl_frame_unref(frame);
}

static void sample_aspect(void **state)
{
    (void)state;
    struct clip clip = {.path = clip_path("sar.mkv"), .pts = three_ms, .count = 3, .sample_aspect = {64, 45}};
    clip_make(&clip);
    struct sl_frame *frame = first_frame(clip.path);
    assert_int_equal(frame->sar_num * 45, frame->sar_den * 64);
    sl_frame_unref(frame);
    clip.sample_aspect = (AVRational){0, 1};
    clip_make(&clip);
    frame = first_frame(clip.path);
    assert_int_equal(frame->sar_num, 1);
    assert_int_equal(frame->sar_den, 1);
    sl_frame_unref(frame);
}

static void the_field_shown_first(void **state)
{
    (void)state;
    // Height, and the lines of the first field when the top, or the bottom one is first. With 4:2:0 the bottom field of
    // 134 lines has 67 of luma, but only 33 of the 67 lines of chroma.
    static const int heights[][3] = {{128, 64, 64}, {130, 65, 64}, {134, 67, 66}, {131, 66, 65}};
    for (size_t i = 0; i < sizeof heights / sizeof heights[0]; i++) {
        for (int first = 1; first <= 2; first++) {
            struct clip clip = {.path = clip_path("fields.mkv"),
                                .encoder = "ffv1",
                                .pts = three_ms,
                                .count = 3,
                                .height = heights[i][0],
                                .interlaced = first,
                                .sample_aspect = {16, 11},
                                .options = "level=3"};
            clip_make(&clip);
            struct sl_frame *frame = first_frame(clip.path);
            assert_int_equal(frame->height, heights[i][first]);
            assert_int_equal(frame->width, 192);
            assert_int_equal(frame->sar_num * 11, frame->sar_den * 8);
            // Every luma line is of the first field (the second one shows another number), and chroma follows its
            // pitch.
            assert_drawn(frame, 0);
            sl_frame_unref(frame);
        }
    }
}

static int make_folder(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    clip_folder_make();
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    clip_folder_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format),  cmocka_unit_test(turned_and_mirrored),   cmocka_unit_test(colour_tags),
        cmocka_unit_test(sample_aspect), cmocka_unit_test(the_field_shown_first),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
