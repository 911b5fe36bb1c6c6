// SPDX-License-Identifier: Apache-2.0
// One lock for all: lanes take it once a sample at most, and decode without it.
#include "decode/lanes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <libavutil/cpu.h>
#include <libavutil/imgutils.h>

#include "decode/checksum.h"
#include "decode/cuts.h"
#include "decode/grid.h"
#include "decode/session.h"

enum {
    PARTS_AHEAD = 2,   // of each lane
    MAX_PICTURES = 32, // held by each lane
    MIN_PICTURES = 4,
    MAX_PICTURES_BYTES = 128 << 20,
    TICK_MS = 50, // how often the waiting caller's wish to stop is looked at
};

#define MIN_PART_US 2000000
#define MAX_PART_US 20000000

// A picture and the samples that show it: index <= k < end.
struct shown {
    struct shown *next;
    AVFrame *picture;
    int64_t pts_us, index, end;
};

enum part_state { PART_RUNS, PART_WHOLE, PART_ODD };

// The samples from its key picture to that of the next part. Under the lock.
struct part {
    int number; // -1: this place was never taken
    struct lane *lane;
    enum part_state state;
    struct shown *head, *tail; // those not handed out yet; the head may be in use
    int has_begun;
    int64_t start_us, next_us;    // times of its own and of the next part's key picture, ...
    uint32_t start_sum, next_sum; // ... and checksums of them as this lane decoded them
    struct sl_source_counts counts;
    int64_t end_us; // of the last part: where the pictures end
    struct sl_error fault;
};

struct lane {
    struct sl_lanes *all;
    int number;
    pthread_t thread;
    int held; // pictures; under the lock

    // The thread's own.
    struct sl_session session;
    int is_open;
};

struct sl_lanes {
    const char *path;
    const struct sl_source_options *options; // the caller's
    struct sl_source_options own;            // the lanes'
    struct sl_source_options beside;         // of those that decode on the CPU beside a GPU
    struct sl_cuts cuts;                     // part p begins at cut p - 1
    int room;                                // pictures that each lane may hold
    struct lane *lanes;
    int lane_count, started;
    atomic_int stopping;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct part *parts; // a ring of PARTS_AHEAD for each lane
    int part_room;
    int next_part;       // to be taken by a lane
    int current;         // is being handed out
    int odd;             // no part behind this one is of use; INT_MAX: none is odd
    int64_t read_end_us; // of all lanes' inputs

    // The caller's thread's own.
    int64_t index;                        // of the next sample
    int64_t next_us;                      // as the part before said
    uint32_t next_sum;                    // likewise
    struct sl_source_counts before, last; // of the parts before the last whole one, and of that one
    int64_t end_us;
};

struct sl_source_counts sl_counts_sum(struct sl_source_counts a, struct sl_source_counts b)
{
    return (struct sl_source_counts){
        .decoded = a.decoded + b.decoded,
        .on_gpu = a.on_gpu + b.on_gpu,
        .skipped = a.skipped + b.skipped,
        .undated = a.undated + b.undated,
        .backward = a.backward + b.backward,
        .damaged = a.damaged + b.damaged,
    };
}

// Does it decode on the CPU beside others?
static int is_beside(const struct lane *lane)
{
    return lane->number >= lane->all->own.lanes;
}

// ---- A lane's thread

static int lanes_must_stop(void *context)
{
    struct sl_lanes *all = context;
    return atomic_load(&all->stopping);
}

static struct part *part_at(struct sl_lanes *all, int number)
{
    return &all->parts[number % all->part_room];
}

// Waits for a part to do; NULL: there is none left.
static struct part *take_part(struct lane *lane)
{
    struct sl_lanes *all = lane->all;
    struct part *part = NULL;
    pthread_mutex_lock(&all->lock);
    while (!atomic_load(&all->stopping) && all->next_part <= all->cuts.count && all->next_part <= all->odd &&
           all->next_part >= all->current + all->part_room) {
        pthread_cond_wait(&all->changed, &all->lock);
    }
    if (!atomic_load(&all->stopping) && all->next_part <= all->cuts.count && all->next_part <= all->odd) {
        part = part_at(all, all->next_part);
        *part = (struct part){.number = all->next_part, .lane = lane, .start_us = SL_NO_TIME, .next_us = SL_NO_TIME};
        all->next_part++;
    }
    pthread_mutex_unlock(&all->lock);
    return part;
}

static struct shown *new_shown(const struct sl_session *session, int64_t index)
{
    struct shown *shown = calloc(1, sizeof *shown);
    AVFrame *picture = av_frame_clone(session->shown.frame);
    if (shown == NULL || picture == NULL) {
        free(shown);
        av_frame_free(&picture);
        return NULL;
    }
    *shown = (struct shown){.picture = picture, .pts_us = session->shown.pts_us, .index = index, .end = index + 1};
    return shown;
}

