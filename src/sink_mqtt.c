// SPDX-License-Identifier: Apache-2.0
// The sink for an MQTT broker: PREFIX/SOURCE/event, one message an event's turn; PREFIX/SOURCE/availability, retained
// "online" or "offline"; PREFIX/availability, retained, "offline" by the broker itself when the connection is lost.
#include "config.h"
#include "src/sink.h"

#if SL_HAVE_MOSQUITTO

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mosquitto.h>

#include "src/watch.h"

enum {
    PORT = 1883,
    KEEP_ALIVE_SECONDS = 30,
    UNANSWERED = 256,
    SOURCES = 256,
    LOOP_MS = 100,
    RETRY_FIRST_MS = 500,
    RETRY_MOST_MS = 15000
};

struct broker {
    struct mosquitto *client;
    char host[256], user[128], password[128], prefix[128], status_topic[160];
    int port;
    pthread_mutex_t lock;
    pthread_t thread;
    int closing;
    int connected, unanswered;
    struct {
        char topic[420];
        int online;
    } known[SOURCES]; // told again after each reconnect
    int known_count;
};

// mqtt://[user[:password]@]host[:port][/prefix]
static int read_url(const char *url, struct broker *b, struct sl_error *error)
{
    const char *rest = strncmp(url, "mqtt://", 7) == 0 ? url + 7 : NULL;
    if (rest == NULL) {
        return sl_fail(error, SL_ERR_USAGE, "--mqtt: must be mqtt://[user:password@]host[:port][/prefix]");
    }
    size_t authority = strcspn(rest, "/");
    snprintf(b->prefix, sizeof b->prefix, "%s",
             rest[authority] != 0 && rest[authority + 1] != 0 ? rest + authority + 1 : "scenelog");
    const char *host = rest;
    for (size_t i = 0; i < authority; i++) {
        host = rest[i] == '@' ? rest + i + 1 : host;
    }
    if (host != rest) {
        size_t user = strcspn(rest, ":@");
        snprintf(b->user, sizeof b->user, "%.*s", (int)user, rest);
        if (rest[user] == ':') {
            snprintf(b->password, sizeof b->password, "%.*s", (int)(host - 1 - (rest + user + 1)), rest + user + 1);
        }
    }
    size_t left = authority - (size_t)(host - rest);
    size_t name = strcspn(host, ":/");
    name = name < left ? name : left;
    b->port = host[name] == ':' ? atoi(host + name + 1) : PORT;
    if (name == 0 || name >= sizeof b->host || b->port < 1 || b->port > 65535) {
        return sl_fail(error, SL_ERR_USAGE, "--mqtt: no host, or a port that cannot be");
    }
    snprintf(b->host, sizeof b->host, "%.*s", (int)name, host);
    snprintf(b->status_topic, sizeof b->status_topic, "%s/availability", b->prefix);
    return SL_OK;
}

// ---- On the broker's thread

static void on_connect(struct mosquitto *client, void *pointer, int code)
{
    struct broker *b = pointer;
    if (code != 0) {
        return; // refused: the library tries again
    }
    pthread_mutex_lock(&b->lock);
    b->connected = 1;
    b->unanswered = 0;
    (void)mosquitto_publish(client, NULL, b->status_topic, 6, "online", 1, true); // lost only if the connection is
    for (int i = 0; i < b->known_count; i++) {
        const char *text = b->known[i].online ? "online" : "offline";
        (void)mosquitto_publish(client, NULL, b->known[i].topic, (int)strlen(text), text, 1, true);
    }
    pthread_mutex_unlock(&b->lock);
}

static void on_disconnect(struct mosquitto *client, void *pointer, int code)
{
    struct broker *b = pointer;
    (void)client, (void)code;
    pthread_mutex_lock(&b->lock);
    b->connected = 0;
    pthread_mutex_unlock(&b->lock);
}

static void on_publish(struct mosquitto *client, void *pointer, int id)
{
    struct broker *b = pointer;
    (void)client, (void)id;
    pthread_mutex_lock(&b->lock);
    b->unanswered -= b->unanswered > 0;
    pthread_mutex_unlock(&b->lock);
}

static int is_closing(struct broker *b)
{
    pthread_mutex_lock(&b->lock);
    int closing = b->closing;
    pthread_mutex_unlock(&b->lock);
    return closing;
}

