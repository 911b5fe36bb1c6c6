// SPDX-License-Identifier: Apache-2.0
// What is asked of every window, as the index knows it: the request's words and their limits.
#ifndef SL_SRC_TASK_H
#define SL_SRC_TASK_H

#include "src/window.h"

enum {
    SL_TASK_NEW_TOKENS = 1024, // of one window's answer
    SL_TASK_PROMPT_BYTES = 8192,
    SL_TASK_WINDOW_FRAMES = 4096,
};

extern const char sl_task_default_prompt[];

// Rate, window and prompt within their limits; SL_ERR_USAGE names the option.
int sl_task_check(const struct sl_window_rules *rules, struct sl_error *error);

// Canonical: the same request gives the same text. Model, span and sampling seed do not belong to it. To be freed; NULL
// when there is no memory.
char *sl_task_text(const struct sl_window_rules *rules);

#endif
