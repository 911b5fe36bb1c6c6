// SPDX-License-Identifier: Apache-2.0
#include "src/watch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DISPATCH_WAIT_MS = 20, TICK_MS = 100, FINISH_MS = 10000, ALIVE_MS = 1000, STUCK_US = 60000000 };

int64_t sl_watch_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void sl_watch_note(struct sl_camera *camera, const char *format, ...)
{
    char text[640], line[960];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(line, sizeof line, "%s: %s", camera->name, text);
    camera->watch->options->note(camera->watch->options->context, line);
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

// ---- Records and clips, under the lock

static struct sl_record *oldest_waiting(struct sl_camera *camera)
{
    struct sl_record *record = camera->first;
    while (record != NULL && record->state != SL_RECORD_WAITING) {
        record = record->next;
    }
    return record;
}

// The record stays, in its place in time, to say that it was dropped. Gives its clip away.
static struct sl_clip *drop(struct sl_camera *camera, struct sl_record *record, const char *why)
{
    struct sl_clip *clip = record->window->clip;
    record->window->clip = NULL;
    record->dropped = why;
    record->state = SL_RECORD_SETTLED;
    camera->waiting--;
    atomic_store(&camera->stats.waiting, camera->waiting);
    return clip;
}

static const char behind[] = "the model is behind: newer pictures go first";

int sl_watch_tell(struct sl_camera *camera, const struct sl_record *record)
{
    struct sl_record *copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return SL_ERR_MEMORY;
    }
    *copy = *record;
    copy->next = NULL;
    copy->ready_us = sl_watch_now_us();
    int waits = record->kind == SL_RECORD_WINDOW && record->dropped == NULL;
    copy->state = waits ? SL_RECORD_WAITING : SL_RECORD_SETTLED;
    pthread_mutex_lock(&camera->watch->lock);
    *(camera->first != NULL ? &camera->last->next : &camera->first) = copy;
    camera->last = copy;
    camera->waiting += waits;
    if (camera->waiting > SL_WATCH_WAITING) {
        camera->free_clips[camera->free_count++] = drop(camera, oldest_waiting(camera), behind);
    }
    atomic_store(&camera->stats.waiting, camera->waiting);
    pthread_cond_broadcast(&camera->watch->change);
    pthread_mutex_unlock(&camera->watch->lock);
    return SL_OK;
}

struct sl_clip *sl_watch_take_clip(struct sl_camera *camera)
{
    pthread_mutex_lock(&camera->watch->lock);
    // One is filled, SL_WATCH_FLYING fly, the rest wait: without a free one there is a waiting one.
    struct sl_clip *clip = camera->free_count > 0 ? camera->free_clips[--camera->free_count]
                                                  : drop(camera, oldest_waiting(camera), behind);
    pthread_mutex_unlock(&camera->watch->lock);
    return clip;
}

void sl_watch_return_clip(struct sl_camera *camera, struct sl_clip *clip)
{
    pthread_mutex_lock(&camera->watch->lock);
    camera->free_clips[camera->free_count++] = clip;
    pthread_mutex_unlock(&camera->watch->lock);
}

// ---- Dispatcher

// 1: a source whose windows are this model's has some that wait or are at work.
static int has_work(const struct sl_watch *watch, const struct sl_eye *eye)
{
    for (int i = 0; eye != NULL && i < watch->camera_count; i++) {
        const struct sl_camera *camera = &watch->cameras[i];
        if (camera->choice.eye == eye && (camera->waiting > 0 || camera->flying > 0)) {
            return 1;
        }
    }
    return 0;
}

// The model that the camera's next window goes to now; NULL: none has room.
static struct sl_eye *free_eye(const struct sl_watch *watch, const struct sl_camera *camera)
{
    struct sl_eye *eye = sl_choice_now(&camera->choice, has_work(watch, camera->choice.other));
    return sl_eye_has_room(eye) ? eye : NULL;
}

// Of those with a waiting window and room to fly the one that has fewest in the air, then the one served longest ago.
static struct sl_camera *whose_turn(struct sl_watch *watch)
{
    struct sl_camera *best = NULL;
    for (int i = 0; i < watch->camera_count; i++) {
        struct sl_camera *camera = &watch->cameras[i];
        if (camera->waiting == 0 || camera->flying >= SL_WATCH_FLYING || free_eye(watch, camera) == NULL) {
            continue;
        }
        if (best == NULL || camera->flying < best->flying ||
            (camera->flying == best->flying && camera->served_us < best->served_us)) {
            best = camera;
        }
    }
    return best;
}

