// SPDX-License-Identifier: Apache-2.0
#include "src/pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "src/stages.h"

enum { SAMPLE_QUEUE = 8, TICK_MS = 100 };

// ---- What all stages share

void sl_run_stop(struct sl_run *run, const struct sl_error *error)
{
    pthread_mutex_lock(&run->lock);
    if (run->error.status == SL_OK) {
        run->error = *error;
    }
    pthread_mutex_unlock(&run->lock);
    atomic_store(&run->stopping, 1);
    sl_fifo_cancel(run->samples);
    sl_fifo_cancel(run->clips);
}

int sl_run_must_stop(void *pointer)
{
    struct sl_run *run = pointer;
    if (atomic_load(&run->stopping)) {
        return 1;
    }
    if (!run->job->interrupted(run->job->context)) {
        return 0;
    }
    struct sl_error error = {0};
    sl_fail(&error, SL_ERR_INTERRUPTED, "%s: interrupted; the same command goes on from here", run->job->path);
    sl_run_stop(run, &error);
    return 1;
}

void sl_run_note(void *pointer, const char *text)
{
    struct sl_run *run = pointer;
    char line[800];
    snprintf(line, sizeof line, "%s: %s", run->job->path, text);
    run->job->note(run->job->context, line);
}

// ---- Opening: media, segment, claim, plan

static int describe_media(struct sl_run *run, struct sl_error *error)
{
    const struct sl_pipeline *job = run->job;
    struct sl_source_options options;
    sl_source_defaults(&options);
    options.interrupted = job->interrupted;
    options.ctx = job->context;
    struct sl_source *source = NULL;
    int status = sl_source_open(job->path, &options, &source, error);
    if (status != SL_OK) {
        return status;
    }
    const struct sl_source_info *info = sl_source_info(source);
    run->duration_us = info->duration_us;
    run->wall_start_us = job->wall_from_metadata ? info->created_us : job->wall_start_us;
    if (job->wall_from_metadata && run->wall_start_us == SL_NO_TIME) {
        sl_source_close(source);
        return sl_fail(error, SL_ERR_USAGE, "%s: states no creation time; give --start-time a date and time",
                       job->path);
    }
    char codec[160];
    double rate = info->rate_den > 0 ? (double)info->rate_num / (double)info->rate_den : 0;
    snprintf(codec, sizeof codec, "%s %s %dx%d %.5g fps", info->codec, info->profile, info->width, info->height, rate);
    status = sl_db_file(job->db, job->path, job->source_name, &run->media, error);
    if (status == SL_OK) {
        struct sl_db_media_info row = {.duration_us = info->duration_us, .format = info->container, .codec = codec};
        status = sl_db_describe(job->db, run->media.media, &row, error);
    }
    sl_source_close(source);
    return status;
}

static int enter_index(struct sl_run *run, struct sl_error *error)
{
    const struct sl_pipeline *job = run->job;
    int status = describe_media(run, error);
    if (status == SL_OK) {
        struct sl_db_segment segment = {.media = run->media.media,
                                        .start_us = 0,
                                        .wall_start_us = run->wall_start_us,
                                        .clock = run->wall_start_us != SL_NO_TIME ? SL_DB_CLOCK_USER : SL_DB_CLOCK_NONE,
                                        .error_us = SL_NO_TIME};
        status = sl_db_segment(job->db, &segment, &run->segment, error);
    }
    if (status == SL_OK) {
        status = sl_db_claim(job->db, run->media.source, job->task, &run->claim, error);
    }
    return status;
}

static void state_duration(struct sl_run *run)
{
    const struct sl_pipeline *job = run->job;
    int64_t from_us = job->from_us != SL_NO_TIME ? job->from_us : 0;
    int64_t to_us = job->to_us;
    if (to_us == SL_NO_TIME || (run->duration_us != SL_NO_TIME && run->duration_us < to_us)) {
        to_us = run->duration_us;
    }
    atomic_store(&run->progress->media_us, from_us);
    atomic_store(&run->progress->duration_us, to_us != SL_NO_TIME && to_us > from_us ? to_us - from_us : 0);
}

// ---- Running

