// SPDX-License-Identifier: Apache-2.0
// The writer of `scenelog watch`: all that cameras tell goes into the index, each camera's in the order of time, and
// what changed of its events to the sinks. While the index cannot be written it tries again; the cameras go on.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "src/task.h"
#include "src/watch.h"

enum { IDLE_MS = 10, RETRY_MS = 1000 };
#define BEAT_US   5000000
#define RETAIN_US 30000000

struct writer {
    struct sl_watch *watch;
    struct sl_db *db;
    int64_t beat_us, retained_us; // when last, monotonic
    char said[480];
};

static const char stopped[] = "scenelog was stopped before it was looked at";

static int64_t unix_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// ---- Beginning with a camera

static int claim(struct writer *w, struct sl_camera *camera, struct sl_error *error)
{
    if (camera->claimed) {
        return SL_OK;
    }
    char *text = sl_task_text(&camera->profile.rules);
    int status = text != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    if (status == SL_OK) {
        status = sl_db_task(w->db, text, sl_window_pair_us(&camera->profile.rules), &camera->task, error);
    }
    free(text);
    if (status == SL_OK) {
        status = sl_db_source(w->db, camera->name, &camera->source, error);
    }
    if (status == SL_OK) {
        status = sl_db_claim(w->db, camera->source, camera->task, &camera->claim, error);
    }
    camera->claimed = status == SL_OK;
    return status;
}

static void take_profile(struct writer *w, struct sl_camera *camera, struct sl_profile *profile)
{
    struct sl_error ignored = {0};
    if (camera->claimed) {
        (void)sl_db_release(w->db, &camera->claim, &ignored); // else it is stale in half a minute
    }
    camera->claimed = 0;
    sl_profile_finish(&camera->profile);
    camera->profile = *profile;
    pthread_mutex_lock(&w->watch->lock);
    camera->free_count = 0;
    pthread_mutex_unlock(&w->watch->lock);
    for (int i = 0; i < SL_WATCH_CLIPS; i++) { // all are free: nothing is filled and all before is written
        sl_clip_destroy(camera->clips[i]);
        camera->clips[i] = NULL;
    }
    atomic_store(&camera->reloading, 0);
}

// ---- Connections, segments, outages

static int write_connection(struct writer *w, struct sl_camera *camera, const struct sl_record *record,
                            struct sl_error *error)
{
    struct sl_db_media_info info = {.duration_us = SL_NO_TIME, .format = record->format, .codec = record->text};
    int status = sl_db_connection(w->db, camera->name, camera->shown, &camera->media, error);
    return status == SL_OK ? sl_db_describe(w->db, camera->media.media, &info, error) : status;
}

static int write_segment(struct writer *w, struct sl_camera *camera, const struct sl_live_segment *segment,
                         struct sl_error *error)
{
    struct sl_db_segment row = {.media = camera->media.media,
                                .start_us = segment->start_us,
                                .wall_start_us = segment->wall_start_us,
                                .clock = segment->origin == SL_LIVE_CAMERA ? SL_DB_CLOCK_CAMERA : SL_DB_CLOCK_ARRIVAL,
                                .error_us = segment->error_us};
    int status = sl_db_segment(w->db, &row, &camera->segment_id, error);
    if (status == SL_OK) {
        camera->written = *segment;
    }
    return status;
}

// The segment's wall time as it is known now; the outage before it ends where it begins.
static int better_segment(struct writer *w, struct sl_camera *camera, const struct sl_live_segment *now,
                          struct sl_error *error)
{
    const struct sl_live_segment *was = &camera->written;
    int moved = now->wall_start_us != was->wall_start_us;
    if (!moved && now->origin == was->origin && llabs(now->error_us - was->error_us) * 5 < was->error_us) {
        return SL_OK;
    }
    int status = write_segment(w, camera, now, error);
    if (status == SL_OK && moved && camera->last_outage_us != SL_NO_TIME) {
        int64_t begun_us = camera->last_outage_us; // without length where the segment turns out to begin before it
        status = sl_db_outage(w->db, camera->source, begun_us,
                              now->wall_start_us > begun_us ? now->wall_start_us : begun_us, camera->last_cause, error);
    }
    return status;
}

static int write_outage(struct writer *w, struct sl_camera *camera, const struct sl_record *record,
                        struct sl_error *error)
{
    if (record->text[0] != 0) {
        snprintf(camera->last_cause, sizeof camera->last_cause, "%s", record->text);
    }
    camera->last_outage_us = record->start_us;
    return sl_db_outage(w->db, camera->source, record->start_us, record->end_us, camera->last_cause, error);
}

// ---- Events, as they change

struct telling {
    struct sl_camera *camera;
    int64_t told;
};

