// SPDX-License-Identifier: Apache-2.0
// Where events go besides the index: JSON Lines on standard output, a command or a URL, an MQTT broker.
//
// Each sink has a thread and a bounded queue of its own. Nobody who tells it something ever waits: what a sink cannot
// take in time is counted and left out, and the pipeline does not notice.
#ifndef SL_SRC_SINKS_H
#define SL_SRC_SINKS_H

#include "db/db.h"
#include "src/profile.h"

enum sl_turn { SL_EVENT_START, SL_EVENT_UPDATE, SL_EVENT_END };

struct sl_sinks;

struct sl_sinks_options {
    int jsonl;                                     // to standard output, all events whatever the rules
    const char *on_event;                          // a command for the shell, or an http(s) URL; NULL: none
    const char *mqtt;                              // mqtt://[user:password@]host[:port][/prefix]; NULL: none
    int64_t timeout_us;                            // of one delivery to on_event
    void (*note)(void *context, const char *text); // any thread
    void *context;
};

struct sl_sinks_counts {
    int64_t told, failed, dropped; // failed: after all attempts; dropped: the queue was full, or too many came at once
};

// MQTT: SL_ERR_USAGE in a build without it. A broker or URL that is not there is no error.
int sl_sinks_create(const struct sl_sinks_options *options, struct sl_sinks **out, struct sl_error *error);
// Gives what is waiting up to two seconds. Accepts NULL.
void sl_sinks_destroy(struct sl_sinks *sinks);

// Any thread. `rules` NULL: none.
void sl_sinks_event(struct sl_sinks *sinks, enum sl_turn turn, const struct sl_db_event *event,
                    const struct sl_tell_rules *rules);
void sl_sinks_availability(struct sl_sinks *sinks, const char *source, int online);
struct sl_sinks_counts sl_sinks_counts(struct sl_sinks *sinks);

#endif