// Waits while the lane holds enough. 0: nobody wants it.
static int append(struct part *part, struct shown *shown)
{
    struct sl_lanes *all = part->lane->all;
    pthread_mutex_lock(&all->lock);
    while (!atomic_load(&all->stopping) && part->number <= all->odd && part->lane->held >= all->room) {
        pthread_cond_wait(&all->changed, &all->lock);
    }
    int wanted = !atomic_load(&all->stopping) && part->number <= all->odd;
    if (wanted) {
        *(part->tail != NULL ? &part->tail->next : &part->head) = shown;
        part->tail = shown;
        part->lane->held++;
        pthread_cond_broadcast(&all->changed);
    }
    pthread_mutex_unlock(&all->lock);
    return wanted;
}

static void free_shown(struct shown *shown)
{
    av_frame_free(&shown->picture);
    free(shown);
}

static int hand_on(struct part *part, int64_t index, int is_new, struct sl_error *error)
{
    struct sl_lanes *all = part->lane->all;
    if (!is_new) {
        pthread_mutex_lock(&all->lock);
        part->tail->end = index + 1;
        pthread_cond_broadcast(&all->changed);
        pthread_mutex_unlock(&all->lock);
        return 1;
    }
    struct shown *shown = new_shown(&part->lane->session, index);
    if (shown == NULL) {
        sl_fail(error, SL_ERR_MEMORY, "out of memory for a picture of %s", all->path);
        return 0;
    }
    int done = append(part, shown);
    if (!done) {
        free_shown(shown);
    }
    return done;
}

// 1 if the lane stands before the part's first sample.
static int begin_part(struct part *part, struct sl_error *error)
{
    struct lane *lane = part->lane;
    struct sl_lanes *all = lane->all;
    struct sl_session *session = &lane->session;
    if (!lane->is_open) {
        const struct sl_source_options *options = is_beside(lane) ? &all->beside : &all->own;
        lane->is_open = sl_session_open(session, all->path, options, lane->number, error) == SL_OK;
    }
    int64_t next_us = SL_NO_TIME, start_us = SL_NO_TIME;
    uint32_t sum = 0;
    int is_last = part->number == all->cuts.count;
    int found = lane->is_open;
    if (found && !is_last) {
        found = sl_session_find_key(session, all->cuts.seek_us[part->number], &next_us, error) == 1;
    }
    if (found && part->number == 0) {
        found = sl_session_go_to_start(session, error) == SL_OK;
    } else if (found) {
        found = sl_session_begin(session, all->cuts.seek_us[part->number - 1], &start_us, error) == 1 &&
                sl_checksum(session->ahead.frame, &sum);
        session->index = sl_grid_first(&all->own, start_us);
    }
    session->to_us = is_last ? all->own.to_us : next_us;
    int is_in_order = (is_last || next_us > start_us) &&
                      (is_last || all->own.to_us == SL_NO_TIME || next_us < all->own.to_us) &&
                      (part->number == 0 || all->own.from_us == SL_NO_TIME || start_us >= all->own.from_us);
    pthread_mutex_lock(&all->lock);
    part->has_begun = 1;
    part->start_us = start_us;
    part->next_us = next_us;
    part->start_sum = sum;
    part->fault = *error; // who waits may go on without this part from here on
    pthread_mutex_unlock(&all->lock);
    return found && is_in_order;
}

// 1 if all of it was as it should be.
static int decode_part(struct part *part, struct sl_error *error)
{
    struct sl_session *session = &part->lane->session;
    int64_t index = 0;
    int is_new = 0;
    int status = SL_OK;
    for (;;) {
        status = sl_session_next(session, &index, &is_new, error);
        if (status != SL_OK || !sl_session_is_clean(session)) {
            break;
        }
        if (!hand_on(part, index, is_new, error)) {
            return 0;
        }
    }
    if (status != SL_END) {
        return 0;
    }
    if (part->next_us == SL_NO_TIME) {
        return sl_session_is_clean(session);
    }
    return sl_session_reach(session, part->next_us, error) == 1 && sl_session_is_clean(session) &&
           sl_checksum(session->ahead.frame, &part->next_sum);
}

static void end_part(struct part *part, int is_whole, const struct sl_error *fault)
{
    struct sl_lanes *all = part->lane->all;
    const struct sl_session *session = &part->lane->session;
    pthread_mutex_lock(&all->lock);
    part->state = is_whole ? PART_WHOLE : PART_ODD;
    part->counts = session->counts;
    part->end_us = session->end_us;
    part->fault = *fault;
    if (!is_whole && part->number < all->odd) {
        all->odd = part->number;
    }
    if (part->lane->is_open && session->input.read_end_us > all->read_end_us) {
        all->read_end_us = session->input.read_end_us;
    }
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
}

