// SPDX-License-Identifier: Apache-2.0
// Lanes give what one session gives: every sample with its times and its pixels, every hole and when it is known,
// notes, counts and the end; for sound files, with and without skipping, and for all that makes lanes hand over. That
// one session is right is test_decode's and test_decode_faults' to say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libavutil/log.h>

#include "decode/decode.h"
#include "decode/lanes.h"
#include "decode/session.h"
#include "tests/support/clipmaker.h"

enum { PICTURES = 750, MANY = 4000, MANY_HOLES = 256 };

static int64_t ticks[PICTURES]; // 25 a second, in 1/25 s

// What a source gave, from open to close.
struct reading {
    int status; // of the last call
    int samples;
    struct {
        int64_t index, sample_us, pts_us;
        uint64_t pixels;
    } sample[MANY];
    int holes;
    struct sl_hole hole[MANY_HOLES];
    int hole_at[MANY_HOLES]; // number of samples handed out when it came
    char notes[4000];
    struct sl_source_counts counts;
    int64_t end_us;
};

static void take_note(void *ctx, const char *text)
{
    struct reading *r = ctx;
    size_t used = strlen(r->notes);
    snprintf(r->notes + used, sizeof r->notes - used, "%s\n", text);
}

static uint64_t hash_lines(uint64_t hash, const uint8_t *plane, int64_t pitch, int bytes, int lines)
{
    for (int y = 0; y < lines; y++) {
        for (int x = 0; x < bytes; x += 8) { // eight at a time: sanitizers look at every access
            uint64_t word = 0;
            memcpy(&word, plane + y * pitch + x, (size_t)(bytes - x < 8 ? bytes - x : 8));
            hash = (hash ^ word) * UINT64_C(1099511628211);
            hash ^= hash >> 29;
        }
    }
    return hash;
}

// All that a frame says, but for its times.
static uint64_t hash_frame(const struct sl_frame *f)
{
    int what[] = {f->width,          f->height,      (int)f->layout, f->bit_depth,   f->msb_shift, f->rotation,
                  (int)f->transfer,  (int)f->matrix, (int)f->range,  (int)f->siting, f->mirrored,  f->chroma_shift_x,
                  f->chroma_shift_y, f->sar_num,     f->sar_den,     (int)f->memory};
    uint64_t hash = hash_lines(UINT64_C(14695981039346656037), (const uint8_t *)what, 0, sizeof what, 1);
    int bytes = f->bit_depth > 8 ? 2 : 1;
    int packed = f->layout == SL_LAYOUT_RGB_PACKED ? 3 : 1;
    for (int i = 0; i < 3 && f->plane[i] != NULL; i++) {
        int width = i > 0 ? -((-f->width) >> f->chroma_shift_x) : f->width;
        int lines = i > 0 ? -((-f->height) >> f->chroma_shift_y) : f->height;
        hash = hash_lines(hash, f->plane[i], f->pitch[i], width * bytes * packed, lines);
    }
    return hash;
}

static void take_holes(struct sl_source *source, struct reading *r)
{
    while (r->holes < MANY_HOLES && sl_source_next_hole(source, &r->hole[r->holes])) {
        r->hole_at[r->holes++] = r->samples;
    }
}

// An odd number of lanes is one, and the others beside it.
static struct reading *read_all(const char *path, struct sl_source_options options, int lanes, int skip)
{
    struct reading *r = calloc(1, sizeof *r);
    assert_non_null(r);
    options.cpu_lanes = lanes % 2 == 1 ? lanes - 1 : 0;
    options.lanes = lanes - options.cpu_lanes;
    options.skip_unneeded = skip;
    options.threads = 1;
    options.note = take_note;
    options.ctx = r;
    r->end_us = SL_NO_TIME;
    struct sl_source *source = NULL;
    r->status = sl_source_open(path, &options, &source, NULL);
    while (r->status == SL_OK && r->samples < MANY) {
        struct sl_sample sample;
        r->status = sl_source_next(source, &sample, NULL);
        take_holes(source, r);
        if (r->status == SL_OK) {
            r->sample[r->samples].index = sample.index;
            r->sample[r->samples].sample_us = sample.sample_us;
            r->sample[r->samples].pts_us = sample.frame->pts_us;
            r->sample[r->samples].pixels = hash_frame(sample.frame);
            r->samples++;
            sl_frame_unref(sample.frame);
        }
    }
    if (source != NULL) {
        r->counts = sl_source_counts(source);
        r->end_us = sl_source_end_us(source);
    }
    sl_source_close(source);
    return r;
}

