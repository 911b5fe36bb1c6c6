// SPDX-License-Identifier: Apache-2.0
// A camera's thread: connects, again and again, decodes, and cuts windows. It waits for nobody but the camera.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/watch.h"

enum { BACK_OFF_FIRST_MS = 500, BACK_OFF_MOST_MS = 15000, STEP_MS = 50 };
// A connection that lived so long was a good one: the next attempt comes at once.
#define GOOD_US 30000000
// Between two segments of one connection; below it clocks are not that exact.
#define SEGMENT_GAP_US 100000

static int must_stop(void *pointer)
{
    struct sl_camera *camera = pointer;
    return atomic_load(&camera->stopping) || atomic_load(&camera->watch->stopping);
}

static void note(void *pointer, const char *text)
{
    sl_watch_note(pointer, "%s", text);
}

static int64_t unix_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int tell(struct sl_camera *camera, const struct sl_record *record, struct sl_error *error)
{
    int status = sl_watch_tell(camera, record);
    return status == SL_OK ? SL_OK : sl_fail(error, status, "out of memory");
}

// ---- Windows

static int make_clips(struct sl_camera *camera, struct sl_error *error)
{
    const struct sl_window_rules *rules = &camera->profile.rules;
    int status = SL_OK;
    for (int i = 0; i < SL_WATCH_CLIPS && status == SL_OK; i++) {
        if (camera->clips[i] != NULL) {
            continue;
        }
        status = sl_clip_create(camera->choice.eye, sl_window_frames(rules), rules->max_tokens_per_pair,
                                &camera->clips[i], error);
        if (status == SL_OK) {
            sl_watch_return_clip(camera, camera->clips[i]);
        }
    }
    return status;
}

static int begin_window(struct sl_camera *camera, int64_t sample_us, struct sl_error *error)
{
    const struct sl_window_rules *rules = &camera->profile.rules;
    int64_t cell = (sample_us - camera->segment.start_us) / rules->window_us;
    int64_t start_us = camera->segment.start_us + cell * rules->window_us;
    struct sl_clip *clip = sl_watch_take_clip(camera);
    int64_t sample_unit = rules->fps_den * 1000000;
    sl_clip_begin(clip, (int)((rules->window_us * rules->fps_num + sample_unit - 1) / sample_unit));
    int status = sl_window_create(start_us, start_us + rules->window_us, clip, sl_window_frames(rules) / 2 + 1,
                                  &camera->window, error);
    if (status != SL_OK) {
        sl_watch_return_clip(camera, clip);
        return status;
    }
    return sl_window_add_hole(camera->window, camera->hole.start_us, camera->hole.end_us, camera->hole.cause, error);
}

// Pictures go up to end_us; SL_NO_TIME: up to the window's own end.
static int end_window(struct sl_camera *camera, int64_t end_us, struct sl_error *error)
{
    struct sl_window *window = camera->window;
    if (window == NULL) {
        return SL_OK;
    }
    camera->window = NULL;
    if (end_us != SL_NO_TIME && end_us < window->end_us) {
        window->end_us = end_us;
        window->shown_us = end_us;
        int holes = 0; // none reaches beyond the end
        for (int i = 0; i < window->hole_count; i++) {
            struct sl_db_hole hole = window->holes[i];
            hole.end_us = hole.end_us < end_us ? hole.end_us : end_us;
            window->holes[holes] = hole;
            holes += hole.start_us < hole.end_us;
        }
        window->hole_count = holes;
    }
    camera->cut_us = window->end_us;
    struct sl_device *device = camera->watch->options->device;
    struct sl_record record = {.kind = SL_RECORD_WINDOW, .window = window, .segment = camera->segment};
    int status = device->ops->wait(camera->stream, error);
    if (window->frames < 2 || window->end_us <= window->start_us) { // the model would see a single moment
        record.dropped = "too short to be looked at";
        sl_watch_return_clip(camera, window->clip);
        window->clip = NULL;
    }
    if (window->end_us <= window->start_us) {
        sl_window_destroy(window);
        return status;
    }
    return status == SL_OK ? tell(camera, &record, error) : status;
}

static int take_sample(struct sl_camera *camera, const struct sl_sample *sample, struct sl_error *error)
{
    int status = SL_OK;
    if (camera->window != NULL && sample->sample_us >= camera->window->end_us) {
        status = end_window(camera, SL_NO_TIME, error);
    }
    if (status == SL_OK && camera->window == NULL) {
        status = begin_window(camera, sample->sample_us, error);
    }
    return status == SL_OK ? sl_window_add(camera->window, camera->stream, sample, error) : status;
}

