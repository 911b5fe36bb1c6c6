// SPDX-License-Identifier: Apache-2.0
#include "src/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { POLL_MS = 200, PATIENCE_MS = 1000 };

struct sl_metrics {
    struct sl_watch *watch;
    struct sl_sinks *sinks;
    pthread_t thread;
    int listener;
    atomic_int stopping;
};

// ---- The text

static void put_name(FILE *out, const char *name)
{
    for (; *name != 0; name++) {
        if (*name == '"' || *name == '\\') {
            fputc('\\', out);
        }
        fputc((unsigned char)*name < 0x20 ? ' ' : *name, out);
    }
}

struct figure {
    const char *name, *type, *help;
    double (*value)(struct sl_camera *camera);
};

#define COUNT(field)                                                                                                   \
    static double field##_of(struct sl_camera *camera)                                                                 \
    {                                                                                                                  \
        return (double)atomic_load(&camera->stats.field);                                                              \
    }
COUNT(connected)
COUNT(decoded)
COUNT(sampled)
COUNT(damaged)
COUNT(backward)
COUNT(bytes)
COUNT(windows_done)
COUNT(windows_failed)
COUNT(windows_dropped)
COUNT(waiting)
COUNT(connects)
COUNT(attempts)
COUNT(events)

static double lag_of(struct sl_camera *camera)
{
    return (double)atomic_load(&camera->stats.lag_us) / 1e6;
}

static double last_event_of(struct sl_camera *camera)
{
    return (double)atomic_load(&camera->stats.last_event_us) / 1e6;
}

static const struct figure figures[] = {
    {"connected", "gauge", "1 while pictures come", connected_of},
    {"frames_decoded_total", "counter", "pictures decoded", decoded_of},
    {"frames_sampled_total", "counter", "pictures looked at", sampled_of},
    {"frames_damaged_total", "counter", "pictures left out as damaged", damaged_of},
    {"frames_backward_total", "counter", "pictures left out as their time repeats or goes back", backward_of},
    {"bytes_total", "counter", "of the video", bytes_of},
    {"windows_done_total", "counter", "windows answered", windows_done_of},
    {"windows_failed_total", "counter", "windows failed", windows_failed_of},
    {"windows_dropped_total", "counter", "windows dropped: the model was behind", windows_dropped_of},
    {"windows_waiting", "gauge", "full windows that wait for the model", waiting_of},
    {"connects_total", "counter", "connections that gave pictures", connects_of},
    {"attempts_total", "counter", "attempts to connect", attempts_of},
    {"events_total", "counter", "events begun", events_of},
    {"lag_seconds", "gauge", "from the end of the last window on screen to its row", lag_of},
    {"last_event_seconds", "gauge", "Unix time of the start of the last event; 0: none yet", last_event_of},
};

static int64_t resident_bytes(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%ld %ld", &pages, &resident) != 2) {
        resident = 0;
    }
    fclose(file);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static void put_one(FILE *out, const char *name, const char *type, int64_t value)
{
    fprintf(out, "# TYPE scenelog_%s %s\nscenelog_%s %" PRId64 "\n", name, type, name, value);
}

static void write_text(struct sl_metrics *m, FILE *out)
{
    struct sl_watch *watch = m->watch;
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        const struct figure *f = &figures[i];
        fprintf(out, "# HELP scenelog_source_%s %s\n# TYPE scenelog_source_%s %s\n", f->name, f->help, f->name,
                f->type);
        for (int k = 0; k < watch->camera_count; k++) {
            fprintf(out, "scenelog_source_%s{source=\"", f->name);
            put_name(out, watch->cameras[k].name);
            fprintf(out, "\"} %.17g\n", f->value(&watch->cameras[k]));
        }
    }
    struct sl_sinks_counts sinks = sl_sinks_counts(m->sinks);
    put_one(out, "tokens_generated_total", "counter", atomic_load(&watch->generated_tokens));
    put_one(out, "tokens_prompt_total", "counter", atomic_load(&watch->prompt_tokens));
    put_one(out, "memory_bytes", "gauge", resident_bytes());
    put_one(out, "index_bytes", "gauge", atomic_load(&watch->index_bytes));
    put_one(out, "sink_messages_told_total", "counter", sinks.told);
    put_one(out, "sink_messages_failed_total", "counter", sinks.failed);
    put_one(out, "sink_messages_dropped_total", "counter", sinks.dropped);
}

// ---- HTTP

static void send_all(int to, const char *text, size_t size)
{
    while (size > 0) {
        struct pollfd ready = {.fd = to, .events = POLLOUT};
        ssize_t sent = poll(&ready, 1, PATIENCE_MS) == 1 ? send(to, text, size, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;
        if (sent <= 0) {
            return; // whoever asked has gone, or does not read
        }
        text += sent;
        size -= (size_t)sent;
    }
}

static void answer(struct sl_metrics *m, int client)
{
    char request[1024];
    struct pollfd ready = {.fd = client, .events = POLLIN};
    if (poll(&ready, 1, PATIENCE_MS) != 1 || recv(client, request, sizeof request, MSG_DONTWAIT) <= 0) {
        return;
    }
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return;
    }
    write_text(m, out);
    if (fclose(out) == 0) {
        char head[160];
        int length = snprintf(head, sizeof head,
                              "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n"
                              "Connection: close\r\n\r\n",
                              size);
        send_all(client, head, (size_t)length);
        send_all(client, text, size);
    }
    free(text);
}

static void *serve(void *pointer)
{
    struct sl_metrics *m = pointer;
    while (!atomic_load(&m->stopping)) {
        struct pollfd ready = {.fd = m->listener, .events = POLLIN};
        if (poll(&ready, 1, POLL_MS) != 1) {
            continue;
        }
        int client = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0) {
            answer(m, client);
            (void)shutdown(client, SHUT_WR);
            close(client);
        }
    }
    return NULL;
}

static int read_address(const char *text, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    int port = colon != NULL ? atoi(colon + 1) : 0;
    if (colon == NULL || (size_t)(colon - text) >= sizeof host || port < 1 || port > 65535) {
        return 0;
    }
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return inet_pton(AF_INET, host, &out->sin_addr) == 1;
}

static int listen_on(const char *address, int *out, struct sl_error *error)
{
    struct sockaddr_in at;
    int yes = 1;
    if (!read_address(address, &at)) {
        return sl_fail(error, SL_ERR_USAGE, "--metrics %s: must be an address and a port such as 127.0.0.1:9100",
                       address);
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 8) != 0) {
        int reason = errno;
        if (listener >= 0) {
            close(listener);
        }
        return sl_fail(error, SL_ERR_IO, "--metrics %s: %s", address, strerror(reason));
    }
    *out = listener;
    return SL_OK;
}

int sl_metrics_start(const char *address, struct sl_watch *watch, struct sl_sinks *sinks, struct sl_metrics **out,
                     struct sl_error *error)
{
    struct sl_metrics *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    m->watch = watch;
    m->sinks = sinks;
    int status = listen_on(address, &m->listener, error);
    if (status == SL_OK && pthread_create(&m->thread, NULL, serve, m) != 0) {
        close(m->listener);
        status = sl_fail(error, SL_ERR_MEMORY, "no thread could be started");
    }
    if (status != SL_OK) {
        free(m);
        return status;
    }
    *out = m;
    return SL_OK;
}

void sl_metrics_stop(struct sl_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    atomic_store(&metrics->stopping, 1);
    pthread_join(metrics->thread, NULL);
    close(metrics->listener);
    free(metrics);
}