static void assert_same_samples(const struct reading *one, const struct reading *many, const char *path, int lanes)
{
    if (one->status != many->status || one->samples != many->samples || one->end_us != many->end_us) {
        fail_msg("%s, %d lanes: status %d, %d samples, end %lld instead of %d, %d, %lld", path, lanes, many->status,
                 many->samples, (long long)many->end_us, one->status, one->samples, (long long)one->end_us);
    }
    for (int i = 0; i < one->samples; i++) {
        if (memcmp(&one->sample[i], &many->sample[i], sizeof one->sample[i]) != 0) {
            fail_msg("%s, %d lanes, sample %d: shows %lld (%llx) instead of %lld (%llx)", path, lanes, i,
                     (long long)many->sample[i].pts_us, (unsigned long long)many->sample[i].pixels,
                     (long long)one->sample[i].pts_us, (unsigned long long)one->sample[i].pixels);
        }
    }
}

static void assert_same(const struct reading *one, const struct reading *many, const char *path, int lanes)
{
    assert_same_samples(one, many, path, lanes);
    assert_int_equal(one->holes, many->holes);
    for (int i = 0; i < one->holes; i++) {
        assert_int_equal(one->hole[i].start_us, many->hole[i].start_us);
        assert_int_equal(one->hole[i].end_us, many->hole[i].end_us);
        assert_string_equal(one->hole[i].cause, many->hole[i].cause);
        assert_int_equal(one->hole_at[i], many->hole_at[i]);
    }
    assert_string_equal(one->notes, many->notes);
    assert_int_equal(one->counts.decoded, many->counts.decoded);
    assert_int_equal(one->counts.undated, many->counts.undated);
    assert_int_equal(one->counts.backward, many->counts.backward);
    assert_int_equal(one->counts.damaged, many->counts.damaged);
}

static int is_in_hole(const struct reading *r, int64_t us)
{
    for (int i = 0; i < r->holes; i++) {
        if (us >= r->hole[i].start_us && us < r->hole[i].end_us) {
            return 1;
        }
    }
    return 0;
}

// Damage of what was skipped is not seen; but what is said is true, and the samples are the same.
static void assert_same_but_for_skipped(const struct reading *one, const struct reading *many, const char *path,
                                        int lanes)
{
    assert_same_samples(one, many, path, lanes);
    for (int i = 0; i < many->holes; i++) {
        for (int64_t us = many->hole[i].start_us; us < many->hole[i].end_us; us += 20000) {
            assert_true(is_in_hole(one, us));
        }
    }
    if (one->holes == 0) {
        assert_string_equal(one->notes, many->notes);
    }
}

static struct sl_source_options at_rate(int64_t num, int64_t den)
{
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.fps_num = num;
    options.fps_den = den;
    return options;
}

static void check_way(const char *path, const struct sl_source_options *options, const struct reading *one, int lanes,
                      int skip)
{
    struct reading *many = read_all(path, *options, lanes, skip);
    (skip ? assert_same_but_for_skipped : assert_same)(one, many, path, lanes);
    free(many);
}

// Not every number of lanes at every span: this takes long enough.
static void check_span(const char *path, const struct sl_source_options *options)
{
    static const int lanes[] = {2, 3, 5}, lanes_that_skip[] = {3, 1};
    static int turn;
    struct reading *one = read_all(path, *options, 1, 0);
    assert_int_equal(one->counts.skipped, 0);
    check_way(path, options, one, lanes[turn % 3], 0);
    check_way(path, options, one, lanes_that_skip[turn % 2], 1);
    turn++;
    free(one);
}

