// SPDX-License-Identifier: Apache-2.0
// Times: every sample shows the picture whose burnt-in clock says so. What should be shown is worked out here from the
// list of times the clip was made of, by the rule in decode.h and nothing else.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libavutil/log.h>
#include <libavutil/mathematics.h>

#include "decode/decode.h"
#include "tests/support/clipmaker.h"

enum { MANY = 512 };

// What a file is expected to show, in media time.
struct truth {
    int64_t pts_us[MANY];
    int clock[MANY]; // burnt-in number
    int count;
    int64_t end_us;
};

static struct truth truth_of(const struct clip *clip, int64_t origin_ms, int64_t last_length_us)
{
    struct truth truth = {.count = clip->count};
    AVRational base = clip->time_base.num > 0 ? clip->time_base : (AVRational){1, 1000};
    for (int i = 0; i < clip->count; i++) {
        // Rounded down from the start of the media.
        int64_t numerator = clip->pts[i] * base.num * 1000000;
        truth.pts_us[i] = numerator / base.den - (numerator % base.den < 0) - origin_ms * 1000;
        truth.clock[i] = (int)av_rescale_q(clip->pts[i], base, (AVRational){1, 1000}) & 0xffff;
    }
    truth.end_us = truth.pts_us[clip->count - 1] + last_length_us;
    return truth;
}

static int expected_picture(const struct truth *truth, int64_t sample_us)
{
    int shown = 0;
    while (shown + 1 < truth->count && truth->pts_us[shown + 1] <= sample_us) {
        shown++;
    }
    return shown;
}

static struct sl_source *open_clip(const char *path, const struct sl_source_options *options)
{
    struct sl_source *source = NULL;
    struct sl_error error = {0};
    if (sl_source_open(path, options, &source, &error) != SL_OK) {
        fail_msg("%s", error.text);
    }
    return source;
}

// Reads a whole file and checks each sample. Returns the number of holes.
static int check_samples(const char *path, const struct sl_source_options *options, const struct truth *truth)
{
    struct sl_source *source = open_clip(path, options);
    struct sl_error error = {0};
    struct sl_sample sample;
    struct sl_hole hole;
    int status, holes = 0;
    int64_t num = options->fps_num, den = options->fps_den;
    int64_t from_us = options->from_us == SL_NO_TIME ? 0 : options->from_us;
    int64_t to_us = options->to_us == SL_NO_TIME || options->to_us > truth->end_us ? truth->end_us : options->to_us;
    int64_t k = 0;
    while (k * 1000000 * den / num < from_us) {
        k++;
    }
    while ((status = sl_source_next(source, &sample, &error)) == SL_OK) {
        int64_t sample_us = k * 1000000 * den / num;
        assert_int_equal(sample.index, k);
        assert_int_equal(sample.sample_us, sample_us);
        assert_true(sample_us < to_us);
        int picture = expected_picture(truth, sample_us);
        assert_int_equal(sample.frame->pts_us, truth->pts_us[picture]);
        assert_int_equal(clip_read_clock(sample.frame), truth->clock[picture]);
        sl_frame_unref(sample.frame);
        k++;
    }
    assert_int_equal(status, SL_END);
    assert_true(k * 1000000 * den / num >= to_us); // none is missing
    assert_int_equal(sl_source_end_us(source), to_us > from_us ? to_us : from_us);
    assert_int_equal(sl_source_next(source, &sample, &error), SL_END);
    while (sl_source_next_hole(source, &hole)) {
        holes++;
    }
    sl_source_close(source);
    return holes;
}

static struct sl_source_options at_rate(int64_t num, int64_t den)
{
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.fps_num = num;
    options.fps_den = den;
    options.threads = 2;
    return options;
}

static void assert_plain(const struct clip *clip, int64_t origin_ms, int64_t last_length_us)
{
    clip_make(clip);
    struct truth truth = truth_of(clip, origin_ms, last_length_us);
    struct sl_source_options two = at_rate(2, 1);
    assert_int_equal(check_samples(clip->path, &two, &truth), 0);
    struct sl_source_options seven = at_rate(7, 1);
    assert_int_equal(check_samples(clip->path, &seven, &truth), 0);
}

