// SPDX-License-Identifier: Apache-2.0
// The engine: a waiting list that any thread adds to, and one thread that admits requests by priority, deadline and
// arrival, as many as slots and KV pages allow, and runs step after step over them (batch.c).
//
// Under the lock: the waiting list, `stopping`, and the tickets of the slots, which cancel looks through. All else
// belongs to the engine's thread. Callbacks run on it without the lock.
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lm/batch.h"

enum { WAITING_PER_SLOT = 8 };

struct sl_engine {
    struct sl_model_config config;
    struct sl_vocabulary vocabulary;
    struct sl_batch *batch;
    int slot_count;
    struct sl_sequence *slots;   // [slot_count]
    struct sl_sequence **active; // [slot_count] those in use, in the order of admission
    int active_count;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change; // something to do
    struct sl_ticket *waiting;
    int waiting_count, waiting_capacity;
    uint64_t last_number;
    int stopping;
};

// ---- The waiting list, under the lock

static int is_due(const struct sl_ticket *ticket, int64_t now_us)
{
    return ticket->request.deadline_us && now_us >= ticket->request.deadline_us;
}

// Goes `a` before `b`? The list itself is in order of arrival.
static int goes_before(const struct sl_ticket *a, const struct sl_ticket *b)
{
    if (a->request.priority != b->request.priority) {
        return a->request.priority > b->request.priority;
    }
    int64_t x = a->request.deadline_us ? a->request.deadline_us : INT64_MAX;
    int64_t y = b->request.deadline_us ? b->request.deadline_us : INT64_MAX;
    return x < y;
}

static struct sl_ticket take_waiting(struct sl_engine *e, int index)
{
    struct sl_ticket taken = e->waiting[index];
    memmove(e->waiting + index, e->waiting + index + 1, (size_t)(--e->waiting_count - index) * sizeof *e->waiting);
    return taken;
}

static struct sl_sequence *free_slot(struct sl_engine *e)
{
    struct sl_sequence *slot = e->slots;
    while (slot->ticket.number) {
        slot++;
    }
    return slot;
}

static int64_t tokens_of(const struct sl_ticket *ticket)
{
    return ticket->prompt_tokens + ticket->request.max_new_tokens;
}

// What the waiting list has for the engine's thread: a request to refuse, or a slot that now holds one to begin.
struct work {
    int refused;
    struct sl_ticket ticket;  // the refused one,
    struct sl_error why;      //   and why
    struct sl_sequence *slot; // NULL: none
};

static void say_why(const struct sl_engine *e, const struct sl_ticket *ticket, struct sl_error *error)
{
    sl_fail(error, SL_ERR_INTERRUPTED,
            e->stopping         ? "cancelled: the engine is closing"
            : ticket->cancelled ? "cancelled"
                                : "cancelled: the deadline has passed");
}

// What is to be refused goes before all others. The first of the rest blocks those behind it until it fits, so that a
// long one is not passed by short ones for ever.
static void pick(struct sl_engine *e, struct work *work)
{
    int first = -1;
    int64_t now_us = sl_now_us();
    work->refused = 0;
    work->slot = NULL;
    for (int i = 0; i < e->waiting_count; i++) {
        if (e->stopping || e->waiting[i].cancelled || is_due(&e->waiting[i], now_us)) {
            work->refused = 1;
            work->ticket = take_waiting(e, i);
            say_why(e, &work->ticket, &work->why);
            return;
        }
        if (first < 0 || goes_before(&e->waiting[i], &e->waiting[first])) {
            first = i;
        }
    }
    if (first >= 0 && e->active_count < e->slot_count && sl_batch_has_room(e->batch, tokens_of(&e->waiting[first]))) {
        work->slot = free_slot(e);
        work->slot->ticket = take_waiting(e, first);
    }
}

// ---- The engine's thread

static void admit(struct sl_engine *e, struct sl_sequence *slot)
{
    struct sl_error error = {0};
    int rc = sl_sequence_begin(slot, &e->vocabulary, &error);
    if (!rc) {
        rc = sl_batch_admit(e->batch, slot, e->active, e->active_count, &error);
    }
    if (rc) {
        sl_sequence_stop(slot, SL_FINISH_FAILED, &error);
    }
    e->active[e->active_count++] = slot;
}

// Marks what is cancelled or late as done.
static void drop_cancelled(struct sl_engine *e)
{
    int64_t now_us = sl_now_us();
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < e->active_count; i++) {
        struct sl_sequence *s = e->active[i];
        if (!s->done && (e->stopping || s->ticket.cancelled || is_due(&s->ticket, now_us))) {
            struct sl_error error;
            say_why(e, &s->ticket, &error);
            sl_sequence_stop(s, SL_FINISH_CANCELLED, &error);
        }
    }
    pthread_mutex_unlock(&e->lock);
}

