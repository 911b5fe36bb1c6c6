// SPDX-License-Identifier: Apache-2.0
// Bad input: each cause has its own status; cut and damaged files give what they have, with true times, and name the
// rest.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <libavformat/avformat.h>
#include <libavutil/log.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "decode/decode.h"
#include "decode/holes.h"
#include "tests/support/clipmaker.h"

enum { PICTURES = 100, MANY = 256 };

static int64_t grid_ms[PICTURES]; // 25 pictures a second

static void assert_cannot_open(const char *path, enum sl_status expected)
{
    struct sl_source_options options;
    sl_source_defaults(&options);
    struct sl_source *source = (struct sl_source *)&options;
    struct sl_error error = {0};
    int status = sl_source_open(path, &options, &source, &error);
    if (status != (int)expected) {
        fail_msg("%s: status %d instead of %d: %s", path, status, expected, error.text);
    }
    assert_null(source);
    assert_int_equal(error.status, expected);
    assert_non_null(strstr(error.text, path));
    assert_null(strchr(error.text, '\n'));
    assert_int_equal(sl_source_open(path, &options, &source, NULL), expected);
}

static void each_cause_has_its_status(void **state)
{
    (void)state;
    static const char prose[] = "1\n00:00:00,000 --> \nThis is a letter, not a film.\n";
    assert_cannot_open(clip_path("missing.mp4"), SL_ERR_OPEN);
    assert_cannot_open(clip_path(""), SL_ERR_OPEN); // the folder
    clip_write_bytes(clip_path("empty.mp4"), "", 0);
    assert_cannot_open(clip_path("empty.mp4"), SL_ERR_EMPTY);
    static const char *names[] = {"prose.txt", "prose.mp4", "prose"};
    for (size_t i = 0; i < 3; i++) {
        clip_write_bytes(clip_path(names[i]), prose, sizeof prose - 1);
        assert_cannot_open(clip_path(names[i]), SL_ERR_NOT_VIDEO);
    }
    unsigned char noise[4096];
    uint32_t random = 99;
    for (size_t i = 0; i < sizeof noise; i++) {
        random = random * 1664525 + 1013904223;
        noise[i] = (unsigned char)(random >> 24);
    }
    clip_write_bytes(clip_path("noise.mkv"), noise, sizeof noise);
    assert_cannot_open(clip_path("noise.mkv"), SL_ERR_NOT_VIDEO);
    clip_make_sound(clip_path("sound.mkv"), 1000);
    assert_cannot_open(clip_path("sound.mkv"), SL_ERR_NO_VIDEO);
    assert_cannot_open("scenelog-has-no-such-protocol://x", SL_ERR_OPEN);
}

static void unreadable_file(void **state)
{
    (void)state;
    if (geteuid() == 0) {
        skip(); // root reads everything
    }
    clip_write_bytes(clip_path("secret.mp4"), "secret", 6);
    assert_int_equal(chmod(clip_path("secret.mp4"), 0), 0);
    assert_cannot_open(clip_path("secret.mp4"), SL_ERR_OPEN);
}

static void odd_names_are_files(void **state)
{
    (void)state;
    static const char *names[] = {"rtsp:x.mkv", "a%03d b?c.mkv", "pipe:0.mkv"};
    int64_t pts[2] = {0, 40};
    char back[512];
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(clip_path("")), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        clip_make(&(struct clip){.path = "plain.mkv", .pts = pts, .count = 2});
        assert_int_equal(rename("plain.mkv", names[i]), 0);
        struct sl_source_options options;
        sl_source_defaults(&options);
        struct sl_source *source = NULL;
        assert_int_equal(sl_source_open(names[i], &options, &source, NULL), SL_OK);
        sl_source_close(source);
    }
    assert_int_equal(chdir(back), 0);
}