static void check_file(const char *path)
{
    static const struct {
        int64_t num, den, from_us, to_us;
    } spans[] = {
        {2, 1, SL_NO_TIME, SL_NO_TIME}, {25, 1, SL_NO_TIME, SL_NO_TIME}, {25, 1, 7300000, 19900000},
        {7, 1, 3333333, SL_NO_TIME},    {1, 4, SL_NO_TIME, 26000000},
    };
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        struct sl_source_options options = at_rate(spans[i].num, spans[i].den);
        options.from_us = spans[i].from_us;
        options.to_us = spans[i].to_us;
        check_span(path, &options);
    }
}

// How many samples come from lanes before they end or hand over; *turn says which; SL_OK, or -1 if there are none.
static int samples_of_lanes(const char *path, int64_t fps, int skip, enum sl_lanes_turn *turn)
{
    struct sl_source_options options = at_rate(fps, 1);
    options.threads = 1;
    options.lanes = 3;
    options.skip_unneeded = skip;
    struct sl_session session = {0};
    struct sl_lanes *lanes = NULL;
    int samples = -1;
    assert_int_equal(sl_session_open(&session, path, &options, 0, NULL), SL_OK);
    sl_session_read_index(&session);
    assert_int_equal(sl_lanes_start(path, &options, &session.input, &lanes, NULL), SL_OK);
    if (lanes != NULL) {
        struct sl_lanes_sample sample;
        do {
            samples++;
            assert_int_equal(sl_lanes_next(lanes, turn, &sample, NULL), SL_OK);
        } while (*turn == SL_LANES_SAMPLE);
    }
    sl_lanes_stop(lanes);
    sl_session_close(&session);
    return samples;
}

// Sound files must not be handed over, or lanes would be of no use.
static void assert_lanes_do_it(const char *path)
{
    for (int skip = 0; skip < 2; skip++) {
        enum sl_lanes_turn turn = SL_LANES_SAMPLE;
        int samples = samples_of_lanes(path, 2, skip, &turn);
        if (samples <= 0 || turn != SL_LANES_END) {
            fail_msg("%s: %s after %d samples", path, samples < 0 ? "no lanes" : "handed over", samples);
        }
    }
}

static void assert_lanes_hand_over(const char *path)
{
    enum sl_lanes_turn turn = SL_LANES_SAMPLE;
    (void)samples_of_lanes(path, 25, 0, &turn);
    assert_int_equal(turn, SL_LANES_HAND_OVER);
}

// At one sample in two seconds hardly any picture is shown: those that no other refers to are left out.
static void assert_some_are_skipped(const char *path, int can_tell)
{
    struct sl_source_options options = at_rate(1, 2);
    struct reading *r = read_all(path, options, 2, 1);
    assert_int_equal(r->status, SL_END);
    if (r->counts.skipped < (can_tell ? PICTURES / 4 : 0) || (!can_tell && r->counts.skipped > 0)) {
        fail_msg("%s: %lld pictures skipped", path, (long long)r->counts.skipped);
    }
    free(r);
}

static struct clip plain_clip(const char *name)
{
    return (struct clip){
        .path = clip_path(name), .pts = ticks, .count = PICTURES, .time_base = {1, 25}, .key_interval = 30};
}

static void constant_rate(void **state)
{
    (void)state;
    static const char *names[] = {"cfr.mp4", "cfr.mkv", "cfr.mov", "cfr.avi"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = plain_clip(names[i]);
        clip_make(&clip);
        check_file(clip.path);
        assert_lanes_do_it(clip.path);
    }
}