static void constant_rate_in_each_container(void **state)
{
    (void)state;
    int64_t pts[100];
    clip_grid(pts, 100, (AVRational){25, 1}, (AVRational){1, 25});
    static const char *names[] = {"cfr.mp4", "cfr.mkv", "cfr.ts", "cfr.avi", "cfr.mov"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = {.path = clip_path(names[i]), .pts = pts, .count = 100, .time_base = {1, 25}};
        assert_plain(&clip, 0, 40000);
    }
}

static void grids_of_any_rate(void **state)
{
    (void)state;
    int64_t pts[300];
    clip_grid(pts, 300, (AVRational){30000, 1001}, (AVRational){1, 30000});
    struct clip clip = {.path = clip_path("ntsc.mp4"), .pts = pts, .count = 300, .time_base = {1, 30000}};
    clip_make(&clip);
    struct truth truth = truth_of(&clip, 0, 0);
    truth.end_us = INT64_C(300) * 1001 * 1000000 / 30000;
    static const int64_t rates[][2] = {{2, 1}, {1, 3}, {30000, 1001}, {2997, 100}, {60, 1}, {1, 1000}, {24000, 1001}};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct sl_source_options options = at_rate(rates[i][0], rates[i][1]);
        assert_int_equal(check_samples(clip.path, &options, &truth), 0);
    }
    // On its own rate each picture is sampled once.
    for (int i = 0; i < truth.count; i++) {
        assert_int_equal(truth.pts_us[i], (int64_t)i * 1001 * 1000000 / 30000);
    }
}

static const int64_t uneven_ms[] = {0,     40,    80,    333,   334,   1000,  1001,  2499,  2500,  2501,
                                    10501, 10520, 10999, 11000, 12000, 20000, 20040, 20080, 25000, 25500};

static void variable_rate_and_held_pictures(void **state)
{
    (void)state;
    enum { COUNT = sizeof uneven_ms / sizeof uneven_ms[0] };
    static const char *names[] = {"vfr.mp4", "vfr.mkv", "vfr.mov"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = {.path = clip_path(names[i]), .pts = uneven_ms, .count = COUNT, .key_interval = 4};
        assert_plain(&clip, 0, 500000);
    }
}

static void held_picture_is_one_frame(void **state)
{
    (void)state;
    static const int64_t pts[] = {0, 8000, 8100};
    struct clip clip = {.path = clip_path("held.mkv"), .pts = pts, .count = 3};
    clip_make(&clip);
    struct sl_source_options options = at_rate(2, 1);
    struct sl_source *source = open_clip(clip.path, &options);
    struct sl_sample first, next;
    assert_int_equal(sl_source_next(source, &first, NULL), SL_OK);
    for (int k = 1; k < 16; k++) {
        assert_int_equal(sl_source_next(source, &next, NULL), SL_OK);
        assert_ptr_equal(next.frame, first.frame);
        sl_frame_unref(next.frame);
    }
    assert_int_equal(sl_source_next(source, &next, NULL), SL_OK);
    assert_ptr_not_equal(next.frame, first.frame);
    sl_source_close(source); // frames outlive it
    assert_int_equal(clip_read_clock(first.frame), 0);
    assert_int_equal(clip_read_clock(next.frame), 8000);
    sl_frame_unref(first.frame);
    sl_frame_unref(next.frame);
}