static void impossible_options(void **state)
{
    (void)state;
    static const int64_t bad[][4] = {
        {0, 1, 0, 1}, {1, 0, 0, 1}, {-2, 1, 0, 1}, {2000000, 1, 0, 1}, {2, 1, 5, 5}, {2, 1, 6, 5},
    };
    struct sl_source *source = NULL;
    struct sl_source_options options;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sl_source_defaults(&options);
        options.fps_num = bad[i][0];
        options.fps_den = bad[i][1];
        options.from_us = bad[i][2];
        options.to_us = bad[i][3];
        assert_int_equal(sl_source_open("x", &options, &source, NULL), SL_ERR_USAGE);
    }
    sl_source_defaults(&options);
    options.threads = -1;
    assert_int_equal(sl_source_open("x", &options, &source, NULL), SL_ERR_USAGE);
}

static void cover_picture_is_no_video(void **state)
{
    (void)state;
    struct clip clip = {.path = clip_path("cover.mp4"), .pts = grid_ms, .count = PICTURES, .cover = 1};
    clip_make(&clip);
    struct sl_source_options options;
    sl_source_defaults(&options);
    struct sl_source *source = NULL;
    assert_int_equal(sl_source_open(clip.path, &options, &source, NULL), SL_OK);
    assert_string_equal(sl_source_info(source)->codec, "mpeg4");
    sl_source_close(source);
    clip_make(&(struct clip){.path = clip_path("cover-only.mp4"), .cover = 1});
    assert_cannot_open(clip_path("cover-only.mp4"), SL_ERR_NO_VIDEO);
}

// --- cut and damaged files ---

struct reading {
    int status; // of the last call
    int samples;
    int64_t end_us, last_sample_us;
    struct sl_hole holes[MANY];
    int hole_count;
    struct sl_source_counts counts;
    int in_doubt; // samples whose clock could not be read or was wrong, outside every hole
};

static int is_in_hole(const struct reading *r, int64_t us)
{
    for (int i = 0; i < r->hole_count; i++) {
        if (us >= r->holes[i].start_us && us < r->holes[i].end_us) {
            return 1;
        }
    }
    return 0;
}

static void take_holes(struct sl_source *source, struct reading *r)
{
    struct sl_hole hole;
    while (sl_source_next_hole(source, &hole)) {
        assert_true(hole.start_us < hole.end_us);
        assert_true(r->hole_count < MANY);
        assert_true(hole.cause != NULL && hole.cause[0] != 0);
        r->holes[r->hole_count++] = hole;
    }
}

static void take_sample(struct sl_source *source, struct reading *r, struct sl_sample *sample)
{
    take_holes(source, r);
    assert_int_equal(sample->index, r->samples);
    assert_int_equal(sample->sample_us, sample->index * 40000);
    assert_true(r->samples == 0 || sample->frame->pts_us >= 0);
    int is_right = clip_read_clock(sample->frame) == sample->frame->pts_us / 1000;
    r->in_doubt += !is_right && !is_in_hole(r, sample->sample_us);
    r->last_sample_us = sample->sample_us;
    r->samples++;
    sl_frame_unref(sample->frame);
}

// Reads all of it at 25 samples a second, at most `limit`. A status below zero when it does not even open.
static void read_all(const char *path, struct reading *r, int limit)
{
    *r = (struct reading){.last_sample_us = -1, .end_us = SL_NO_TIME};
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.fps_num = 25;
    options.threads = 2;
    struct sl_source *source = NULL;
    struct sl_error error = {0};
    r->status = sl_source_open(path, &options, &source, &error);
    struct sl_sample sample;
    while (r->status == SL_OK && r->samples < limit) {
        r->status = sl_source_next(source, &sample, &error);
        if (r->status == SL_OK) {
            take_sample(source, r, &sample);
        }
    }
    if (source != NULL) {
        take_holes(source, r);
        r->end_us = sl_source_end_us(source);
        r->counts = sl_source_counts(source);
        if (r->status < 0) { // an error stays
            assert_int_equal(sl_source_next(source, &sample, &error), r->status);
        }
    }
    if (r->status < 0) {
        assert_int_equal(error.status, r->status);
    }
    sl_source_close(source);
}

static void index_at_the_end_is_cut_off(void **state)
{
    (void)state;
    struct clip clip = {.path = clip_path("index-last.mp4"), .pts = grid_ms, .count = PICTURES};
    clip_make(&clip);
    size_t size;
    void *bytes = clip_read_bytes(clip.path, &size);
    clip_write_bytes(clip_path("cut.mp4"), bytes, size / 2);
    assert_cannot_open(clip_path("cut.mp4"), SL_ERR_TRUNCATED);
    free(bytes);
}