static int take_hole(struct sl_camera *camera, const struct sl_hole *hole, struct sl_error *error)
{
    camera->hole = *hole;
    return camera->window != NULL ? sl_window_add_hole(camera->window, hole->start_us, hole->end_us, hole->cause, error)
                                  : SL_OK;
}

// ---- Segments and outages

static int64_t wall_of(const struct sl_live_segment *segment, int64_t media_us)
{
    return segment->wall_start_us + media_us - segment->start_us;
}

static int tell_outage(struct sl_camera *camera, int64_t end_us, const char *cause, struct sl_error *error)
{
    struct sl_record record = {.kind = SL_RECORD_OUTAGE, .start_us = camera->outage_us, .end_us = end_us};
    snprintf(record.text, sizeof record.text, "%s", cause);
    return tell(camera, &record, error);
}

static int end_segment(struct sl_camera *camera, int64_t end_us, struct sl_error *error)
{
    if (!camera->has_segment) {
        return SL_OK;
    }
    camera->has_segment = 0;
    struct sl_record record = {.kind = SL_RECORD_END, .end_us = end_us};
    int status = end_window(camera, end_us, error);
    if (status == SL_OK && end_us > camera->cut_us) { // pictures up to the next sample, without it: told all the same
        status = begin_window(camera, camera->cut_us, error);
        status = status == SL_OK ? end_window(camera, end_us, error) : status;
    }
    return status == SL_OK ? tell(camera, &record, error) : status;
}

// The first segment of a connection ends the outage before it; between two there is one if their clocks say so.
static int take_segment(struct sl_camera *camera, int64_t before_end_us, struct sl_error *error)
{
    struct sl_live_segment segment = sl_live_segment(camera->live);
    int status = SL_OK;
    if (before_end_us == SL_NO_TIME) {
        struct sl_record record = {.kind = SL_RECORD_CONNECTION};
        snprintf(record.text, sizeof record.text, "%s", sl_live_codec(camera->live));
        snprintf(record.format, sizeof record.format, "%s", sl_live_container(camera->live));
        status = tell(camera, &record, error);
    } else {
        int64_t end_wall_us = wall_of(&camera->segment, before_end_us);
        status = end_segment(camera, before_end_us, error);
        if (segment.wall_start_us - end_wall_us > SEGMENT_GAP_US) {
            camera->outage_us = end_wall_us;
        }
    }
    if (status == SL_OK && camera->outage_us != SL_NO_TIME) {
        // A camera's clock may lie before the end that another clock gave.
        int64_t end_us = segment.wall_start_us > camera->outage_us ? segment.wall_start_us : camera->outage_us;
        status = tell_outage(camera, end_us, before_end_us != SL_NO_TIME ? SL_WATCH_LEAPT : "", error);
        camera->outage_us = SL_NO_TIME;
    }
    camera->segment = segment;
    camera->cut_us = segment.start_us;
    camera->hole = (struct sl_hole){0, 0, ""};
    camera->has_segment = 1;
    struct sl_record record = {.kind = SL_RECORD_SEGMENT, .segment = segment};
    return status == SL_OK ? tell(camera, &record, error) : status;
}

// ---- A connection

static void count(struct sl_camera *camera, struct sl_live_counts *before)
{
    struct sl_live_counts now = sl_live_counts(camera->live);
    struct sl_camera_stats *stats = &camera->stats;
    atomic_fetch_add(&stats->packets, now.packets - before->packets);
    atomic_fetch_add(&stats->bytes, now.bytes - before->bytes);
    atomic_fetch_add(&stats->decoded, now.decoded - before->decoded);
    atomic_fetch_add(&stats->damaged, now.damaged - before->damaged);
    atomic_fetch_add(&stats->backward, now.backward - before->backward);
    atomic_fetch_add(&stats->sampled, now.sampled - before->sampled);
    *before = now;
}

static int take_item(struct sl_camera *camera, const struct sl_live_item *item, struct sl_error *error)
{
    int status = SL_OK;
    switch (item->kind) {
    case SL_LIVE_SEGMENT:
        return take_segment(camera, item->end_us, error);
    case SL_LIVE_HOLE:
        return take_hole(camera, &item->hole, error);
    case SL_LIVE_SAMPLE:
        status = take_sample(camera, &item->sample, error);
        sl_frame_unref(item->sample.frame);
        break;
    }
    camera->segment = sl_live_segment(camera->live); // its wall time may have been bettered
    return status;
}