static void reordered_pictures(void **state)
{
    (void)state;
    static const struct {
        const char *name, *encoder, *options;
        int b_frames, key_interval;
    } kinds[] = {
        {"b.mp4", "libx264", "b-pyramid=normal:x264-params=open-gop=1", 3, 40},
        {"b.mkv", "libx264", "b-pyramid=normal:x264-params=open-gop=1", 3, 40},
        {"closed.mp4", "libx264", "b-pyramid=normal", 8, 33},
        {"b.mov", "mpeg2video", "", 2, 15},
        {"h.mp4", "libx265", "preset=ultrafast:x265-params=log-level=none", 4, 40},
        {"v.mkv", "libvpx-vp9", "deadline=realtime:cpu-used=8:lag-in-frames=12:auto-alt-ref=1", 0, 50},
        {"plain.mkv", "libx264", "preset=ultrafast", 1, 24},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!clip_encoder_exists(kinds[i].encoder)) {
            continue;
        }
        struct clip clip = plain_clip(kinds[i].name);
        clip.encoder = kinds[i].encoder;
        clip.options = kinds[i].options;
        clip.b_frames = kinds[i].b_frames;
        clip.key_interval = kinds[i].key_interval;
        clip_make(&clip);
        check_file(clip.path);
        assert_lanes_do_it(clip.path);
        assert_some_are_skipped(clip.path,
                                strcmp(kinds[i].encoder, "libx264") == 0 || strcmp(kinds[i].encoder, "libx265") == 0);
    }
}

static void variable_rate_and_held_pictures(void **state)
{
    (void)state;
    int64_t pts[200];
    uint32_t random = 5;
    pts[0] = 0;
    for (int i = 1; i < 200; i++) {
        random = random * 1664525 + 1013904223;
        pts[i] = pts[i - 1] + 1 + (random >> 8) % 300 + (i % 50 == 0 ? 14000 : 0);
    }
    static const char *names[] = {"vfr.mp4", "vfr.mkv"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = {.path = clip_path(names[i]), .pts = pts, .count = 200, .key_interval = 10};
        clip_make(&clip);
        check_file(clip.path);
        assert_lanes_do_it(clip.path);
    }
}

static void starts_of_all_kinds(void **state)
{
    (void)state;
    int64_t early[PICTURES];
    for (int i = 0; i < PICTURES; i++) {
        early[i] = i * 40 - 1000; // the first second is cut away
    }
    struct clip edit = plain_clip("edit.mp4");
    edit.pts = early;
    edit.time_base = (AVRational){1, 1000};
    edit.cut_at_zero = 1;
    struct clip late = plain_clip("late.mp4");
    late.shift_ms = 5003;
    struct clip sound = plain_clip("sound-first.mkv");
    sound.shift_ms = 2000;
    sound.sound_ms = 40000;
    struct clip third = plain_clip("third.mov");
    third.time_base = (AVRational){1, 27};
    third.shift_ms = 333;
    struct clip *clips[] = {&edit, &late, &sound, &third};
    for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
        clip_make(clips[i]);
        check_file(clips[i]->path);
        assert_lanes_do_it(clips[i]->path);
    }
}

static void turned_interlaced_and_converted(void **state)
{
    (void)state;
    struct clip turned = plain_clip("turned.mp4");
    turned.turn[1] = 1;
    turned.turn[2] = -1;
    struct clip fields = plain_clip("fields.mov");
    fields.encoder = "mpeg2video";
    fields.interlaced = 1;
    struct clip palette = plain_clip("bgr.mkv");
    palette.encoder = "png";
    palette.pixel_format = AV_PIX_FMT_RGBA;
    struct clip *clips[] = {&turned, &fields, &palette};
    for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
        clip_make(clips[i]);
        check_file(clips[i]->path);
        assert_lanes_do_it(clips[i]->path);
    }
}

static void what_cannot_be_cut_is_read_as_before(void **state)
{
    (void)state;
    static const char *names[] = {"whole.ts", "fragments.mp4", "one-key.mp4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = plain_clip(names[i]);
        clip.muxer_options = i == 1 ? "movflags=frag_keyframe+empty_moov" : NULL;
        clip.key_interval = i == 2 ? PICTURES : 30;
        clip.encoder = i == 2 && clip_encoder_exists("libx264") ? "libx264" : NULL;
        clip_make(&clip);
        check_file(clip.path);
    }
}

