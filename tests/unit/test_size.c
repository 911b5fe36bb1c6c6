// SPDX-License-Identifier: Apache-2.0
// Picture sizes against transformers (tests/golden/make_pixels.py) and against the published examples.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "vision/size.h"
#include "vision/vision.h"

static struct sl_model_config published(void)
{
    struct sl_model_config config = {0};
    config.vision.patch = 16;
    config.vision.temporal_patch = 2;
    config.vision.merge = 2;
    config.video.shortest_edge = 4096;
    config.video.longest_edge = 25165824;
    config.video.max_video_tokens = 768;
    return config;
}

static void agrees_with_transformers(void **state)
{
    (void)state;
    FILE *file = fopen("tests/golden/data/sizes.txt", "r");
    assert_non_null(file);
    char line[200];
    int clips = 0, frames = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        long long w, h, n, low, high, cap, to_w, to_h;
        struct sl_size size;
        if (sscanf(line, "clip %lld %lld %lld %lld %lld %lld -> %lld %lld", &w, &h, &n, &low, &high, &cap, &to_w,
                   &to_h) == 8) {
            struct sl_video_config video = {low, high, (int)cap, 768, {0}, {0}};
            size = sl_size_of_clip((struct sl_size){w, h}, (int)n, 2, 32, (double)low,
                                   sl_size_clip_limit(&video, (int)n, 32));
            clips++;
        } else {
            assert_int_equal(sscanf(line, "frame %lld %lld %lld %lld -> %lld %lld", &w, &h, &low, &high, &to_w, &to_h),
                             6);
            size = sl_size_of_frame((struct sl_size){w, h}, 32, (double)low, (double)high);
            frames++;
        }
        if (size.width != to_w || size.height != to_h) {
            fail_msg("%lldx%lld where this was expected: %s", (long long)size.width, (long long)size.height, line);
        }
    }
    fclose(file);
    assert_true(clips > 300 && frames > 150);
}

// 1080p at 2 frames a second under the two published budgets, as their documents print them.
static void agrees_with_published_examples(void **state)
{
    (void)state;
    static const struct {
        int frames;
        struct sl_size clip, long_clip, frame, small_frame;
    } rows[] = {
        {20, {1472, 832}, {1920, 1088}, {1152, 640}, {1152, 640}},
        {60, {832, 480}, {1920, 1088}, {1152, 640}, {1088, 608}},
        {120, {608, 320}, {1920, 1088}, {1152, 640}, {768, 416}},
        {240, {416, 224}, {1824, 1024}, {1152, 640}, {544, 288}},
        {600, {256, 128}, {1152, 640}, {832, 448}, {352, 192}},
        {768, {224, 128}, {1024, 576}, {736, 384}, {320, 192}},
        {2048, {128, 64}, {608, 352}, {480, 256}, {320, 192}},
    };
    struct sl_size full = {1920, 1080};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int n = rows[i].frames;
        struct sl_size got[4] = {
            sl_size_of_clip(full, n, 2, 32, 4096, 25165824),
            sl_size_of_clip(full, n, 2, 32, 4096, 224000 * 2048.0),
            sl_size_of_frame(full, 32, 131072, sl_size_frame_limit(n, 32, 131072, 128000 * 1024 * 0.9)),
            sl_size_of_frame(full, 32, 65536, sl_size_frame_limit(n, 32, 65536, 20480 * 1024)),
        };
        const struct sl_size want[4] = {rows[i].clip, rows[i].long_clip, rows[i].frame, rows[i].small_frame};
        for (int k = 0; k < 4; k++) {
            if (got[k].width != want[k].width || got[k].height != want[k].height) {
                fail_msg("%d frames, rule %d: %lldx%lld", n, k, (long long)got[k].width, (long long)got[k].height);
            }
        }
    }
}

static int tokens_of(const struct sl_model_config *config, int64_t width, int64_t height, int frames, int limit)
{
    int w, h;
    assert_int_equal(sl_vision_picture_size(config, width, height, frames, limit, &w, &h, NULL), SL_OK);
    int unit = config->vision.patch * config->vision.merge;
    assert_true(w >= unit && h >= unit && w % unit == 0 && h % unit == 0);
    return w / unit * (h / unit);
}