static int follow(struct sl_camera *camera, struct sl_error *error)
{
    struct sl_live_counts counted = {0};
    struct sl_live_item item;
    int status = SL_OK;
    while (status == SL_OK) {
        status = sl_live_next(camera->live, &item, error);
        if (status == SL_OK && item.kind == SL_LIVE_SEGMENT && !atomic_load(&camera->stats.connected)) {
            atomic_store(&camera->stats.connected, 1);
            atomic_fetch_add(&camera->stats.connects, 1);
            sl_sinks_availability(camera->watch->options->sinks, camera->name, 1);
            sl_watch_note(camera, "connected: %s, %s", sl_live_container(camera->live), sl_live_codec(camera->live));
        }
        if (status == SL_OK) {
            status = take_item(camera, &item, error);
        }
        count(camera, &counted);
    }
    return status;
}

// Until the connection is over: the status that ended it.
static int connect_once(struct sl_camera *camera, struct sl_error *error)
{
    const struct sl_window_rules *rules = &camera->profile.rules;
    struct sl_live_options options = {.fps_num = rules->fps_num,
                                      .fps_den = rules->fps_den,
                                      .over_udp = camera->over_udp,
                                      .timeout_us = camera->timeout_us,
                                      .interrupted = must_stop,
                                      .note = note,
                                      .ctx = camera};
    atomic_fetch_add(&camera->stats.attempts, 1);
    int status = sl_live_open(camera->url, camera->shown, &options, &camera->live, error);
    if (status != SL_OK) {
        return status;
    }
    status = follow(camera, error);
    if (camera->has_segment) {
        struct sl_error ending = {0};
        int64_t end_us = sl_live_end_us(camera->live);
        int64_t wall_us = wall_of(&camera->segment, end_us);
        int ended = end_segment(camera, end_us, &ending);
        *(must_stop(camera) ? &camera->ended_us : &camera->outage_us) = wall_us;
        if (ended != SL_OK) {
            *error = ending;
            status = ended;
        }
    }
    if (status == SL_END && !sl_live_is_file(camera->live)) {
        status = sl_fail(error, SL_ERR_IO, "%s: the stream ended", camera->shown);
    }
    sl_live_close(camera->live);
    camera->live = NULL;
    if (atomic_exchange(&camera->stats.connected, 0)) {
        sl_sinks_availability(camera->watch->options->sinks, camera->name, 0);
    }
    return status;
}

// ---- For ever

static void wait_ms(struct sl_camera *camera, int64_t ms)
{
    int64_t until_us = sl_watch_now_us() + ms * 1000;
    while (sl_watch_now_us() < until_us && !must_stop(camera)) {
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
}

// Between three quarters and five quarters: cameras behind one switch must not all come back in the same moment.
static int64_t jittered(int64_t ms, unsigned *seed)
{
    return ms * 3 / 4 + ms * (rand_r(seed) % 1000) / 2000;
}

static void clean_up(struct sl_camera *camera)
{
    if (camera->window != NULL) { // the connection failed inside a window, and its end could not be told
        sl_watch_return_clip(camera, camera->window->clip);
        sl_window_destroy(camera->window);
        camera->window = NULL;
    }
    camera->has_segment = 0;
}

void *sl_camera_thread(void *pointer)
{
    struct sl_camera *camera = pointer;
    struct sl_error error = {0};
    unsigned seed = (unsigned)(unix_us() ^ (int64_t)(intptr_t)camera);
    int64_t back_off_ms = BACK_OFF_FIRST_MS;
    char said[480] = "";
    camera->outage_us = camera->ended_us;
    int status = make_clips(camera, &error);
    if (status == SL_OK) {
        status = tell_outage(camera, SL_NO_TIME, "connecting", &error);
    }
    while (status != SL_END && !must_stop(camera)) {
        int64_t begun_us = sl_watch_now_us();
        status = connect_once(camera, &error);
        clean_up(camera);
        if (status == SL_END || must_stop(camera)) {
            break;
        }
        if (sl_watch_now_us() - begun_us > GOOD_US) {
            back_off_ms = BACK_OFF_FIRST_MS;
        }
        if (strcmp(said, error.text) != 0) { // the same again and again is said once; metrics count the attempts
            snprintf(said, sizeof said, "%s", error.text);
            sl_watch_note(camera, "%s; tries again for ever, every %d s at most", error.text, BACK_OFF_MOST_MS / 1000);
        }
        (void)tell_outage(camera, SL_NO_TIME, error.text, &error); // without memory the next one tells it
        wait_ms(camera, jittered(back_off_ms, &seed));
        back_off_ms = back_off_ms * 2 < BACK_OFF_MOST_MS ? back_off_ms * 2 : BACK_OFF_MOST_MS;
    }
    if (camera->outage_us != SL_NO_TIME && status != SL_END) {
        camera->ended_us = unix_us();
        (void)tell_outage(camera, camera->ended_us, "", &error);
    }
    atomic_store(&camera->finished, !atomic_load(&camera->stopping));
    return NULL;
}