// A key picture that needs pictures before it: its part must not be trusted.
static void refreshed_bit_by_bit(void **state)
{
    (void)state;
    if (!clip_encoder_exists("libx264")) {
        print_message("this FFmpeg has no libx264\n");
        skip();
    }
    struct clip clip = plain_clip("refresh.mkv");
    clip.encoder = "libx264";
    clip.options = "x264-params=intra-refresh=1";
    clip_make(&clip);
    check_file(clip.path);
}

static void cut_files(void **state)
{
    (void)state;
    static const char *names[] = {"w.mp4", "w.mkv", "x.mp4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = plain_clip(names[i]);
        clip.muxer_options = i != 1 ? "movflags=faststart" : NULL;
        if (i == 2 && clip_encoder_exists("libx264")) {
            clip.encoder = "libx264";
            clip.b_frames = 3;
        }
        clip_make(&clip);
        size_t size;
        void *bytes = clip_read_bytes(clip.path, &size);
        for (int part = 3; part < 10; part += 2) {
            char name[32];
            snprintf(name, sizeof name, "cut-%s", names[i]);
            clip_write_bytes(clip_path(name), bytes, size * (size_t)part / 10);
            check_file(clip_path(name));
        }
        free(bytes);
    }
}

static void damaged_files(void **state)
{
    (void)state;
    static const char *names[] = {"n.mp4", "n.mkv", "m.mp4", "m.mkv", "n.avi"};
    uint32_t random = 4711;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = plain_clip(names[i]);
        if (names[i][0] == 'm' && clip_encoder_exists("libx264")) {
            clip.encoder = "libx264";
            clip.b_frames = 3;
            clip.options = "x264-params=open-gop=1";
        }
        clip_make(&clip);
        size_t size;
        unsigned char *bytes = clip_read_bytes(clip.path, &size);
        for (int round = 0; round < 8; round++) {
            for (int hit = 0; hit < 2; hit++) { // damage piles up from round to round
                random = random * 1664525 + 1013904223;
                bytes[(random >> 4) % size] ^= (unsigned char)(1u << (random & 7));
            }
            char name[32];
            snprintf(name, sizeof name, "noise-%s", names[i]);
            clip_write_bytes(clip_path(name), bytes, size);
            struct sl_source_options options = at_rate(25, 1);
            check_span(clip_path(name), &options);
            options = at_rate(2, 1);
            options.from_us = 4400000;
            check_span(clip_path(name), &options);
        }
        free(bytes);
    }
}

// Blanks a stretch of the file; what lies there cannot be decoded.
static void lost_stretch_hands_over(void **state)
{
    (void)state;
    static const char *names[] = {"lost.mp4", "lost.mkv"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct clip clip = plain_clip(names[i]);
        clip_make(&clip);
        size_t size;
        unsigned char *bytes = clip_read_bytes(clip.path, &size);
        memset(bytes + size / 2, 0, size / 50);
        clip_write_bytes(clip.path, bytes, size);
        free(bytes);
        check_file(clip.path);
        assert_lanes_hand_over(clip.path);
    }
}

static void time_that_goes_back_hands_over(void **state)
{
    (void)state;
    int64_t pts[PICTURES];
    for (int i = 0; i < PICTURES; i++) {
        pts[i] = i * 40;
    }
    struct clip clip = plain_clip("back.mkv");
    clip.pts = pts;
    clip.time_base = (AVRational){1, 1000};
    clip_make(&clip);
    size_t size;
    unsigned char *bytes = clip_read_bytes(clip.path, &size);
    int moved = 0;
    for (size_t i = 0; i + 4 < size && moved < 3; i++) {
        // Track 1, a time of some seconds in its cluster, flags of a picture that is no key picture.
        if (i > size / 3 && bytes[i] == 0x81 && bytes[i + 1] >= 4 && bytes[i + 1] < 18 && bytes[i + 3] == 0 &&
            (bytes[i - 3] == 0xa3 || bytes[i - 4] == 0xa3)) {
            bytes[i + 1] = (unsigned char)(bytes[i + 1] - 3);
            moved++;
        }
    }
    assert_int_equal(moved, 3);
    clip_write_bytes(clip.path, bytes, size);
    free(bytes);
    check_file(clip.path);
    assert_lanes_hand_over(clip.path);
}