static void ask(struct sl_eye *eye, struct sl_stream *stream, struct sl_camera *camera, struct sl_record *record)
{
    struct sl_error error = {0};
    struct sl_window *window = record->window;
    int status = sl_window_submit(window, eye, stream, &camera->profile.rules, camera->name, &error);
    if (status != SL_OK) {
        window->answer.finish = SL_FINISH_FAILED;
        window->answer.error = error;
        window->answered = 1;
    }
}

static void drop_all_waiting(struct sl_watch *watch)
{
    for (int i = 0; i < watch->camera_count; i++) {
        struct sl_camera *camera = &watch->cameras[i];
        while (camera->waiting > 0) {
            camera->free_clips[camera->free_count++] =
                drop(camera, oldest_waiting(camera), "scenelog was stopped before it was looked at");
        }
    }
}

static void wait_for_change(struct sl_watch *watch)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += DISPATCH_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&watch->change, &watch->lock, &until); // a time-out is as good
}

struct dispatcher {
    struct sl_watch *watch;
    struct sl_stream *stream;
    atomic_int over;
};

static void *dispatch(void *pointer)
{
    struct dispatcher *d = pointer;
    struct sl_watch *watch = d->watch;
    pthread_mutex_lock(&watch->lock);
    while (!atomic_load(&d->over)) {
        atomic_store(&watch->dispatcher_beat_us, sl_watch_now_us());
        if (atomic_load(&watch->giving_up)) {
            drop_all_waiting(watch);
        }
        struct sl_camera *camera = whose_turn(watch);
        if (camera == NULL) {
            wait_for_change(watch);
            continue;
        }
        struct sl_eye *eye = free_eye(watch, camera);
        struct sl_record *record = oldest_waiting(camera);
        record->state = SL_RECORD_ASKING;
        camera->waiting--;
        camera->flying++;
        camera->served_us = sl_watch_now_us();
        atomic_store(&camera->stats.waiting, camera->waiting);
        pthread_mutex_unlock(&watch->lock);
        ask(eye, d->stream, camera, record);
        pthread_mutex_lock(&watch->lock);
        record->state = SL_RECORD_FLYING;
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

// ---- Profiles, read again

static int start_camera(struct sl_camera *camera)
{
    atomic_store(&camera->stopping, 0);
    atomic_store(&camera->finished, 0);
    camera->started = pthread_create(&camera->thread, NULL, sl_camera_thread, camera) == 0;
    return camera->started;
}

static void join_camera(struct sl_camera *camera)
{
    if (camera->started) {
        pthread_join(camera->thread, NULL);
        camera->started = 0;
    }
}

// The camera's windows so far are asked and written under the old profile, then it begins again under the new one.
static void exchange_profile(struct sl_camera *camera, struct sl_profile *profile)
{
    struct sl_record record = {.kind = SL_RECORD_PROFILE, .profile = *profile};
    atomic_store(&camera->stopping, 1);
    join_camera(camera);
    atomic_store(&camera->reloading, 1);
    if (sl_watch_tell(camera, &record) != SL_OK) {
        atomic_store(&camera->reloading, 0);
        sl_profile_finish(profile);
        sl_watch_note(camera, "out of memory: the old profile stays");
    }
    while (atomic_load(&camera->reloading) && !atomic_load(&camera->watch->fatal)) {
        pause_ms(TICK_MS);
    }
    if (!start_camera(camera)) {
        sl_watch_note(camera, "no thread could be started: it is not watched any more");
    }
}

static void reload(struct sl_watch *watch)
{
    for (int i = 0; i < watch->camera_count; i++) {
        struct sl_camera *camera = &watch->cameras[i];
        struct sl_profile profile;
        struct sl_error error = {0};
        if (camera->profile_path == NULL || atomic_load(&camera->finished)) {
            continue;
        }
        if (sl_profile_read(camera->profile_path, &watch->defaults, &profile, &error) != SL_OK) {
            sl_watch_note(camera, "the old profile stays: %s", error.text);
        } else if (sl_profile_equal(&profile, &camera->profile)) {
            sl_profile_finish(&profile);
        } else {
            exchange_profile(camera, &profile);
            sl_watch_note(camera, "goes on with the new profile");
        }
    }
}

// ---- Life

static int all_finished(const struct sl_watch *watch)
{
    for (int i = 0; i < watch->camera_count; i++) {
        if (!atomic_load(&watch->cameras[i].finished)) {
            return 0;
        }
    }
    return 1;
}

static void say_alive(struct sl_watch *watch)
{
    int connected = 0;
    int64_t now_us = sl_watch_now_us();
    for (int i = 0; i < watch->camera_count; i++) {
        connected += atomic_load(&watch->cameras[i].stats.connected);
    }
    char text[80];
    snprintf(text, sizeof text, "%d of %d sources connected", connected, watch->camera_count);
    int moving = now_us - atomic_load(&watch->writer_beat_us) < STUCK_US &&
                 now_us - atomic_load(&watch->dispatcher_beat_us) < STUCK_US;
    if (moving && watch->options->alive != NULL) {
        watch->options->alive(watch->options->context, text);
    }
}

static void attend(struct sl_watch *watch)
{
    const struct sl_watch_options *o = watch->options;
    int64_t alive_us = 0;
    while (!o->interrupted(o->context) && !all_finished(watch) && !atomic_load(&watch->fatal)) {
        if (sl_watch_now_us() - alive_us > ALIVE_MS * 1000) {
            alive_us = sl_watch_now_us();
            say_alive(watch);
        }
        if (o->reload(o->context)) {
            reload(watch);
        }
        pause_ms(TICK_MS);
    }
}

static int is_empty(struct sl_watch *watch)
{
    int empty = 1;
    pthread_mutex_lock(&watch->lock);
    for (int i = 0; i < watch->camera_count; i++) {
        empty = empty && watch->cameras[i].first == NULL;
    }
    pthread_mutex_unlock(&watch->lock);
    return empty;
}

// What was cut is finished if that does not take long; files were to be seen wholly.
static void finish_windows(struct sl_watch *watch)
{
    const struct sl_watch_options *o = watch->options;
    int interrupted = o->interrupted(o->context);
    for (int ms = 0; !is_empty(watch) && (!interrupted || ms < FINISH_MS) && !atomic_load(&watch->fatal);
         ms += TICK_MS) {
        interrupted = interrupted || o->interrupted(o->context);
        pause_ms(TICK_MS);
    }
    atomic_store(&watch->giving_up, 1);
}

static void destroy_camera(struct sl_camera *camera)
{
    struct sl_device *device = camera->watch->options->device;
    while (camera->first != NULL) { // only after a fatal error
        struct sl_record *record = camera->first;
        camera->first = record->next;
        sl_window_destroy(record->window);
        free(record);
    }
    for (int i = 0; i < SL_WATCH_CLIPS; i++) {
        sl_clip_destroy(camera->clips[i]);
    }
    if (camera->stream != NULL) {
        device->ops->stream_destroy(camera->stream);
    }
    free(camera->known);
}

static int create_streams(struct sl_watch *watch, struct dispatcher *dispatcher, struct sl_error *error)
{
    struct sl_device *device = watch->options->device;
    int status = device->ops->stream_create(device, &dispatcher->stream, error);
    for (int i = 0; i < watch->camera_count && status == SL_OK; i++) {
        status = device->ops->stream_create(device, &watch->cameras[i].stream, error);
    }
    return status;
}

static int run_threads(struct sl_watch *watch, struct dispatcher *dispatcher, struct sl_error *error)
{
    pthread_t asking, writing;
    if (pthread_create(&writing, NULL, sl_watch_writer_thread, watch) != 0) {
        return sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
    }
    int dispatching = pthread_create(&asking, NULL, dispatch, dispatcher) == 0;
    int started = dispatching;
    for (int i = 0; i < watch->camera_count && started; i++) {
        started = start_camera(&watch->cameras[i]);
    }
    if (started) {
        attend(watch);
    } else {
        sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
    }
    atomic_store(&watch->stopping, 1);
    for (int i = 0; i < watch->camera_count; i++) {
        join_camera(&watch->cameras[i]);
    }
    if (dispatching) {
        finish_windows(watch);
    }
    atomic_store(&watch->drained, 1);
    pthread_join(writing, NULL);
    atomic_store(&dispatcher->over, 1);
    if (dispatching) {
        pthread_join(asking, NULL);
    }
    if (atomic_load(&watch->fatal)) {
        *error = watch->error;
        return error->status;
    }
    return started ? SL_OK : error->status;
}

int sl_watch_run(struct sl_watch *watch, const struct sl_watch_options *options, struct sl_error *error)
{
    struct dispatcher dispatcher = {.watch = watch};
    watch->options = options;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->change, NULL);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    watch->began_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    for (int i = 0; i < watch->camera_count; i++) {
        watch->cameras[i].watch = watch;
        watch->cameras[i].ended_us = watch->began_us;
    }
    atomic_store(&watch->writer_beat_us, sl_watch_now_us());
    atomic_store(&watch->dispatcher_beat_us, sl_watch_now_us());
    int status = create_streams(watch, &dispatcher, error);
    if (status == SL_OK) {
        status = run_threads(watch, &dispatcher, error);
    }
    for (int i = 0; i < watch->camera_count; i++) {
        destroy_camera(&watch->cameras[i]);
    }
    if (dispatcher.stream != NULL) {
        options->device->ops->stream_destroy(dispatcher.stream);
    }
    pthread_mutex_destroy(&watch->lock);
    pthread_cond_destroy(&watch->change);
    return status;
}