static void *run_lane(void *pointer)
{
    struct lane *lane = pointer;
    struct part *part;
    while ((part = take_part(lane)) != NULL) {
        struct sl_error fault = {0};
        int is_whole = begin_part(part, &fault) && decode_part(part, &fault);
        end_part(part, is_whole, &fault);
    }
    sl_session_close(&lane->session);
    return NULL;
}

// ---- The caller's side

static int pictures_room(const AVCodecParameters *codec)
{
    int64_t bytes = av_image_get_buffer_size(codec->format, codec->width, codec->height, 1);
    int64_t room = bytes > 0 ? MAX_PICTURES_BYTES / bytes : MIN_PICTURES;
    return room > MAX_PICTURES ? MAX_PICTURES : room < MIN_PICTURES ? MIN_PICTURES : (int)room;
}

// So long that a lane's room holds the samples of PARTS_AHEAD parts, and that no part is without samples.
static int64_t part_length_us(const struct sl_source_options *options, int room)
{
    int64_t length_us = sl_grid_us(options, room / PARTS_AHEAD);
    length_us = length_us < MIN_PART_US ? MIN_PART_US : length_us > MAX_PART_US ? MAX_PART_US : length_us;
    int64_t least_us = sl_grid_us(options, 2);
    return length_us > least_us ? length_us : least_us;
}

static int lane_threads(const struct sl_source_options *options, int lanes)
{
    int threads = options->threads > 0 ? options->threads : av_cpu_count();
    return threads > lanes ? threads / lanes : 1;
}

