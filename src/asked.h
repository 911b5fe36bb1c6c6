// SPDX-License-Identifier: Apache-2.0
// Options that `index` and `watch` share: which models, on which device, and what is asked of them.
#ifndef SL_SRC_ASKED_H
#define SL_SRC_ASKED_H

#include "src/route.h"
#include "src/window.h"

struct sl_asked {
    struct sl_route route;
    const char *route_rules; // NULL: none
    const char *index_path, *device;
    int64_t threads; // 0: one for each core
    struct sl_window_rules rules;
    char *prompt_file; // the text of --prompt-file, which the rules name; owned
};

enum {
    SL_ASKED_MODEL = 'm',
    SL_ASKED_INDEX = 'd',
    SL_ASKED_ROUTE = 512, // other codes of a command lie below
    SL_ASKED_DEVICE,
    SL_ASKED_THREADS,
    SL_ASKED_FPS,
    SL_ASKED_WINDOW,
    SL_ASKED_TOKENS,
    SL_ASKED_PROMPT,
    SL_ASKED_PROMPT_FILE,
};

// For a table of struct option.
#define SL_ASKED_OPTIONS                                                                                               \
    {"model", required_argument, NULL, SL_ASKED_MODEL}, {"index", required_argument, NULL, SL_ASKED_INDEX},            \
        {"route", required_argument, NULL, SL_ASKED_ROUTE}, {"device", required_argument, NULL, SL_ASKED_DEVICE},      \
        {"threads", required_argument, NULL, SL_ASKED_THREADS}, {"fps", required_argument, NULL, SL_ASKED_FPS},        \
        {"window", required_argument, NULL, SL_ASKED_WINDOW},                                                          \
        {"max-tokens-per-pair", required_argument, NULL, SL_ASKED_TOKENS},                                             \
        {"prompt", required_argument, NULL, SL_ASKED_PROMPT},                                                          \
    {                                                                                                                  \
        "prompt-file", required_argument, NULL, SL_ASKED_PROMPT_FILE                                                   \
    }

// Two pictures a second, the built-in request, the likeliest words; any device.
struct sl_asked sl_asked_defaults(int64_t window_us);
int sl_asked_set(struct sl_asked *asked, int option, const char *text, struct sl_error *error);
void sl_asked_free(struct sl_asked *asked);

#endif