static void reordered_pictures(void **state)
{
    (void)state;
    if (!clip_encoder_exists("libx264")) {
        skip();
    }
    int64_t pts[120];
    clip_grid(pts, 120, (AVRational){30, 1}, (AVRational){1, 90000});
    static const char *names[] = {"b.mp4", "b.mkv", "b.ts"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = {.path = clip_path(names[i]),
                            .encoder = "libx264",
                            .pts = pts,
                            .count = 120,
                            .time_base = {1, 90000},
                            .b_frames = 3,
                            .key_interval = 40,
                            .options = "b-pyramid=normal:x264-params=open-gop=1"};
        clip_make(&clip);
        struct truth truth = truth_of(&clip, 0, 0);
        struct sl_source_options options = at_rate(10, 1);
        if (i == 1) { // Matroska rounds to milliseconds, so it says other times, and those are the truth
            for (int p = 0; p < truth.count; p++) {
                truth.pts_us[p] = (pts[p] + 45) / 90 * 1000;
            }
        }
        truth.end_us = 4000000;
        assert_int_equal(check_samples(clip.path, &options, &truth), 0);
        options.from_us = 1433334;
        options.to_us = 3300000;
        assert_int_equal(check_samples(clip.path, &options, &truth), 0);
    }
}

static void edit_list_cuts_the_start(void **state)
{
    (void)state;
    int64_t pts[100];
    for (int i = 0; i < 100; i++) {
        pts[i] = i * 40 - 1000; // the first second is there for decoding only
    }
    struct clip clip = {.path = clip_path("edit.mp4"), .pts = pts, .count = 100, .cut_at_zero = 1, .key_interval = 50};
    clip_make(&clip);
    struct clip kept = clip;
    kept.pts += 25;
    kept.count -= 25;
    struct truth truth = truth_of(&kept, 0, 40000);
    struct sl_source_options options = at_rate(5, 1);
    assert_int_equal(check_samples(clip.path, &options, &truth), 0);
    options.from_us = 300000; // its key picture lies in the part cut away
    assert_int_equal(check_samples(clip.path, &options, &truth), 0);
}

static void start_offset_is_taken_off(void **state)
{
    (void)state;
    int64_t pts[75];
    clip_grid(pts, 75, (AVRational){25, 1}, (AVRational){1, 1000});
    static const char *names[] = {"late.mp4", "late.mkv", "late.ts"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = {.path = clip_path(names[i]), .pts = pts, .count = 75, .shift_ms = 5003};
        assert_plain(&clip, 0, 40000);
        struct sl_source_options options = at_rate(2, 1);
        struct sl_source *source = open_clip(clip.path, &options);
        assert_in_range(sl_source_info(source)->start_time_us, 5003000, 7000000); // MPEG-TS adds its own
        sl_source_close(source);
        struct truth truth = truth_of(&clip, 0, 40000);
        options.from_us = 1700000;
        assert_int_equal(check_samples(clip.path, &options, &truth), 0);
    }
}

static void third_of_a_tick_start_is_exact(void **state)
{
    (void)state;
    // The media starts at 1/3 s, which no count of microseconds can say; grid points must still meet their pictures.
    int64_t pts[60];
    for (int i = 0; i < 60; i++) {
        pts[i] = 1 + i;
    }
    struct clip clip = {.path = clip_path("third.mov"), .pts = pts, .count = 60, .time_base = {1, 3}};
    clip_make(&clip);
    struct truth truth = truth_of(&clip, 0, 0);
    for (int i = 0; i < 60; i++) {
        truth.pts_us[i] = (int64_t)i * 1000000 / 3;
    }
    truth.end_us = 20000000;
    struct sl_source_options options = at_rate(3, 1);
    assert_int_equal(check_samples(clip.path, &options, &truth), 0);
}

static void first_picture_stands_in_before_it_begins(void **state)
{
    (void)state;
    int64_t pts[50];
    clip_grid(pts, 50, (AVRational){25, 1}, (AVRational){1, 1000});
    struct clip clip = {
        .path = clip_path("sound-first.mkv"), .pts = pts, .count = 50, .shift_ms = 2000, .sound_ms = 3000};
    clip_make(&clip);
    struct truth truth = truth_of(&clip, -2000, 40000);
    struct sl_source_options options = at_rate(2, 1);
    assert_int_equal(check_samples(clip.path, &options, &truth), 0);
    options.from_us = 1000000;
    options.to_us = 1500000;
    assert_int_equal(check_samples(clip.path, &options, &truth), 0);
}