static int create_queues(struct sl_run *run, struct sl_error *error)
{
    const struct sl_pipeline *job = run->job;
    run->clip_count = sl_eye_model(run->choice.eye)->sequences + 1; // one is filled while the others are in flight
    run->clip_count += run->choice.other != NULL ? sl_eye_model(run->choice.other)->sequences : 0;
    run->all_clips = calloc((size_t)run->clip_count, sizeof(struct sl_clip *));
    if (run->all_clips == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    int status = sl_fifo_create(SAMPLE_QUEUE, sl_item_drop, &run->samples, error);
    if (status == SL_OK) {
        // Failed windows hold no clip: room for some of those too.
        status = sl_fifo_create(run->clip_count + 16, NULL, &run->windows, error);
    }
    if (status == SL_OK) {
        status = sl_fifo_create(run->clip_count, NULL, &run->clips, error);
    }
    for (int i = 0; i < run->clip_count && status == SL_OK; i++) {
        status = sl_clip_create(run->choice.eye, run->frames_per_window, job->rules->max_tokens_per_pair,
                                &run->all_clips[i], error);
        if (status == SL_OK) {
            status = sl_fifo_push(run->clips, run->all_clips[i]);
        }
    }
    if (status == SL_OK) {
        status = job->model->device->ops->stream_create_urgent(job->model->device, &run->stream, error);
    }
    return status;
}

static void destroy_queues(struct sl_run *run)
{
    if (run->stream != NULL) {
        run->job->model->device->ops->stream_destroy(run->stream);
    }
    for (int i = 0; i < run->clip_count && run->all_clips != NULL; i++) {
        sl_clip_destroy(run->all_clips[i]);
    }
    free(run->all_clips);
    sl_fifo_destroy(run->samples);
    sl_fifo_destroy(run->windows);
    sl_fifo_destroy(run->clips);
    free(run->stretches);
}

static void watch(struct sl_run *run)
{
    while (!atomic_load(&run->written)) {
        (void)sl_run_must_stop(run);
        if (run->job->tick != NULL) {
            run->job->tick(run->job->context, run->progress);
        }
        nanosleep(&(struct timespec){.tv_nsec = TICK_MS * 1000000L}, NULL);
    }
}

// Starts the stages last first, so that a failure to start one leaves none waiting for it.
static int run_stages(struct sl_run *run, struct sl_error *error)
{
    static void *(*const stage[])(void *) = {sl_writer_thread, sl_windower_thread, sl_reader_thread};
    enum { STAGES = sizeof stage / sizeof stage[0] };
    pthread_t thread[STAGES];
    int started = 0;
    while (started < STAGES && pthread_create(&thread[started], NULL, stage[started], run) == 0) {
        started++;
    }
    if (started < STAGES) {
        sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
        sl_run_stop(run, error);
        sl_fifo_close(run->windows);
        atomic_store(&run->written, started == 0); // else the writer says so
    }
    watch(run);
    for (int i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
    }
    if (run->error.status != SL_OK) {
        *error = run->error;
    }
    return run->error.status;
}

static int outcome(struct sl_run *run, struct sl_error *error)
{
    const char *path = run->job->path;
    int64_t failed = atomic_load(&run->progress->windows_failed);
    if (atomic_load(&run->truncated)) {
        return sl_fail(error, SL_ERR_TRUNCATED,
                       "%s: the file ends early or its end is damaged; what there is was indexed", path);
    }
    if (failed > 0) {
        return sl_fail(error, SL_ERR_PARTIAL, "%s: %lld windows failed; run the same command again to redo them", path,
                       (long long)failed);
    }
    return SL_OK;
}

int sl_pipeline_run(const struct sl_pipeline *job, struct sl_pipeline_progress *progress, struct sl_error *error)
{
    struct sl_run run = {.job = job, .progress = progress, .lock = PTHREAD_MUTEX_INITIALIZER};
    run.frames_per_window = sl_window_frames(job->rules);
    atomic_store(&run.end_us, SL_NO_TIME);
    int status = enter_index(&run, error);
    if (status != SL_OK) {
        return status;
    }
    run.choice =
        job->choose != NULL ? job->choose(job->context, run.media.source_name) : (struct sl_choice){.eye = job->eye};
    state_duration(&run);
    if (job->from_us != SL_NO_TIME && run.duration_us != SL_NO_TIME && job->from_us >= run.duration_us) {
        sl_run_note(&run, "ends before --from: there is nothing to look at");
    }
    status = sl_reader_plan(&run, error);
    if (status == SL_OK && run.stretch_count > 0) {
        status = create_queues(&run, error);
        if (status == SL_OK) {
            status = run_stages(&run, error);
        }
    }
    destroy_queues(&run);
    struct sl_error ignored; // the first fault is the one to tell
    int released = sl_db_release(job->db, &run.claim, status == SL_OK ? error : &ignored);
    status = status == SL_OK ? released : status;
    return status == SL_OK ? outcome(&run, error) : status;
}
