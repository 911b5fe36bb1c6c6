// SPDX-License-Identifier: Apache-2.0
#include "src/sinks.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>

#include "core/hash.h"
#include "core/time.h"
#include "src/sink.h"

enum {
    QUEUE = 256,    // messages of one sink that wait
    ATTEMPTS = 3,   // of one delivery; between them a second, then two
    BURST = 20,     // events told to commands and brokers at once; then PER_SECOND
    PER_SECOND = 5, //
    REMEMBERED = 512,
    END_SECONDS = 2,
};

struct queue {
    struct sl_sink sink;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    struct sl_sink_message items[QUEUE];
    int first, count;
    int closing, busy; // closing: no more attempts after the next failure
    struct sl_sinks_counts counts;
    char said[256]; // the last complaint
};

// What rules decided about an event, and when its words were told last.
struct memory {
    int64_t event; // 0: free
    uint64_t words;
    int64_t start_us; // Unix time; told only
    int told;
};

struct sl_sinks {
    struct sl_sinks_options options;
    struct queue *queues[3];
    int queue_count;
    int jsonl; // 1: queues[0] takes all events
    pthread_mutex_t lock;
    struct memory memory[REMEMBERED];
    int next;
    double allowance; // events that may be told now
    int64_t refilled_us;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// ---- One sink's queue and thread

static void free_message(struct sl_sink_message *message)
{
    free(message->topic);
    free(message->text);
}

static void complain(struct queue *q, const char *why)
{
    if (strcmp(q->said, why) != 0) {
        char line[400];
        snprintf(q->said, sizeof q->said, "%s", why);
        snprintf(line, sizeof line, "%s: %s; watching goes on", q->sink.name, why);
        q->sink.options->note(q->sink.options->context, line);
    }
}

// Waits, unless the queue is closing: 0 then.
static int pause_between(struct queue *q, int seconds)
{
    int64_t until_us = now_us() + seconds * INT64_C(1000000);
    int closing = 0;
    while (!closing && now_us() < until_us) {
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        pthread_mutex_lock(&q->lock);
        closing = q->closing;
        pthread_mutex_unlock(&q->lock);
    }
    return !closing;
}

static int deliver(struct queue *q, const struct sl_sink_message *message)
{
    for (int attempt = 1;; attempt++) {
        struct sl_error error = {0};
        if (q->sink.deliver(&q->sink, message, &error) == SL_OK) {
            q->said[0] = 0;
            return 1;
        }
        complain(q, error.text);
        if (attempt == ATTEMPTS || !pause_between(q, attempt)) {
            return 0;
        }
    }
}

static void *serve(void *pointer)
{
    struct queue *q = pointer;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (q->count == 0 && !q->closing) {
            pthread_cond_wait(&q->change, &q->lock);
        }
        if (q->count == 0) {
            break;
        }
        struct sl_sink_message message = q->items[q->first];
        q->first = (q->first + 1) % QUEUE;
        q->count--;
        pthread_mutex_unlock(&q->lock);
        int told = deliver(q, &message);
        free_message(&message);
        pthread_mutex_lock(&q->lock);
        *(told ? &q->counts.told : &q->counts.failed) += 1;
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

static void push(struct queue *q, const char *topic, const char *text, int retain)
{
    struct sl_sink_message message = {strdup(topic), strdup(text), retain};
    pthread_mutex_lock(&q->lock);
    int fits = q->count < QUEUE && message.topic != NULL && message.text != NULL;
    if (fits) {
        q->items[(q->first + q->count++) % QUEUE] = message;
        pthread_cond_signal(&q->change);
    } else {
        q->counts.dropped++;
    }
    pthread_mutex_unlock(&q->lock);
    if (!fits) {
        free_message(&message);
    }
}

static int add_queue(struct sl_sinks *sinks, const char *name,
                     int (*open)(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error),
                     struct sl_error *error)
{
    struct queue *q = calloc(1, sizeof *q);
    if (q == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    q->sink = (struct sl_sink){.name = name, .options = &sinks->options};
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->change, NULL);
    int status = open(&q->sink, &sinks->options, error);
    if (status == SL_OK && pthread_create(&q->thread, NULL, serve, q) != 0) {
        q->sink.close(&q->sink);
        status = sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
    }
    if (status != SL_OK) {
        free(q);
        return status;
    }
    sinks->queues[sinks->queue_count++] = q;
    return SL_OK;
}

static void end_queue(struct queue *q)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += END_SECONDS;
    pthread_mutex_lock(&q->lock);
    q->closing = 1;
    pthread_cond_signal(&q->change);
    pthread_mutex_unlock(&q->lock);
    if (pthread_timedjoin_np(q->thread, NULL, &until) != 0) {
        return; // it hangs in a write or a connection: the process is about to end, and its memory with it
    }
    q->sink.close(&q->sink);
    for (; q->count > 0; q->count--, q->first = (q->first + 1) % QUEUE) {
        free_message(&q->items[q->first]);
    }
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->change);
    free(q);
}

