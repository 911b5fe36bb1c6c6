// SPDX-License-Identifier: Apache-2.0
// A lane that fails for want of memory leaves the file to one session, with a note and the same samples. No GPU is
// asked for: in place of decode/nvdec.c stands one whose copies fail in the lanes.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "decode/decode.h"
#include "decode/nvdec.h"
#include "tests/support/clipmaker.h"

enum { PICTURES = 750 };

static const struct sl_source_gpu *alone; // of the session that goes on alone, which is opened first
static atomic_int copies_left;            // until the lanes fail
static enum sl_status fault;

void sl_nvdec_open(struct sl_nvdec *nvdec, const struct sl_source_gpu *gpu, int lane)
{
    *nvdec = (struct sl_nvdec){.gpu = gpu, .lane = lane};
    if (alone == NULL) {
        alone = gpu;
    }
}

void sl_nvdec_close(struct sl_nvdec *nvdec)
{
    (void)nvdec;
}

int sl_nvdec_attach(struct sl_nvdec *nvdec, const AVCodec *decoder, AVCodecContext *codec)
{
    (void)nvdec;
    (void)decoder;
    (void)codec;
    return 0;
}

int sl_nvdec_keep(struct sl_nvdec *nvdec, AVFrame *picture, const char *path, struct sl_error *error)
{
    (void)picture;
    if (nvdec->gpu == alone || atomic_fetch_sub(&copies_left, 1) > 0) {
        return SL_OK;
    }
    return sl_fail(error, fault, "no room for a picture of %s", path);
}

enum AVPixelFormat sl_nvdec_format(const AVFrame *picture)
{
    return picture->format;
}

struct reading {
    int samples, notes;
    int clock[PICTURES]; // as burnt in
    char note[240];
};

static void take_note(void *ctx, const char *text)
{
    struct reading *r = ctx;
    r->notes++;
    strncpy(r->note, text, sizeof r->note - 1);
}

static struct reading read_all(const char *path, int lanes, int copies, enum sl_status with)
{
    struct reading r = {0};
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.fps_num = 5;
    options.lanes = lanes;
    options.threads = 1;
    options.note = take_note;
    options.ctx = &r;
    alone = NULL;
    fault = with;
    atomic_store(&copies_left, copies);
    struct sl_source *source = NULL;
    struct sl_sample sample;
    assert_int_equal(sl_source_open(path, &options, &source, NULL), SL_OK);
    int status;
    while ((status = sl_source_next(source, &sample, NULL)) == SL_OK && r.samples < PICTURES) {
        r.clock[r.samples++] = clip_read_clock(sample.frame);
        sl_frame_unref(sample.frame);
    }
    assert_int_equal(status, SL_END);
    sl_source_close(source);
    return r;
}

static void assert_same_samples(const struct reading *one, const struct reading *many)
{
    assert_int_equal(one->samples, 150); // 30 s
    assert_int_equal(one->samples, many->samples);
    assert_memory_equal(one->clock, many->clock, sizeof one->clock);
}

static const char *make_clip(void)
{
    static int64_t ticks[PICTURES];
    clip_grid(ticks, PICTURES, (AVRational){25, 1}, (AVRational){1, 25});
    struct clip clip = {
        .path = clip_path("sound.mp4"), .pts = ticks, .count = PICTURES, .time_base = {1, 25}, .key_interval = 30};
    clip_make(&clip);
    return clip.path;
}

static void want_of_memory_is_said_once(void **state)
{
    (void)state;
    const char *path = make_clip();
    struct reading one = read_all(path, 1, 0, SL_ERR_MEMORY);
    assert_int_equal(one.notes, 0);
    static const int copies[] = {0, 60};
    for (size_t i = 0; i < sizeof copies / sizeof copies[0]; i++) {
        struct reading many = read_all(path, 2, copies[i], SL_ERR_MEMORY);
        assert_same_samples(&one, &many);
        assert_int_equal(many.notes, 1);
        assert_non_null(strstr(many.note, "one decoder goes on alone"));
        assert_non_null(strstr(many.note, "no room for a picture of"));
    }
    struct reading sound = read_all(path, 2, INT32_MAX, SL_ERR_MEMORY);
    assert_same_samples(&one, &sound);
    assert_int_equal(sound.notes, 0);
}

// The session that takes over would find it too: there is nothing to say of lanes.
static void a_fault_of_the_file_is_not(void **state)
{
    (void)state;
    const char *path = make_clip();
    struct reading one = read_all(path, 1, 0, SL_ERR_TRUNCATED);
    struct reading many = read_all(path, 2, 60, SL_ERR_TRUNCATED);
    assert_same_samples(&one, &many);
    assert_int_equal(many.notes, 0);
}

int main(void)
{
    clip_folder_make();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(want_of_memory_is_said_once),
        cmocka_unit_test(a_fault_of_the_file_is_not),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    clip_folder_remove();
    return failed;
}
