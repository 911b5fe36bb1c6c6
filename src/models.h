// SPDX-License-Identifier: Apache-2.0
// The models of one command, side by side on one device, and which of them takes a window (src/route.h has the rules).
//
// Missing is what could not be opened, for whatever reason. Busy is a model that decodes as many windows as it takes at
// once; another stands in only while it has room, and no work of its own.
#ifndef SL_SRC_MODELS_H
#define SL_SRC_MODELS_H

#include "src/route.h"
#include "src/window.h"

struct sl_models {
    const struct sl_route *route;
    struct sl_device *device;
    struct sl_model model[SL_ROUTE_MODELS]; // stay where they are: eyes name them
    struct sl_eye *eye[SL_ROUTE_MODELS];    // NULL: not wanted, or missing
    struct sl_error missing[SL_ROUTE_MODELS];
};

// Opens what the ways need; `options` but for the folder. A missing model for which none stands in is an error; else
// `note` gets a line. Close also after a failure.
int sl_models_open(const struct sl_route *route, const struct sl_route_way *ways, int way_count,
                   const struct sl_model_options *options, void (*note)(void *context, const char *text), void *context,
                   struct sl_models *out, struct sl_error *error);
void sl_models_close(struct sl_models *models);

// Which models find room side by side, those before first; a bit each. wanted_bytes 0: not asked for.
int sl_models_that_fit(const int64_t *wanted_bytes, int count, int64_t room_bytes);

struct sl_eye *sl_models_any(const struct sl_models *models); // one that is there
// The way as it is with the models that are there.
struct sl_choice sl_models_choose(const struct sl_models *models, struct sl_route_way way);

#endif