static void cut_file_ends_in_a_hole(void **state)
{
    (void)state;
    struct clip clip = {
        .path = clip_path("whole.mp4"), .pts = grid_ms, .count = PICTURES, .muxer_options = "movflags=faststart"};
    clip_make(&clip);
    size_t size;
    void *bytes = clip_read_bytes(clip.path, &size);
    clip_write_bytes(clip_path("half.mp4"), bytes, size * 6 / 10);
    free(bytes);
    struct reading r;
    read_all(clip_path("half.mp4"), &r, 1000);
    assert_int_equal(r.status, SL_END);
    assert_in_range(r.samples, 10, 80);
    assert_int_equal(r.end_us, r.last_sample_us + 40000);
    assert_int_equal(r.in_doubt, 0);
    assert_true(r.hole_count > 0);
    assert_int_equal(r.holes[r.hole_count - 1].end_us, 4000000);
    for (int64_t us = r.end_us; us < 4000000; us += 1000) {
        assert_true(is_in_hole(&r, us)); // nothing of the rest is passed over in silence
    }
}

static void cut_anywhere(void **state)
{
    (void)state;
    static const struct {
        const char *name, *encoder, *options, *muxer_options;
        int b_frames, states_length;
    } kinds[] = {
        {"c.mp4", "mpeg4", NULL, "movflags=faststart", 0, 1},
        {"d.mp4", "libx264", "crf=20", "movflags=faststart", 2, 1},
        {"e.mp4", "mpeg4", NULL, "movflags=frag_keyframe+empty_moov", 0, 0},
        {"c.mkv", "mpeg4", NULL, NULL, 2, 1},
        {"d.mkv", "libx264", "crf=20", NULL, 2, 1},
        {"c.ts", "mpeg2video", NULL, NULL, 2, 0},
        {"d.ts", "libx264", "crf=20", NULL, 2, 0},
        {"c.avi", "mpeg4", NULL, NULL, 0, 0},
    };
    int64_t ticks[PICTURES];
    uint32_t random = 7;
    for (int i = 0; i < PICTURES; i++) {
        ticks[i] = i;
    }
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        if (!clip_encoder_exists(kinds[kind].encoder)) {
            continue;
        }
        struct clip clip = {.path = clip_path(kinds[kind].name),
                            .encoder = kinds[kind].encoder,
                            .options = kinds[kind].options,
                            .muxer_options = kinds[kind].muxer_options,
                            .b_frames = kinds[kind].b_frames,
                            .time_base = {1, 25},
                            .pts = ticks,
                            .count = PICTURES};
        clip_make(&clip);
        size_t size;
        void *bytes = clip_read_bytes(clip.path, &size);
        int readable = 0;
        char name[32];
        snprintf(name, sizeof name, "cut-%s", kinds[kind].name);
        for (int round = 0; round < 15; round++) {
            random = random * 1664525 + 1013904223;
            clip_write_bytes(clip_path(name), bytes, 1 + (random >> 8) % (size - 1));
            struct reading r;
            read_all(clip_path(name), &r, 1000);
            if (r.status < 0) {
                assert_true(r.status == SL_ERR_TRUNCATED || r.status == SL_ERR_NOT_VIDEO ||
                            r.status == SL_ERR_NO_VIDEO);
                continue;
            }
            readable++;
            assert_int_equal(r.status, SL_END);
            assert_int_equal(r.in_doubt, 0);
            assert_true(r.end_us <= 4040000);
            if (kinds[kind].states_length) {
                for (int64_t us = r.end_us; us < 3960000; us += 20000) {
                    assert_true(is_in_hole(&r, us) || 4000000 - r.end_us <= 500000);
                }
            }
        }
        assert_true(readable > 5);
        free(bytes);
    }
}