static void sound_that_lasts_longer_is_no_loss(void **state)
{
    (void)state;
    int64_t pts[50];
    clip_grid(pts, 50, (AVRational){25, 1}, (AVRational){1, 1000});
    static const char *names[] = {"sound.mkv", "sound.mov"};
    for (size_t i = 0; i < 2; i++) {
        struct clip clip = {.path = clip_path(names[i]), .pts = pts, .count = 50, .sound_ms = 6000};
        assert_plain(&clip, 0, 40000);
    }
}

static void from_and_to_show_what_a_full_run_shows(void **state)
{
    (void)state;
    int64_t pts[250];
    clip_grid(pts, 250, (AVRational){25, 1}, (AVRational){1, 1000});
    static const char *names[] = {"span.mp4", "span.mkv", "span.ts", "span.avi", "span-x264.ts", "span-x264.mkv"};
    uint32_t random = 12345;
    for (size_t i = 0; i < (clip_encoder_exists("libx264") ? 6 : 4); i++) {
        struct clip clip = {.path = clip_path(names[i]),
                            .pts = pts,
                            .count = 250,
                            .key_interval = 30 + 40 * (int)i,
                            .encoder = i >= 4 ? "libx264" : NULL,
                            .b_frames = i >= 4 ? 2 : 0};
        if (i >= 3) {
            clip.time_base = (AVRational){1, 25};
            for (int p = 0; p < 250; p++) {
                pts[p] = p;
            }
        }
        clip_make(&clip);
        struct truth truth = truth_of(&clip, 0, 40000);
        for (int round = 0; round < 12; round++) {
            struct sl_source_options options = at_rate(3, 1);
            random = random * 1664525 + 1013904223;
            options.from_us = random / 512 % 11000000; // sometimes past the end
            random = random * 1664525 + 1013904223;
            options.to_us = options.from_us + 1 + random / 512 % 4000000;
            assert_int_equal(check_samples(clip.path, &options, &truth), 0);
        }
    }
}

// Two MPEG-TS files in one.
static void join_files(const char *first, const char *second, const char *joined)
{
    size_t size[2];
    char *bytes[2] = {clip_read_bytes(first, &size[0]), clip_read_bytes(second, &size[1])};
    bytes[0] = realloc(bytes[0], size[0] + size[1]);
    assert_non_null(bytes[0]);
    memcpy(bytes[0] + size[0], bytes[1], size[1]);
    clip_write_bytes(joined, bytes[0], size[0] + size[1]);
    free(bytes[0]);
    free(bytes[1]);
}

static void size_changes_in_mid_stream(void **state)
{
    (void)state;
    int64_t pts[50];
    clip_grid(pts, 50, (AVRational){25, 1}, (AVRational){1, 25});
    struct clip small = {.path = clip_path("small.ts"),
                         .pts = pts,
                         .count = 50,
                         .time_base = {1, 25},
                         .encoder = "mpeg2video",
                         .shift_ms = 40};
    struct clip large = {.path = clip_path("large.ts"),
                         .pts = pts,
                         .count = 50,
                         .time_base = {1, 25},
                         .encoder = "mpeg2video",
                         .width = 352,
                         .height = 240,
                         .shift_ms = 2040};
    const char *both = clip_path("both.ts");
    clip_make(&small);
    clip_make(&large);
    join_files(small.path, large.path, both);
    struct sl_source_options options = at_rate(2, 1);
    struct sl_source *source = open_clip(both, &options);
    struct sl_sample sample;
    for (int k = 0; k < 8; k++) {
        assert_int_equal(sl_source_next(source, &sample, NULL), SL_OK);
        assert_int_equal(sample.frame->width, k < 4 ? 192 : 352);
        int clock = clip_read_clock(sample.frame);
        assert_int_equal(clock, sample.frame->pts_us / 1000 % 2000);
        assert_in_range(sample.sample_us - sample.frame->pts_us, 0, 39999);
        sl_frame_unref(sample.frame);
    }
    assert_int_equal(sl_source_next(source, &sample, NULL), SL_END);
    sl_source_close(source);
}

static void count_note(void *ctx, const char *text)
{
    assert_true(text[0] != 0);
    (*(int *)ctx)++;
}