static struct sl_lanes *new_lanes(const char *path, const struct sl_source_options *options, int room,
                                  const struct sl_cuts *cuts)
{
    struct sl_lanes *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    made->path = path;
    made->options = options;
    made->own = *options;
    made->own.lanes = options->lanes > 1 ? options->lanes : 1;
    made->lane_count = made->own.lanes + options->cpu_lanes;
    made->own.threads = lane_threads(options, made->lane_count);
    made->own.interrupted = lanes_must_stop;
    made->own.note = NULL; // what is to be noted of the file is odd, and the session that takes over says it
    made->own.ctx = made;
    made->beside = made->own;
    made->beside.gpu.context = NULL;
    made->beside.threads = 1;
    made->cuts = *cuts;
    made->room = room;
    made->odd = INT_MAX;
    made->read_end_us = SL_NO_TIME;
    made->next_us = made->end_us = SL_NO_TIME;
    made->index = sl_grid_first(options, options->from_us);
    made->part_room = PARTS_AHEAD * made->lane_count;
    made->parts = calloc((size_t)made->part_room, sizeof *made->parts);
    made->lanes = calloc((size_t)made->lane_count, sizeof *made->lanes);
    pthread_mutex_init(&made->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&made->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return made;
}

int sl_lanes_start(const char *path, const struct sl_source_options *options, const struct sl_input *input,
                   struct sl_lanes **lanes, struct sl_error *error)
{
    *lanes = NULL;
    int room = pictures_room(input->stream->codecpar);
    int64_t from_us = options->from_us != SL_NO_TIME && options->from_us > 0 ? options->from_us : 0;
    struct sl_cuts cuts;
    int status = sl_cuts_find(input, from_us, options->to_us, part_length_us(options, room), &cuts, error);
    if (status != SL_OK || cuts.count == 0) {
        free(cuts.seek_us);
        return status;
    }
    struct sl_lanes *made = new_lanes(path, options, room, &cuts);
    if (made == NULL) {
        free(cuts.seek_us);
    }
    if (made == NULL || made->parts == NULL || made->lanes == NULL) {
        sl_lanes_stop(made);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    for (int i = 0; i < made->part_room; i++) {
        made->parts[i].number = -1;
    }
    for (int i = 0; i < made->lane_count; i++) {
        struct lane *lane = &made->lanes[i];
        *lane = (struct lane){.all = made, .number = i};
        if (pthread_create(&lane->thread, NULL, run_lane, lane) != 0) {
            break; // fewer do it too
        }
        made->started++;
    }
    if (made->started == 0) {
        sl_lanes_stop(made);
        return sl_fail(error, SL_ERR_MEMORY, "%s: no thread could be started", path);
    }
    *lanes = made;
    return SL_OK;
}

static void drop_head(struct sl_lanes *all, struct part *part)
{
    struct shown *head = part->head;
    if (head == NULL) {
        return;
    }
    part->head = head->next;
    part->tail = part->head != NULL ? part->tail : NULL;
    part->lane->held--;
    free_shown(head);
    pthread_cond_broadcast(&all->changed);
}

void sl_lanes_stop(struct sl_lanes *lanes)
{
    if (lanes == NULL) {
        return;
    }
    pthread_mutex_lock(&lanes->lock);
    atomic_store(&lanes->stopping, 1);
    pthread_cond_broadcast(&lanes->changed);
    pthread_mutex_unlock(&lanes->lock);
    for (int i = 0; i < lanes->started; i++) {
        pthread_join(lanes->lanes[i].thread, NULL);
    }
    for (int i = 0; i < lanes->part_room && lanes->parts != NULL; i++) {
        while (lanes->parts[i].head != NULL) {
            drop_head(lanes, &lanes->parts[i]);
        }
    }
    pthread_cond_destroy(&lanes->changed);
    pthread_mutex_destroy(&lanes->lock);
    free(lanes->cuts.seek_us);
    free(lanes->parts);
    free(lanes->lanes);
    free(lanes);
}

// 1 if the part begins where the one before ended, with the same picture.
static int joins(const struct sl_lanes *all, const struct part *part)
{
    return part->number == 0 || (part->start_us == all->next_us && part->start_sum == all->next_sum);
}

static void pass_part(struct sl_lanes *all, struct part *part)
{
    drop_head(all, part);
    all->before = sl_counts_sum(all->before, all->last);
    all->last = part->counts;
    all->next_us = part->next_us;
    all->next_sum = part->next_sum;
    all->end_us = part->end_us;
    all->current++;
    pthread_cond_broadcast(&all->changed);
}

// 1 and *turn, or 0 if nothing is there yet. Under the lock.
static int take_turn(struct sl_lanes *all, enum sl_lanes_turn *turn, struct sl_lanes_sample *sample)
{
    for (;;) {
        if (all->current > all->cuts.count) {
            *turn = SL_LANES_END;
            return 1;
        }
        struct part *part = part_at(all, all->current);
        if (part->number != all->current || !part->has_begun) {
            return 0;
        }
        struct shown *head = part->head;
        int is_gap = head != NULL && head->index > all->index;
        if (!joins(all, part) || is_gap || (head == NULL && part->state == PART_ODD)) {
            all->odd = part->number < all->odd ? part->number : all->odd;
            *turn = SL_LANES_HAND_OVER;
            return 1;
        }
        if (head != NULL && all->index < head->end) {
            *turn = SL_LANES_SAMPLE;
            *sample = (struct sl_lanes_sample){.index = all->index,
                                               .pts_us = head->pts_us,
                                               .picture = head->picture,
                                               .is_new = all->index == head->index,
                                               .is_beside = is_beside(part->lane)};
            all->index++;
            return 1;
        }
        if (head != NULL && (head->next != NULL || part->state == PART_ODD)) {
            drop_head(all, part);
        } else if (part->state == PART_WHOLE) {
            pass_part(all, part);
        } else {
            return 0;
        }
    }
}

static void wait_a_tick(struct sl_lanes *all)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&all->changed, &all->lock, &until);
}

int sl_lanes_next(struct sl_lanes *lanes, enum sl_lanes_turn *turn, struct sl_lanes_sample *sample,
                  struct sl_error *error)
{
    const struct sl_source_options *options = lanes->options;
    int is_there = 0;
    while (!is_there) {
        if (options->interrupted != NULL && options->interrupted(options->ctx)) {
            return sl_fail(error, SL_ERR_INTERRUPTED, "stopped while reading: %s", lanes->path);
        }
        pthread_mutex_lock(&lanes->lock);
        is_there = take_turn(lanes, turn, sample);
        if (!is_there) {
            wait_a_tick(lanes);
        }
        pthread_mutex_unlock(&lanes->lock);
    }
    return SL_OK;
}

struct sl_lanes_rest sl_lanes_rest(struct sl_lanes *lanes)
{
    struct sl_lanes_rest rest = {.index = lanes->index, .seek_us = SL_NO_TIME};
    // The part before is decoded once more: whatever is odd may reach back behind the key picture.
    if (lanes->current > 1) {
        rest.seek_us = lanes->cuts.seek_us[lanes->current - 2];
        rest.counts = lanes->before;
    }
    pthread_mutex_lock(&lanes->lock);
    rest.read_end_us = lanes->read_end_us;
    rest.fault = part_at(lanes, lanes->current)->fault;
    pthread_mutex_unlock(&lanes->lock);
    return rest;
}

int64_t sl_lanes_end_us(const struct sl_lanes *lanes)
{
    return lanes->end_us;
}

struct sl_source_counts sl_lanes_counts(const struct sl_lanes *lanes)
{
    return sl_counts_sum(lanes->before, lanes->last);
}