// Answers those that are done and frees their slots.
static void end_done(struct sl_engine *e)
{
    int left = 0;
    for (int i = 0; i < e->active_count; i++) {
        struct sl_sequence *s = e->active[i];
        if (!s->done) {
            e->active[left++] = s;
            continue;
        }
        sl_sequence_end(s);
        pthread_mutex_lock(&e->lock);
        s->ticket.number = 0;
        pthread_mutex_unlock(&e->lock);
    }
    e->active_count = left;
}

// Waits until there is something to do; 0 when the engine is to end and has nothing left.
static int next_work(struct sl_engine *e, struct work *work)
{
    pthread_mutex_lock(&e->lock);
    while (!e->stopping && !e->active_count && !e->waiting_count) {
        pthread_cond_wait(&e->change, &e->lock);
    }
    pick(e, work);
    int going = work->refused || work->slot || e->active_count || !e->stopping;
    pthread_mutex_unlock(&e->lock);
    return going;
}

static void *run(void *argument)
{
    struct sl_engine *e = argument;
    struct work work;
    while (next_work(e, &work)) {
        if (work.refused) {
            sl_ticket_refuse(&work.ticket, SL_FINISH_CANCELLED, &work.why);
        } else if (work.slot) {
            admit(e, work.slot);
        } else {
            drop_cancelled(e);
            end_done(e);
            sl_batch_step(e->batch, e->active, e->active_count);
            end_done(e);
        }
    }
    return NULL;
}

// ---- Life

static int check_options(const struct sl_engine_options *options, struct sl_error *error)
{
    if (options->max_sequences < 1 || options->prefill_rows < 1 || options->kv_tokens < 1) {
        return sl_fail(error, SL_ERR_USAGE,
                       "engine: %d sequences, %d prompt rows a step, %lld KV tokens: all must be "
                       "positive",
                       options->max_sequences, options->prefill_rows, (long long)options->kv_tokens);
    }
    if (options->compute != SL_F32 && options->compute != SL_BF16) {
        return sl_fail(error, SL_ERR_USAGE, "engine: computes in f32 or bf16, not %s", sl_dtype_name(options->compute));
    }
    return SL_OK;
}

static int allocate(struct sl_engine *e, struct sl_error *error)
{
    e->slots = calloc((size_t)e->slot_count, sizeof *e->slots);
    e->active = calloc((size_t)e->slot_count, sizeof *e->active);
    e->waiting_capacity = WAITING_PER_SLOT * e->slot_count;
    e->waiting = calloc((size_t)e->waiting_capacity, sizeof *e->waiting);
    if (!e->slots || !e->active || !e->waiting) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: engine");
    }
    return SL_OK;
}

static void release(struct sl_engine *e)
{
    sl_batch_destroy(e->batch);
    sl_vocabulary_finish(&e->vocabulary);
    for (int i = 0; e->slots && i < e->slot_count; i++) {
        sl_sequence_release(&e->slots[i]);
    }
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->change);
    free(e->slots);
    free(e->active);
    free(e->waiting);
    free(e);
}

int sl_engine_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                     const struct sl_tokenizer *tokenizer, const struct sl_engine_options *options,
                     struct sl_engine **out, struct sl_error *error)
{
    int rc = check_options(options, error);
    if (rc) {
        return rc;
    }
    struct sl_engine *e = calloc(1, sizeof *e);
    if (!e) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: engine");
    }
    struct sl_engine_options batch = *options;
    batch.max_sequences = options->deterministic ? 1 : options->max_sequences;
    e->config = *config;
    e->slot_count = batch.max_sequences;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->change, NULL);
    rc = allocate(e, error);
    if (!rc) {
        rc = sl_vocabulary_init(&e->vocabulary, tokenizer, config, error);
    }
    if (!rc) {
        rc = sl_batch_create(device, weights, config, &e->vocabulary, &batch, &e->batch, error);
    }
    if (!rc && pthread_create(&e->thread, NULL, run, e)) {
        rc = sl_fail(error, SL_ERR_MEMORY, "engine: no thread");
    }
    if (rc) {
        release(e);
        return rc;
    }
    *out = e;
    return SL_OK;
}

void sl_engine_destroy(struct sl_engine *engine)
{
    if (!engine) {
        return;
    }
    pthread_mutex_lock(&engine->lock);
    engine->stopping = 1;
    pthread_cond_broadcast(&engine->change);
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->thread, NULL);
    release(engine);
}