static void clock_that_restarts_goes_on(void **state)
{
    (void)state;
    int64_t pts[100];
    clip_grid(pts, 100, (AVRational){25, 1}, (AVRational){1, 25});
    struct clip part = {
        .path = clip_path("part.ts"), .pts = pts, .count = 100, .time_base = {1, 25}, .encoder = "mpeg2video"};
    const char *twice = clip_path("twice.ts");
    clip_make(&part);
    join_files(part.path, part.path, twice);
    struct sl_source_options options = at_rate(2, 1);
    int notes = 0;
    options.note = count_note;
    options.ctx = &notes;
    struct sl_source *source = open_clip(twice, &options);
    struct sl_sample sample;
    for (int k = 0; k < 16; k++) {
        assert_int_equal(sl_source_next(source, &sample, NULL), SL_OK);
        // The first picture after the restart is dropped in doubt; there the one before is still on screen.
        if (k != 8) {
            assert_int_equal(clip_read_clock(sample.frame), k % 8 * 500 / 40 * 40);
            assert_in_range(sample.sample_us - sample.frame->pts_us, 0, 39999);
        }
        sl_frame_unref(sample.frame);
    }
    assert_int_equal(sl_source_next(source, &sample, NULL), SL_END);
    assert_int_equal(sl_source_end_us(source), 8000000);
    assert_true(notes > 0);
    sl_source_close(source);
}

static void silence_in_a_broadcast_is_a_hole(void **state)
{
    (void)state;
    int64_t pts[100];
    for (int i = 0; i < 100; i++) {
        pts[i] = i * 40 + (i >= 50 ? 15000 : 0);
    }
    struct clip clip = {.path = clip_path("gap.ts"), .pts = pts, .count = 100};
    clip_make(&clip);
    struct sl_source_options options = at_rate(2, 1);
    struct sl_source *source = open_clip(clip.path, &options);
    struct truth truth = truth_of(&clip, 0, 40000);
    struct sl_sample sample;
    struct sl_hole hole = {0};
    int holes = 0;
    while (sl_source_next(source, &sample, NULL) == SL_OK) {
        int picture = expected_picture(&truth, sample.sample_us);
        assert_int_equal(clip_read_clock(sample.frame), truth.clock[picture]);
        sl_frame_unref(sample.frame);
        holes += sl_source_next_hole(source, &hole);
        assert_int_equal(holes, sample.sample_us >= 2000000); // known before the first sample inside
    }
    assert_int_equal(holes, 1);
    assert_int_equal(hole.start_us, 2000000);
    assert_int_equal(hole.end_us, 17000000);
    sl_source_close(source);
}

// Rewrites the time of one block of a Matroska file (one cluster, so times in blocks are those of the media).
static void patch_block_time(const char *path, int from_ms, int to_ms)
{
    size_t size;
    unsigned char *bytes = clip_read_bytes(path, &size);
    int found = 0;
    for (size_t i = 8; i + 4 < size; i++) {
        // Track 1, time, flags (key picture or not), after a SimpleBlock's id and a size of 1 to 4 bytes.
        int is_time = bytes[i] == 0x81 && bytes[i + 1] == from_ms >> 8 && bytes[i + 2] == (from_ms & 0xff) &&
                      (bytes[i + 3] & 0x7f) == 0;
        int is_block = bytes[i - 2] == 0xa3 || bytes[i - 3] == 0xa3 || bytes[i - 4] == 0xa3 || bytes[i - 5] == 0xa3;
        if (is_time && is_block) {
            bytes[i + 1] = (unsigned char)(to_ms >> 8);
            bytes[i + 2] = (unsigned char)(to_ms & 0xff);
            found++;
        }
    }
    assert_int_equal(found, 1);
    clip_write_bytes(path, bytes, size);
    free(bytes);
}