// Copies a file with the coded pictures of [from_ms, to_ms) blanked, so that none of them can be decoded.
static void blank_packets(const char *path, const char *copy, int64_t from_ms, int64_t to_ms)
{
    size_t size;
    unsigned char *bytes = clip_read_bytes(path, &size);
    AVFormatContext *format = NULL;
    AVPacket *packet = av_packet_alloc();
    int blanked = 0;
    assert_non_null(packet);
    assert_int_equal(avformat_open_input(&format, path, NULL, NULL), 0);
    while (av_read_frame(format, packet) >= 0) {
        if (packet->pts >= from_ms && packet->pts < to_ms) {
            assert_true(packet->size > 20 && packet->pos + packet->size < (int64_t)size);
            memset(bytes + packet->pos + 10, 0, (size_t)packet->size - 10); // after the block's header
            blanked++;
        }
        av_packet_unref(packet);
    }
    assert_int_equal(blanked, (to_ms - from_ms) / 40);
    av_packet_free(&packet);
    avformat_close_input(&format);
    clip_write_bytes(copy, bytes, size);
    free(bytes);
}

static void lost_pictures_are_holes(void **state)
{
    (void)state;
    if (!clip_encoder_exists("libx264")) {
        skip();
    }
    struct clip clip = {.path = clip_path("intra.mkv"),
                        .encoder = "libx264",
                        .options = "crf=20",
                        .pts = grid_ms,
                        .count = PICTURES,
                        .key_interval = 1};
    clip_make(&clip);
    // All are key pictures: those around the blanked ones stay sound.
    blank_packets(clip.path, clip_path("blank.mkv"), 1000, 1200);
    struct reading r;
    read_all(clip_path("blank.mkv"), &r, 1000);
    assert_int_equal(r.status, SL_END);
    assert_int_equal(r.samples, PICTURES);
    assert_int_equal(r.in_doubt, 0);
    for (int64_t ms = 0; ms < 4000; ms += 40) {
        assert_int_equal(is_in_hole(&r, ms * 1000), ms >= 1000 && ms < 1200);
    }
}

static void noise_does_not_crash(void **state)
{
    (void)state;
    static const char *names[] = {"n.mp4", "n.mkv", "n.ts", "n.avi"};
    uint32_t random = 4711;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t ticks[PICTURES];
        for (int p = 0; p < PICTURES; p++) {
            ticks[p] = p;
        }
        struct clip clip = {.path = clip_path(names[i]), .pts = ticks, .count = PICTURES, .time_base = {1, 25}};
        clip_make(&clip);
        size_t size;
        unsigned char *bytes = clip_read_bytes(clip.path, &size);
        for (int round = 0; round < 25; round++) {
            for (int hit = 0; hit < 6; hit++) { // damage piles up from round to round
                random = random * 1664525 + 1013904223;
                bytes[(random >> 4) % size] ^= (unsigned char)(1u << (random & 7));
            }
            char name[32];
            snprintf(name, sizeof name, "noise-%s", names[i]);
            clip_write_bytes(clip_path(name), bytes, size);
            struct reading r;
            read_all(clip_path(name), &r, 3000);
            assert_true(r.status <= SL_END);
        }
        free(bytes);
    }
}

static void stream_without_its_beginning(void **state)
{
    (void)state;
    int64_t ticks[PICTURES];
    for (int i = 0; i < PICTURES; i++) {
        ticks[i] = i;
    }
    struct clip clip = {
        .path = clip_path("full.ts"), .pts = ticks, .count = PICTURES, .time_base = {1, 25}, .key_interval = 25};
    clip_make(&clip);
    size_t size;
    unsigned char *bytes = clip_read_bytes(clip.path, &size);
    size_t skip_bytes = size / 5 / 188 * 188;
    clip_write_bytes(clip_path("late.ts"), bytes + skip_bytes, size - skip_bytes);
    free(bytes);
    struct reading r;
    read_all(clip_path("late.ts"), &r, 1000);
    assert_int_equal(r.status, SL_END);
    assert_true(r.hole_count > 0);
    assert_string_equal(r.holes[0].cause, "no key picture yet");
    assert_in_range(r.holes[0].start_us, 0, 40000);
}

// --- waiting ---

static int after_some_calls(void *ctx)
{
    int *left = ctx;
    return --*left < 0;
}