static void keeps_every_limit(void **state)
{
    (void)state;
    struct sl_model_config config = published();
    static const int64_t shapes[][2] = {{1920, 1080}, {1080, 1920}, {640, 480},  {3840, 2160}, {40, 30},
                                        {6000, 31},   {31, 6000},   {9999, 100}, {2, 2},       {1279, 719}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int limit = 1; limit < 3000; limit += limit < 20 ? 1 : 97) {
            assert_true(tokens_of(&config, shapes[i][0], shapes[i][1], 60, limit) <= limit);
        }
        for (int frames = 1; frames < 3000; frames += frames < 20 ? 1 : 131) {
            int tokens = tokens_of(&config, shapes[i][0], shapes[i][1], frames, 0);
            assert_true(tokens <= 768);
            // The clip's budget, which the published rule lets an odd clip overstep by one frame, and a picture of one
            // unit's height altogether.
            assert_true(i >= 4 || (int64_t)tokens * 1024 * (frames - 1) <= config.video.longest_edge);
        }
    }
}

static void flag_replaces_the_other_limits(void **state)
{
    (void)state;
    struct sl_model_config config = published();
    int w, h;
    // Native size: 60 x 34 units.
    assert_int_equal(tokens_of(&config, 1920, 1080, 60, 4000), 2040);
    assert_int_equal(tokens_of(&config, 1920, 1080, 60, 0), 26 * 15); // the clip's budget
    assert_int_equal(tokens_of(&config, 1920, 1080, 4, 0), 36 * 20);  // 768 a pair
    assert_int_equal(sl_vision_picture_size(&config, 192, 128, 60, 100, &w, &h, NULL), SL_OK);
    assert_int_equal(w, 192);
    assert_int_equal(h, 128);
    config.video.cap_pixels_per_frame = 1;
    config.video.max_video_tokens = 100;
    assert_true(tokens_of(&config, 1920, 1080, 4, 0) <= 100);
    assert_int_equal(tokens_of(&config, 1920, 1080, 4, 768), 36 * 20);
}

static void refuses_what_is_no_picture(void **state)
{
    (void)state;
    struct sl_model_config config = published();
    struct sl_error error;
    int w, h;
    assert_int_equal(sl_vision_picture_size(&config, 0, 100, 2, 0, &w, &h, &error), SL_ERR_USAGE);
    assert_int_equal(sl_vision_picture_size(&config, 201 * 32, 32, 2, 0, &w, &h, &error), SL_ERR_USAGE);
    assert_int_equal(sl_vision_picture_size(&config, 32, 201 * 32, 2, 0, &w, &h, &error), SL_ERR_USAGE);
    assert_int_equal(sl_vision_picture_size(&config, 200 * 32, 32, 2, 0, &w, &h, &error), SL_OK);
}

static void shows_square_upright_pixels(void **state)
{
    (void)state;
    static const struct {
        int width, height, sar_num, sar_den, rotation;
        int64_t shown_width, shown_height;
    } rows[] = {
        {720, 576, 16, 15, 0, 768, 576},   {720, 480, 8, 9, 0, 720, 540}, {720, 576, 16, 15, 90, 576, 768},
        {640, 480, 1, 1, 180, 640, 480},   {640, 480, 0, 1, 0, 640, 480}, {640, 480, 1, 0, 270, 480, 640},
        {1440, 1080, 4, 3, 0, 1920, 1080},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sl_frame frame = {.width = rows[i].width,
                                 .height = rows[i].height,
                                 .sar_num = rows[i].sar_num,
                                 .sar_den = rows[i].sar_den,
                                 .rotation = rows[i].rotation};
        int64_t width, height;
        sl_vision_shown_size(&frame, &width, &height);
        assert_int_equal(width, rows[i].shown_width);
        assert_int_equal(height, rows[i].shown_height);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_transformers),   cmocka_unit_test(agrees_with_published_examples),
        cmocka_unit_test(keeps_every_limit),          cmocka_unit_test(flag_replaces_the_other_limits),
        cmocka_unit_test(refuses_what_is_no_picture), cmocka_unit_test(shows_square_upright_pixels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