// --- stopping ---

static int after_some_calls(void *ctx)
{
    int *left = ctx;
    return --*left < 0;
}

static void caller_can_stop_it(void **state)
{
    (void)state;
    struct clip clip = plain_clip("stop.mp4");
    clip_make(&clip);
    struct sl_source_options options = at_rate(25, 1);
    options.lanes = 3;
    options.interrupted = after_some_calls;
    int stopped = 0;
    for (int calls = 0; calls < 900; calls += 1 + calls / 10) {
        int left = calls;
        options.ctx = &left;
        struct sl_source *source = NULL;
        struct sl_error error = {0};
        int status = sl_source_open(clip.path, &options, &source, &error);
        struct sl_sample sample;
        while (status == SL_OK) {
            status = sl_source_next(source, &sample, &error);
            sl_frame_unref(sample.frame);
        }
        if (status != SL_ERR_INTERRUPTED && status != SL_END) {
            fail_msg("after %d calls: status %d: %s", calls, status, error.text);
        }
        stopped += status < 0;
        if (source != NULL && status < 0) { // an error stays
            assert_int_equal(sl_source_next(source, &sample, &error), status);
        }
        sl_source_close(source);
    }
    assert_true(stopped > 10);
}

static void closed_at_any_moment(void **state)
{
    (void)state;
    struct clip clip = plain_clip("close.mkv");
    clip_make(&clip);
    struct sl_source_options options = at_rate(25, 1);
    options.lanes = 4;
    for (int samples = 0; samples < 700; samples = 1 + 3 * samples) {
        struct sl_source *source = NULL;
        struct sl_sample sample = {0}, kept = {0};
        assert_int_equal(sl_source_open(clip.path, &options, &source, NULL), SL_OK);
        for (int i = 0; i < samples; i++) {
            sl_frame_unref(kept.frame);
            assert_int_equal(sl_source_next(source, &sample, NULL), SL_OK);
            kept = sample;
        }
        sl_source_close(source);
        if (kept.frame != NULL) { // frames outlive it
            assert_int_equal(clip_read_clock(kept.frame), kept.frame->pts_us / 1000);
        }
        sl_frame_unref(kept.frame);
    }
}

static void impossible_lanes(void **state)
{
    (void)state;
    struct sl_source *source = NULL;
    struct sl_source_options options = at_rate(2, 1);
    options.lanes = -1;
    assert_int_equal(sl_source_open("x", &options, &source, NULL), SL_ERR_USAGE);
    options.lanes = SL_LANES_MAX + 1;
    assert_int_equal(sl_source_open("x", &options, &source, NULL), SL_ERR_USAGE);
}

static int make_folder(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    for (int i = 0; i < PICTURES; i++) {
        ticks[i] = i;
    }
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
        cmocka_unit_test(constant_rate),
        cmocka_unit_test(reordered_pictures),
        cmocka_unit_test(variable_rate_and_held_pictures),
        cmocka_unit_test(starts_of_all_kinds),
        cmocka_unit_test(turned_interlaced_and_converted),
        cmocka_unit_test(what_cannot_be_cut_is_read_as_before),
        cmocka_unit_test(refreshed_bit_by_bit),
        cmocka_unit_test(cut_files),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(lost_stretch_hands_over),
        cmocka_unit_test(time_that_goes_back_hands_over),
        cmocka_unit_test(caller_can_stop_it),
        cmocka_unit_test(closed_at_any_moment),
        cmocka_unit_test(impossible_lanes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