static void caller_can_stop_it(void **state)
{
    (void)state;
    struct clip clip = {.path = clip_path("stop.mkv"), .pts = grid_ms, .count = PICTURES};
    clip_make(&clip);
    struct sl_source_options options;
    sl_source_defaults(&options);
    int stopped_in_open = 0, stopped_in_next = 0;
    for (int calls = 0; calls < 120; calls += 3) {
        int left = calls;
        options.interrupted = after_some_calls;
        options.ctx = &left;
        struct sl_source *source = NULL;
        struct sl_error error = {0};
        int status = sl_source_open(clip.path, &options, &source, &error);
        stopped_in_open += status != SL_OK;
        struct sl_sample sample;
        while (status == SL_OK) {
            status = sl_source_next(source, &sample, &error);
            sl_frame_unref(sample.frame);
            stopped_in_next += status < 0;
        }
        assert_true(status == SL_ERR_INTERRUPTED || status == SL_END);
        sl_source_close(source);
    }
    assert_true(stopped_in_open > 0);
    assert_true(stopped_in_next > 0);
}

static void silent_server_is_given_up(void **state)
{
    (void)state;
    avformat_network_init();
    int server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 4) != 0 ||
        getsockname(server, (struct sockaddr *)&address, &length) != 0) {
        skip();
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/x.mp4", ntohs(address.sin_port));
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.open_timeout_us = 300000;
    struct sl_source *source = NULL;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(sl_source_open(url, &options, &source, NULL), SL_ERR_INTERRUPTED);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_in_range(end.tv_sec - start.tv_sec, 0, 5);
    close(server);
}

// --- the list of holes ---

static void holes_are_clipped_joined_and_bounded(void **state)
{
    (void)state;
    static struct sl_holes holes = {.from_us = 100, .to_us = 100000};
    struct sl_hole hole;
    assert_int_equal(sl_holes_take(&holes, &hole), 0);
    sl_holes_add(&holes, 0, 100, "a");        // before the span
    sl_holes_add(&holes, 50, 150, "a");       // cut at its start
    sl_holes_add(&holes, 150, 200, "a");      // touches: one hole
    sl_holes_add(&holes, 200, 300, "b");      // another cause
    sl_holes_add(&holes, 300, 300, "b");      // empty
    sl_holes_add(&holes, 99999, 200000, "b"); // cut at its end
    static const int64_t expected[][2] = {{100, 200}, {200, 300}, {99999, 100000}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sl_holes_take(&holes, &hole), 1);
        assert_int_equal(hole.start_us, expected[i][0]);
        assert_int_equal(hole.end_us, expected[i][1]);
    }
    assert_int_equal(sl_holes_take(&holes, &hole), 0);
    for (int i = 0; i < 2 * SL_HOLES_MAX; i++) {
        sl_holes_add(&holes, 1000 + 10 * i, 1005 + 10 * i, "c");
    }
    int64_t end_us = 0;
    for (int i = 0; i < SL_HOLES_MAX; i++) {
        assert_int_equal(sl_holes_take(&holes, &hole), 1);
        end_us = hole.end_us;
    }
    assert_int_equal(end_us, 1005 + 10 * (2 * SL_HOLES_MAX - 1));
    assert_int_equal(sl_holes_take(&holes, &hole), 0);
}

static int make_folder(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    clip_grid(grid_ms, PICTURES, (AVRational){25, 1}, (AVRational){1, 1000});
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
        cmocka_unit_test(each_cause_has_its_status),    cmocka_unit_test(unreadable_file),
        cmocka_unit_test(odd_names_are_files),          cmocka_unit_test(impossible_options),
        cmocka_unit_test(cover_picture_is_no_video),    cmocka_unit_test(index_at_the_end_is_cut_off),
        cmocka_unit_test(cut_file_ends_in_a_hole),      cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(lost_pictures_are_holes),      cmocka_unit_test(noise_does_not_crash),
        cmocka_unit_test(stream_without_its_beginning), cmocka_unit_test(caller_can_stop_it),
        cmocka_unit_test(silent_server_is_given_up),    cmocka_unit_test(holes_are_clipped_joined_and_bounded),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