static struct sl_known_event *known_event(struct sl_camera *camera, int64_t id)
{
    for (int i = 0; i < camera->known_count; i++) {
        if (camera->known[i].id == id) {
            return &camera->known[i];
        }
    }
    if (camera->known_count == camera->known_room) {
        int room = camera->known_room * 2 + 16;
        struct sl_known_event *grown = realloc(camera->known, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        camera->known = grown;
        camera->known_room = room;
    }
    camera->known[camera->known_count] = (struct sl_known_event){.id = id};
    return &camera->known[camera->known_count++];
}

static void tell_turn(struct sl_camera *camera, enum sl_turn turn, const struct sl_db_event *event)
{
    sl_sinks_event(camera->watch->options->sinks, turn, event, &camera->profile.tell);
}

static int tell_event(const struct sl_db_event *event, void *user)
{
    struct telling *telling = user;
    struct sl_camera *camera = telling->camera;
    struct sl_known_event *known = known_event(camera, event->id);
    if (known == NULL || known->ended) {
        return 0;
    }
    if (known->revision == 0) {
        telling->told++;
        tell_turn(camera, SL_EVENT_START, event);
        atomic_store(&camera->stats.last_event_us, event->wall_start_us);
    } else if (known->revision != event->revision && event->open) {
        tell_turn(camera, SL_EVENT_UPDATE, event);
    }
    if (!event->open) {
        tell_turn(camera, SL_EVENT_END, event);
    }
    *known = (struct sl_known_event){event->id, event->revision, event->start_us, event->end_us, !event->open};
    return 0;
}

// All of the segment that may have changed with what was written up to end_us.
static int tell_events(struct writer *w, struct sl_camera *camera, int64_t start_us, int64_t end_us,
                       struct sl_error *error)
{
    int64_t pair_us = sl_window_pair_us(&camera->profile.rules);
    struct telling telling = {.camera = camera};
    int64_t from_us = start_us - pair_us;
    for (int i = 0; i < camera->known_count; i++) {
        const struct sl_known_event *known = &camera->known[i];
        from_us = !known->ended && known->start_us < from_us ? known->start_us : from_us;
    }
    int kept = 0;
    for (int i = 0; i < camera->known_count; i++) { // what ended before will not be found again
        if (!camera->known[i].ended || camera->known[i].end_us >= from_us) {
            camera->known[kept++] = camera->known[i];
        }
    }
    camera->known_count = kept;
    struct sl_db_query query = {
        .from_us = from_us, .to_us = end_us + 1, .task = camera->task, .segment = camera->segment_id};
    int status = sl_db_query(w->db, &query, tell_event, &telling, error);
    atomic_fetch_add(&camera->stats.events, telling.told);
    return status;
}

static int write_end(struct writer *w, struct sl_camera *camera, const struct sl_record *record, struct sl_error *error)
{
    int status = sl_db_segment_end(w->db, camera->segment_id, record->end_us, error);
    if (status == SL_OK) {
        status = tell_events(w, camera, record->end_us, record->end_us, error);
    }
    if (status == SL_OK) {
        camera->known_count = 0;
        camera->last_outage_us = record->end_us + camera->written.wall_start_us - camera->written.start_us;
        snprintf(camera->last_cause, sizeof camera->last_cause, "%s", SL_WATCH_LEAPT);
    }
    return status;
}

// ---- What another process left open

static int note_open(const struct sl_db_event *event, void *user)
{
    return known_event(user, event->id) == NULL; // without memory the rest is not told
}

static int tell_ended(const struct sl_db_event *event, void *user)
{
    tell_turn(user, SL_EVENT_END, event);
    return 0;
}

// Events that were open when a process was killed ended with what it saw: whoever was told their start is told so.
static int begin_camera(struct writer *w, struct sl_camera *camera, struct sl_error *error)
{
    camera->last_outage_us = SL_NO_TIME;
    int status = claim(w, camera, error);
    if (status == SL_OK) {
        status = sl_db_open_events(w->db, camera->source, note_open, camera, error);
    }
    if (status == SL_OK) {
        status = sl_db_resume(w->db, camera->source, w->watch->began_us, "scenelog was not watching", error);
    }
    for (int i = 0; i < camera->known_count && status == SL_OK; i++) {
        status = sl_db_event(w->db, camera->known[i].id, tell_ended, camera, error);
    }
    camera->known_count = 0;
    return status;
}

// ---- Windows

static void count_window(struct sl_camera *camera, const struct sl_db_window *row)
{
    struct sl_camera_stats *stats = &camera->stats;
    switch (row->state) {
    case SL_DB_DONE:
        atomic_fetch_add(&stats->windows_done, 1);
        break;
    case SL_DB_FAILED:
        atomic_fetch_add(&stats->windows_failed, 1);
        sl_watch_note(camera, "a window failed: %s", row->cause);
        break;
    case SL_DB_DROPPED:
        if (atomic_fetch_add(&stats->windows_dropped, 1) == 0) {
            sl_watch_note(camera, "a window is dropped: %s; further ones are counted in the index", row->cause);
        }
        break;
    }
    int64_t end_us = camera->written.wall_start_us + row->end_us - camera->written.start_us;
    if (row->state == SL_DB_DONE) {
        atomic_store(&stats->lag_us, unix_us() - end_us);
    }
    atomic_fetch_add(&camera->watch->generated_tokens, row->generated_tokens);
    atomic_fetch_add(&camera->watch->prompt_tokens, row->prompt_tokens);
}

static int fill(struct sl_camera *camera, struct sl_row *row, const struct sl_record *record, struct sl_error *error)
{
    struct sl_window *window = record->window;
    int status = sl_row_fill(row, window, sl_eye_model(camera->choice.eye), error);
    int cancelled = record->dropped == NULL && window->answer.finish == SL_FINISH_CANCELLED;
    if (status == SL_OK && (record->dropped != NULL || cancelled)) {
        row->db.state = SL_DB_DROPPED;
        row->db.cause = record->dropped != NULL ? record->dropped : stopped;
        row->db.raw_text = NULL;
        row->db.piece_count = 0;
        row->db.frames_seen = 0;
    }
    return status;
}

static int write_window(struct writer *w, struct sl_camera *camera, const struct sl_record *record,
                        struct sl_error *error)
{
    struct sl_row row = {0};
    int status = better_segment(w, camera, &record->segment, error);
    if (status == SL_OK) {
        status = fill(camera, &row, record, error);
    }
    if (status == SL_OK) {
        row.db.segment = camera->segment_id;
        row.db.run = w->watch->options->run;
        status = sl_db_commit(w->db, &camera->claim, &row.db, error);
    }
    if (status == SL_OK) {
        count_window(camera, &row.db);
        status = tell_events(w, camera, row.db.start_us, row.db.end_us, error);
    }
    sl_row_finish(&row);
    return status;
}

static int write_record(struct writer *w, struct sl_camera *camera, struct sl_record *record, struct sl_error *error)
{
    int status = record->kind == SL_RECORD_PROFILE ? SL_OK : claim(w, camera, error);
    if (status != SL_OK) {
        return status;
    }
    switch (record->kind) {
    case SL_RECORD_CONNECTION:
        return write_connection(w, camera, record, error);
    case SL_RECORD_SEGMENT:
        return write_segment(w, camera, &record->segment, error);
    case SL_RECORD_WINDOW:
        return write_window(w, camera, record, error);
    case SL_RECORD_END:
        return write_end(w, camera, record, error);
    case SL_RECORD_OUTAGE:
        return write_outage(w, camera, record, error);
    case SL_RECORD_PROFILE:
        take_profile(w, camera, &record->profile);
        break;
    }
    return SL_OK;
}

// ---- The queue

static int is_settled(struct sl_watch *watch, struct sl_record *record)
{
    if (record->state == SL_RECORD_FLYING) {
        if (atomic_load(&watch->giving_up) && record->window->submitted) {
            sl_engine_cancel(record->window->model->engine, record->window->ticket);
        }
        return sl_window_wait(record->window, 0);
    }
    return record->state == SL_RECORD_SETTLED;
}

// The first record of a camera that can be written; it stays at the head of its queue.
static struct sl_record *next_record(struct sl_watch *watch, struct sl_camera **of)
{
    struct sl_record *found = NULL;
    pthread_mutex_lock(&watch->lock);
    for (int i = 0; i < watch->camera_count; i++) {
        struct sl_record *record = watch->cameras[i].first;
        if (record != NULL && is_settled(watch, record) && (found == NULL || record->ready_us < found->ready_us)) {
            found = record;
            *of = &watch->cameras[i];
        }
    }
    pthread_mutex_unlock(&watch->lock);
    return found;
}

static void remove_first(struct sl_camera *camera)
{
    struct sl_watch *watch = camera->watch;
    pthread_mutex_lock(&watch->lock);
    struct sl_record *record = camera->first;
    camera->first = record->next;
    camera->last = camera->first != NULL ? camera->last : NULL;
    if (record->state == SL_RECORD_FLYING) {
        camera->flying--;
    }
    if (record->window != NULL && record->window->clip != NULL) {
        camera->free_clips[camera->free_count++] = record->window->clip;
    }
    pthread_cond_broadcast(&watch->change);
    pthread_mutex_unlock(&watch->lock);
    sl_window_destroy(record->window);
    free(record);
}

static void give_up(struct writer *w, const struct sl_error *error)
{
    w->watch->error = *error;
    atomic_store(&w->watch->fatal, 1);
}

// What cannot pass is told once, and whether to try again: 1.
static int is_passing(struct writer *w, struct sl_camera *camera, const struct sl_error *error)
{
    if (error->status == SL_ERR_INDEX || error->status == SL_ERR_INDEX_VERSION || error->status == SL_ERR_USAGE) {
        give_up(w, error);
        return 0;
    }
    if (strcmp(w->said, error->text) != 0) {
        snprintf(w->said, sizeof w->said, "%s", error->text);
        sl_watch_note(camera, "%s%s", error->text,
                      error->status == SL_ERR_INTERNAL ? "" : "; tries again every second, cameras go on");
    }
    if (error->status == SL_ERR_BUSY) {
        camera->claimed = 0; // taken over while we were silent: ask for it again
    }
    return error->status != SL_ERR_INTERNAL && !atomic_load(&w->watch->giving_up);
}

// 1 if there was something to do.
static int write_next(struct writer *w)
{
    struct sl_camera *camera = NULL;
    struct sl_error error = {0};
    struct sl_record *record = next_record(w->watch, &camera);
    if (record == NULL) {
        return 0;
    }
    if (!atomic_load(&w->watch->fatal) && write_record(w, camera, record, &error) != SL_OK &&
        is_passing(w, camera, &error)) {
        nanosleep(&(struct timespec){.tv_sec = RETRY_MS / 1000, .tv_nsec = RETRY_MS % 1000 * 1000000L}, NULL);
        return 1;
    }
    if (error.status == SL_OK) {
        w->said[0] = 0;
    }
    remove_first(camera);
    return 1;
}

// ---- Now and then

static void beat(struct writer *w)
{
    struct sl_error error = {0};
    if (sl_watch_now_us() - w->beat_us < BEAT_US) {
        return;
    }
    w->beat_us = sl_watch_now_us();
    for (int i = 0; i < w->watch->camera_count; i++) {
        struct sl_camera *camera = &w->watch->cameras[i];
        if (camera->claimed && sl_db_heartbeat(w->db, &camera->claim, &error) != SL_OK) {
            (void)is_passing(w, camera, &error);
        }
    }
}

static void retain(struct writer *w)
{
    const struct sl_watch_options *o = w->watch->options;
    struct sl_error error = {0};
    int64_t forgotten = 0;
    if (sl_watch_now_us() - w->retained_us < RETAIN_US) {
        return;
    }
    w->retained_us = sl_watch_now_us();
    int status = SL_OK;
    if (o->keep_us > 0 || o->max_bytes > 0) {
        status =
            sl_db_retain(w->db, o->keep_us > 0 ? unix_us() - o->keep_us : SL_NO_TIME, o->max_bytes, &forgotten, &error);
    }
    struct stat file;
    if (stat(o->index_path, &file) == 0) {
        atomic_store(&w->watch->index_bytes, file.st_size);
    }
    if (status != SL_OK) {
        o->note(o->context, error.text);
    }
}

static int all_written(struct sl_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    int empty = 1;
    for (int i = 0; i < watch->camera_count; i++) {
        empty = empty && watch->cameras[i].first == NULL;
    }
    pthread_mutex_unlock(&watch->lock);
    return empty;
}

static void begin_all(struct writer *w)
{
    struct sl_error error = {0};
    for (int i = 0; i < w->watch->camera_count && !atomic_load(&w->watch->fatal); i++) {
        if (begin_camera(w, &w->watch->cameras[i], &error) != SL_OK) {
            give_up(w, &error); // at the beginning somebody looks: say it and end
        }
    }
}

void *sl_watch_writer_thread(void *pointer)
{
    struct writer w = {.watch = pointer, .beat_us = sl_watch_now_us()};
    struct sl_error ignored = {0};
    w.db = w.watch->options->db;
    begin_all(&w);
    while (!atomic_load(&w.watch->drained) || !all_written(w.watch)) {
        atomic_store(&w.watch->writer_beat_us, sl_watch_now_us());
        if (!atomic_load(&w.watch->fatal)) {
            beat(&w);
            retain(&w);
        }
        if (!write_next(&w)) {
            nanosleep(&(struct timespec){.tv_nsec = IDLE_MS * 1000000L}, NULL);
        }
    }
    for (int i = 0; i < w.watch->camera_count; i++) {
        struct sl_camera *camera = &w.watch->cameras[i];
        if (camera->claimed) {
            (void)sl_db_release(w.db, &camera->claim, &ignored); // else it is stale in half a minute
        }
    }
    return NULL;
}
