// SPDX-License-Identifier: Apache-2.0
// Private to the sinks: one way out. Each runs on a thread of its own, which delivers message by message (src/sinks.c).
#ifndef SL_SRC_SINK_H
#define SL_SRC_SINK_H

#include "src/sinks.h"

struct sl_sink_message {
    char *topic, *text;
    int retain; // MQTT: the broker keeps it
};

struct sl_sink {
    const char *name; // for messages
    const struct sl_sinks_options *options;
    void *own;
    int wants_availability;
    // Tries once, for as long as the sink's own time-out allows.
    int (*deliver)(struct sl_sink *sink, const struct sl_sink_message *message, struct sl_error *error);
    void (*close)(struct sl_sink *sink);
};

int sl_sink_open_lines(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error);
int sl_sink_open_hook(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error);
int sl_sink_open_mqtt(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error);

#endif