static void time_that_goes_back_is_left_out(void **state)
{
    (void)state;
    int64_t pts[100];
    clip_grid(pts, 100, (AVRational){25, 1}, (AVRational){1, 1000});
    struct clip clip = {.path = clip_path("back.mkv"), .pts = pts, .count = 100, .key_interval = 200};
    clip_make(&clip);
    patch_block_time(clip.path, 2000, 1210);
    struct truth truth = truth_of(&clip, 0, 40000);
    for (int i = 50; i + 1 < truth.count; i++) { // picture 50 is gone, the one before stays
        truth.pts_us[i] = truth.pts_us[i + 1];
        truth.clock[i] = truth.clock[i + 1];
    }
    truth.count--;
    struct sl_source_options options = at_rate(25, 1);
    int notes = 0;
    options.note = count_note;
    options.ctx = &notes;
    check_samples(clip.path, &options, &truth);
    assert_int_equal(notes, 1);
}

static void one_broken_time_ahead_spoils_nothing_else(void **state)
{
    (void)state;
    int64_t pts[100];
    clip_grid(pts, 100, (AVRational){25, 1}, (AVRational){1, 1000});
    struct clip clip = {.path = clip_path("ahead.mkv"), .pts = pts, .count = 100, .key_interval = 200};
    clip_make(&clip);
    patch_block_time(clip.path, 2000, 31000);
    struct truth truth = truth_of(&clip, 0, 40000);
    for (int i = 50; i + 1 < truth.count; i++) {
        truth.pts_us[i] = truth.pts_us[i + 1];
        truth.clock[i] = truth.clock[i + 1];
    }
    truth.count--;
    struct sl_source_options options = at_rate(25, 1);
    check_samples(clip.path, &options, &truth);
}

static void says_what_the_container_says(void **state)
{
    (void)state;
    int64_t pts[50];
    clip_grid(pts, 50, (AVRational){25, 1}, (AVRational){1, 25});
    struct clip clip = {
        .path = clip_path("info.mp4"), .pts = pts, .count = 50, .time_base = {1, 25}, .sample_aspect = {4, 3}};
    clip_make(&clip);
    struct sl_source_options options = at_rate(2, 1);
    struct sl_source *source = open_clip(clip.path, &options);
    const struct sl_source_info *info = sl_source_info(source);
    assert_non_null(strstr(info->container, "mp4"));
    assert_string_equal(info->codec, "mpeg4");
    assert_string_equal(info->pixel_format, "yuv420p");
    assert_int_equal(info->width, 192);
    assert_int_equal(info->height, 128);
    assert_int_equal(info->sar_num * 3, info->sar_den * 4);
    assert_int_equal(info->start_time_us, 0);
    assert_int_equal(info->duration_us, 2000000);
    assert_int_equal(info->duration_is_estimate, 0);
    assert_int_equal(info->rate_num, 25 * info->rate_den);
    assert_true(info->bit_rate > 0);
    assert_int_equal(info->created_us, SL_NO_TIME);
    assert_int_equal(sl_source_end_us(source), SL_NO_TIME);
    sl_source_close(source);
    sl_source_close(NULL);
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
        cmocka_unit_test(constant_rate_in_each_container),
        cmocka_unit_test(grids_of_any_rate),
        cmocka_unit_test(variable_rate_and_held_pictures),
        cmocka_unit_test(held_picture_is_one_frame),
        cmocka_unit_test(reordered_pictures),
        cmocka_unit_test(edit_list_cuts_the_start),
        cmocka_unit_test(start_offset_is_taken_off),
        cmocka_unit_test(third_of_a_tick_start_is_exact),
        cmocka_unit_test(first_picture_stands_in_before_it_begins),
        cmocka_unit_test(sound_that_lasts_longer_is_no_loss),
        cmocka_unit_test(from_and_to_show_what_a_full_run_shows),
        cmocka_unit_test(size_changes_in_mid_stream),
        cmocka_unit_test(clock_that_restarts_goes_on),
        cmocka_unit_test(silence_in_a_broadcast_is_a_hole),
        cmocka_unit_test(time_that_goes_back_is_left_out),
        cmocka_unit_test(one_broken_time_ahead_spoils_nothing_else),
        cmocka_unit_test(says_what_the_container_says),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