// The library's own thread gives up when the first connection fails; this one never does.
static void *serve(void *pointer)
{
    struct broker *b = pointer;
    int wait_ms = RETRY_FIRST_MS;
    (void)mosquitto_connect_async(b->client, b->host, b->port, KEEP_ALIVE_SECONDS); // the loop finds out
    for (;;) {
        int64_t begun_us = sl_watch_now_us();
        while (mosquitto_loop(b->client, LOOP_MS, 1) == MOSQ_ERR_SUCCESS) {
        }
        if (is_closing(b)) {
            return NULL;
        }
        wait_ms = sl_watch_now_us() - begun_us > RETRY_MOST_MS * INT64_C(1000) ? RETRY_FIRST_MS : wait_ms;
        for (int ms = 0; ms < wait_ms && !is_closing(b); ms += LOOP_MS) {
            nanosleep(&(struct timespec){.tv_nsec = LOOP_MS * 1000000L}, NULL);
        }
        wait_ms = wait_ms * 2 < RETRY_MOST_MS ? wait_ms * 2 : RETRY_MOST_MS;
        (void)mosquitto_reconnect_async(b->client);
    }
}

// ---- On the sink's thread

static void keep_availability(struct broker *b, const char *topic, int online)
{
    pthread_mutex_lock(&b->lock);
    int i = 0;
    while (i < b->known_count && strcmp(b->known[i].topic, topic) != 0) {
        i++;
    }
    if (i < SOURCES) {
        b->known_count += i == b->known_count;
        snprintf(b->known[i].topic, sizeof b->known[i].topic, "%s", topic);
        b->known[i].online = online;
    }
    pthread_mutex_unlock(&b->lock);
}

static int publish(struct sl_sink *sink, const struct sl_sink_message *message, struct sl_error *error)
{
    struct broker *b = sink->own;
    char topic[420];
    snprintf(topic, sizeof topic, "%s/%s", b->prefix, message->topic);
    if (message->retain) {
        keep_availability(b, topic, strcmp(message->text, "online") == 0);
    }
    pthread_mutex_lock(&b->lock);
    int ready = b->connected && b->unanswered < UNANSWERED;
    b->unanswered += ready;
    pthread_mutex_unlock(&b->lock);
    if (!ready) {
        return message->retain ? SL_OK // told when the connection stands
                               : sl_fail(error, SL_ERR_IO, "%s:%d: the broker does not answer", b->host, b->port);
    }
    int code =
        mosquitto_publish(b->client, NULL, topic, (int)strlen(message->text), message->text, 1, message->retain != 0);
    return code == MOSQ_ERR_SUCCESS
               ? SL_OK
               : sl_fail(error, SL_ERR_IO, "%s:%d: %s", b->host, b->port, mosquitto_strerror(code));
}

static void destroy(struct broker *b)
{
    if (b->client != NULL) {
        mosquitto_destroy(b->client);
    }
    (void)mosquitto_lib_cleanup();
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static void close_broker(struct sl_sink *sink)
{
    struct broker *b = sink->own;
    if (b->connected) {
        for (int i = 0; i < b->known_count; i++) {
            (void)mosquitto_publish(b->client, NULL, b->known[i].topic, 7, "offline", 1, true);
        }
        (void)mosquitto_publish(b->client, NULL, b->status_topic, 7, "offline", 1, true);
    }
    pthread_mutex_lock(&b->lock);
    b->closing = 1;
    pthread_mutex_unlock(&b->lock);
    (void)mosquitto_disconnect(b->client); // what is queued goes out before; fails when there is no connection
    pthread_join(b->thread, NULL);
    destroy(b);
}

static int start(struct broker *b, struct sl_error *error)
{
    b->client = mosquitto_new(NULL, true, b);
    if (b->client == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    mosquitto_connect_callback_set(b->client, on_connect);
    mosquitto_disconnect_callback_set(b->client, on_disconnect);
    mosquitto_publish_callback_set(b->client, on_publish);
    int code = b->user[0] != 0 ? mosquitto_username_pw_set(b->client, b->user, b->password) : MOSQ_ERR_SUCCESS;
    if (code == MOSQ_ERR_SUCCESS) {
        code = mosquitto_will_set(b->client, b->status_topic, 7, "offline", 1, true);
    }
    if (code == MOSQ_ERR_SUCCESS) {
        code = mosquitto_threaded_set(b->client, true);
    }
    if (code != MOSQ_ERR_SUCCESS) {
        return sl_fail(error, SL_ERR_INTERNAL, "--mqtt: %s", mosquitto_strerror(code));
    }
    return pthread_create(&b->thread, NULL, serve, b) == 0
               ? SL_OK
               : sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
}

int sl_sink_open_mqtt(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error)
{
    struct broker *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    (void)mosquitto_lib_init(); // cannot fail on POSIX
    pthread_mutex_init(&b->lock, NULL);
    int status = read_url(options->mqtt, b, error);
    if (status == SL_OK) {
        status = start(b, error);
    }
    if (status != SL_OK) {
        destroy(b);
        return status;
    }
    sink->own = b;
    sink->wants_availability = 1;
    sink->deliver = publish;
    sink->close = close_broker;
    return SL_OK;
}

#else

int sl_sink_open_mqtt(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error)
{
    (void)sink, (void)options;
    return sl_fail(error, SL_ERR_USAGE, "--mqtt: this scenelog was built without libmosquitto");
}

#endif