// ---- Life

int sl_sinks_create(const struct sl_sinks_options *options, struct sl_sinks **out, struct sl_error *error)
{
    struct sl_sinks *sinks = calloc(1, sizeof *sinks);
    if (sinks == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    sinks->options = *options;
    sinks->allowance = BURST;
    sinks->refilled_us = now_us();
    pthread_mutex_init(&sinks->lock, NULL);
    int status = SL_OK;
    if (options->jsonl) {
        sinks->jsonl = 1;
        status = add_queue(sinks, "standard output", sl_sink_open_lines, error);
    }
    if (status == SL_OK && options->on_event != NULL) {
        status = add_queue(sinks, "--on-event", sl_sink_open_hook, error);
    }
    if (status == SL_OK && options->mqtt != NULL) {
        status = add_queue(sinks, "--mqtt", sl_sink_open_mqtt, error);
    }
    if (status != SL_OK) {
        sl_sinks_destroy(sinks);
        return status;
    }
    *out = sinks;
    return SL_OK;
}

void sl_sinks_destroy(struct sl_sinks *sinks)
{
    if (sinks == NULL) {
        return;
    }
    for (int i = 0; i < sinks->queue_count; i++) {
        end_queue(sinks->queues[i]);
    }
    pthread_mutex_destroy(&sinks->lock);
    free(sinks);
}

struct sl_sinks_counts sl_sinks_counts(struct sl_sinks *sinks)
{
    struct sl_sinks_counts sum = {0};
    for (int i = 0; i < sinks->queue_count; i++) {
        struct queue *q = sinks->queues[i];
        pthread_mutex_lock(&q->lock);
        sum.told += q->counts.told;
        sum.failed += q->counts.failed;
        sum.dropped += q->counts.dropped;
        pthread_mutex_unlock(&q->lock);
    }
    return sum;
}

// ---- Rules

static int holds_a_word(const struct sl_tell_rules *rules, const char *text)
{
    for (int i = 0; i < rules->word_count; i++) {
        if (strcasestr(text, rules->words[i]) != NULL) {
            return 1;
        }
    }
    return rules->word_count == 0;
}

static struct memory *remember(struct sl_sinks *sinks, int64_t event)
{
    for (int i = 0; i < REMEMBERED; i++) {
        if (sinks->memory[i].event == event) {
            return &sinks->memory[i];
        }
    }
    struct memory *memory = &sinks->memory[sinks->next];
    sinks->next = (sinks->next + 1) % REMEMBERED;
    *memory = (struct memory){.event = event};
    return memory;
}

static int is_cooling(const struct sl_sinks *sinks, const struct sl_tell_rules *rules, uint64_t words, int64_t start_us)
{
    for (int i = 0; i < REMEMBERED && rules->cool_down_us > 0; i++) {
        const struct memory *other = &sinks->memory[i];
        if (other->told && other->words == words && start_us - other->start_us < rules->cool_down_us) {
            return 1;
        }
    }
    return 0;
}

static int is_allowed(struct sl_sinks *sinks)
{
    int64_t at_us = now_us();
    sinks->allowance += (double)(at_us - sinks->refilled_us) / 1e6 * PER_SECOND;
    sinks->allowance = sinks->allowance > BURST ? BURST : sinks->allowance;
    sinks->refilled_us = at_us;
    if (sinks->allowance < 1) {
        return 0;
    }
    sinks->allowance -= 1;
    return 1;
}

// Is it worth telling? An event that was told once is told to its end.
static int passes(struct sl_sinks *sinks, const struct sl_db_event *event, const struct sl_tell_rules *rules)
{
    struct memory *memory = remember(sinks, event->id);
    if (memory->told || rules == NULL) {
        return memory->told || rules == NULL;
    }
    uint64_t words = sl_hash64(event->text, strlen(event->text), sl_hash64(event->source, strlen(event->source), 0));
    if (event->end_us - event->start_us < rules->min_length_us || !holds_a_word(rules, event->text) ||
        is_cooling(sinks, rules, words, event->wall_start_us)) {
        return 0;
    }
    memory->told = 1;
    memory->words = words;
    memory->start_us = event->wall_start_us;
    return 1;
}

// ---- Events

static char *json_of(enum sl_turn turn, const struct sl_db_event *event)
{
    static const char *const turns[] = {"start", "update", "end"};
    char start[SL_TIME_TEXT], end[SL_TIME_TEXT];
    sl_time_format_absolute(event->wall_start_us, NULL, start);
    sl_time_format_absolute(event->wall_end_us, NULL, end);
    cJSON *json = cJSON_CreateObject();
    int whole = cJSON_AddStringToObject(json, "type", turns[turn]) != NULL &&
                cJSON_AddNumberToObject(json, "id", (double)event->id) != NULL &&
                cJSON_AddNumberToObject(json, "revision", (double)event->revision) != NULL &&
                cJSON_AddStringToObject(json, "source", event->source) != NULL &&
                cJSON_AddStringToObject(json, "start", start) != NULL &&
                cJSON_AddStringToObject(json, "end", end) != NULL &&
                cJSON_AddStringToObject(json, "text", event->text) != NULL &&
                (event->confidence < 0 ? cJSON_AddNullToObject(json, "confidence")
                                       : cJSON_AddNumberToObject(json, "confidence", event->confidence)) != NULL &&
                cJSON_AddBoolToObject(json, "open", event->open) != NULL &&
                cJSON_AddStringToObject(json, "model", event->model) != NULL;
    char *text = whole ? cJSON_PrintUnformatted(json) : NULL;
    cJSON_Delete(json);
    return text;
}

// A source's name as one level of a topic.
static void topic_of(const char *source, const char *leaf, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", source, leaf);
    for (size_t i = 0; source[i] != 0 && i + 1 < size; i++) {
        unsigned char c = (unsigned char)out[i];
        out[i] = strchr("/+#", c) != NULL || c < 0x20 ? '_' : (char)c;
    }
}

void sl_sinks_event(struct sl_sinks *sinks, enum sl_turn turn, const struct sl_db_event *event,
                    const struct sl_tell_rules *rules)
{
    char topic[SL_DB_NAME_BYTES + 16];
    char *text = json_of(turn, event);
    if (text == NULL) {
        return; // out of memory: the index has it
    }
    topic_of(event->source, "event", topic, sizeof topic);
    if (sinks->jsonl) {
        push(sinks->queues[0], topic, text, 0);
    }
    pthread_mutex_lock(&sinks->lock);
    int tells = passes(sinks, event, rules);
    int fits = tells && is_allowed(sinks);
    pthread_mutex_unlock(&sinks->lock);
    for (int i = sinks->jsonl; i < sinks->queue_count && tells; i++) {
        if (fits) {
            push(sinks->queues[i], topic, text, 0);
        } else {
            pthread_mutex_lock(&sinks->queues[i]->lock);
            sinks->queues[i]->counts.dropped++;
            pthread_mutex_unlock(&sinks->queues[i]->lock);
        }
    }
    free(text);
}

void sl_sinks_availability(struct sl_sinks *sinks, const char *source, int online)
{
    char topic[SL_DB_NAME_BYTES + 16];
    topic_of(source, "availability", topic, sizeof topic);
    for (int i = 0; i < sinks->queue_count; i++) {
        if (sinks->queues[i]->sink.wants_availability) {
            push(sinks->queues[i], topic, online ? "online" : "offline", 1);
        }
    }
}
