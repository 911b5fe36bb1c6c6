// SPDX-License-Identifier: Apache-2.0
// The checksum of a picture: the same for any arrangement of the same samples, another when one sample is another.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libavutil/pixdesc.h>

#include "decode/checksum.h"

enum { WIDTH = 46, HEIGHT = 20 };

static void put(AVFrame *frame, const AVPixFmtDescriptor *d, int component, int x, int y, unsigned value)
{
    const AVComponentDescriptor *c = &d->comp[component];
    uint8_t *at = frame->data[c->plane] + y * frame->linesize[c->plane] + x * c->step + c->offset;
    value <<= c->shift;
    at[0] = (uint8_t)value;
    if (c->depth > 8) {
        at[1] = (uint8_t)(value >> 8);
    }
}

// The same samples in whichever format, but for one; -1 for none.
static uint32_t sum_of(enum AVPixelFormat format, int other_component)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    AVFrame *frame = av_frame_alloc();
    frame->format = format;
    frame->width = WIDTH;
    frame->height = HEIGHT;
    assert_int_equal(av_frame_get_buffer(frame, 0), 0);
    for (int i = 0; i < d->nb_components; i++) {
        int width = i > 0 ? WIDTH >> d->log2_chroma_w : WIDTH, height = i > 0 ? HEIGHT >> d->log2_chroma_h : HEIGHT;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                unsigned value = (unsigned)(97 * x + 31 * y + 53 * i) % (1u << d->comp[i].depth);
                put(frame, d, i, x, y, value);
            }
        }
        if (i == other_component) {
            put(frame, d, i, width - 1, height - 1, 3);
        }
    }
    uint32_t sum = 0;
    assert_int_equal(sl_checksum(frame, &sum), 1);
    av_frame_free(&frame);
    return sum;
}

static void test_arrangements(void **state)
{
    (void)state;
    assert_int_equal(sum_of(AV_PIX_FMT_YUV420P, -1), sum_of(AV_PIX_FMT_NV12, -1));
    assert_int_equal(sum_of(AV_PIX_FMT_YUV420P10LE, -1), sum_of(AV_PIX_FMT_P010LE, -1));
    assert_int_not_equal(sum_of(AV_PIX_FMT_YUV420P, -1), sum_of(AV_PIX_FMT_YUV422P, -1));
    assert_int_not_equal(sum_of(AV_PIX_FMT_YUV420P, -1), sum_of(AV_PIX_FMT_YUV420P10LE, -1));
}

static void test_one_sample(void **state)
{
    (void)state;
    static const enum AVPixelFormat formats[] = {AV_PIX_FMT_YUV420P, AV_PIX_FMT_NV12, AV_PIX_FMT_YUV420P10LE,
                                                 AV_PIX_FMT_P010LE};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        for (int component = 0; component < 3; component++) {
            assert_int_not_equal(sum_of(formats[i], component), sum_of(formats[i], -1));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrangements),
        cmocka_unit_test(test_one_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