// ---- Requests, from any thread

static int check_sampling(const struct sl_sampling *s, struct sl_error *error)
{
    if (!(s->temperature >= 0 && isfinite(s->temperature))) {
        return sl_fail(error, SL_ERR_USAGE, "temperature %g: must be 0 or more", s->temperature);
    }
    if (!(s->top_p > 0 && s->top_p <= 1)) {
        return sl_fail(error, SL_ERR_USAGE, "top_p %g: must be above 0 and at most 1", s->top_p);
    }
    if (s->top_k < 0 || !isfinite(s->presence)) {
        return sl_fail(error, SL_ERR_USAGE, "top_k %d, presence penalty %g: impossible", s->top_k, s->presence);
    }
    return SL_OK;
}

// An id outside the vocabulary would fail the whole step, and others with it.
static int check_ids(const struct sl_engine *e, const struct sl_request *request, struct sl_error *error)
{
    for (int i = 0; i < request->segment_count; i++) {
        const struct sl_segment *s = &request->segments[i];
        for (int64_t k = 0; s->ids && k < s->count; k++) {
            if (s->ids[k] < 0 || s->ids[k] >= e->vocabulary.size) {
                return sl_fail(error, SL_ERR_USAGE,
                               "prompt segment %d: token %d is not in the model's vocabulary of %d", i, s->ids[k],
                               e->vocabulary.size);
            }
        }
    }
    return SL_OK;
}

// Could it ever be admitted? Positions are limited by the model, tokens by the KV pages.
static int check_size(const struct sl_engine *e, const struct sl_ticket *ticket, struct sl_error *error)
{
    int64_t answer = ticket->request.max_new_tokens, total = sl_batch_total_tokens(e->batch);
    int64_t limit = e->config.text.max_positions;
    if (ticket->end_position + answer > limit) {
        return sl_fail(error, SL_ERR_USAGE, "prompt of %lld positions and answer of %lld: the model takes %lld",
                       (long long)ticket->end_position, (long long)answer, (long long)limit);
    }
    if (tokens_of(ticket) > total) {
        return sl_fail(
            error, SL_ERR_USAGE,
            "prompt of %lld tokens and answer of %lld: the KV cache holds %lld in all; shorten the window or "
            "lower the tokens per pair to fit a prompt of %lld",
            (long long)ticket->prompt_tokens, (long long)answer, (long long)total,
            (long long)(total > answer ? total - answer : 0));
    }
    return SL_OK;
}

static int enqueue(struct sl_engine *e, struct sl_ticket *ticket, struct sl_error *error)
{
    if (e->stopping) {
        return sl_fail(error, SL_ERR_INTERRUPTED, "the engine is closing");
    }
    if (e->waiting_count == e->waiting_capacity) {
        return sl_fail(error, SL_ERR_BUSY, "the engine's waiting list is full: %d requests", e->waiting_capacity);
    }
    ticket->number = ++e->last_number;
    e->waiting[e->waiting_count++] = *ticket;
    pthread_cond_signal(&e->change);
    return SL_OK;
}

int sl_engine_submit(struct sl_engine *engine, const struct sl_request *request, uint64_t *ticket,
                     struct sl_error *error)
{
    struct sl_ticket entry = {.request = *request};
    if (request->grammar) {
        entry.rules = *request->grammar;
    }
    int rc =
        sl_prompt_measure(request->segments, request->segment_count, &entry.prompt_tokens, &entry.end_position, error);
    if (!rc) {
        rc = check_ids(engine, request, error);
    }
    if (!rc) {
        rc = check_sampling(&request->sampling, error);
    }
    if (!rc) {
        rc = sl_ticket_check_answer(&entry, &engine->vocabulary, error);
    }
    if (!rc) {
        rc = check_size(engine, &entry, error);
    }
    if (rc) {
        return rc;
    }
    pthread_mutex_lock(&engine->lock);
    rc = enqueue(engine, &entry, error);
    if (!rc && ticket) {
        *ticket = entry.number;
    }
    pthread_mutex_unlock(&engine->lock);
    return rc;
}

void sl_engine_cancel(struct sl_engine *engine, uint64_t ticket)
{
    pthread_mutex_lock(&engine->lock);
    for (int i = 0; i < engine->waiting_count; i++) {
        engine->waiting[i].cancelled |= engine->waiting[i].number == ticket;
    }
    for (int i = 0; i < engine->slot_count; i++) {
        engine->slots[i].ticket.cancelled |= engine->slots[i].ticket.number == ticket;
    }
    pthread_mutex_unlock(&engine->lock);
}
