// SPDX-License-Identifier: Apache-2.0
#include "src/asked.h"

#include <stdlib.h>

#include "src/options.h"
#include "src/task.h"

struct sl_asked sl_asked_defaults(int64_t window_us)
{
    return (struct sl_asked){.index_path = sl_default_index(),
                             .device = "auto",
                             .rules = {.fps_num = 2,
                                       .fps_den = 1,
                                       .window_us = window_us,
                                       .prompt = sl_task_default_prompt,
                                       .max_new_tokens = SL_TASK_NEW_TOKENS,
                                       .sampling = {.top_p = 1}}};
}

static int set_prompt_file(struct sl_asked *asked, const char *path, struct sl_error *error)
{
    free(asked->prompt_file);
    asked->prompt_file = NULL;
    int status = sl_option_file("--prompt-file", path, SL_TASK_PROMPT_BYTES, &asked->prompt_file, error);
    asked->rules.prompt = asked->prompt_file;
    return status;
}

int sl_asked_set(struct sl_asked *asked, int option, const char *text, struct sl_error *error)
{
    struct sl_window_rules *rules = &asked->rules;
    int64_t number = 0;
    int status = SL_OK;
    switch (option) {
    case SL_ASKED_MODEL:
        return sl_route_add_model(&asked->route, text, error);
    case SL_ASKED_INDEX:
        asked->index_path = text;
        return SL_OK;
    case SL_ASKED_ROUTE:
        asked->route_rules = text;
        return SL_OK;
    case SL_ASKED_DEVICE:
        asked->device = text;
        return SL_OK;
    case SL_ASKED_THREADS:
        return sl_option_int("--threads", text, 1, 1024, &asked->threads, error);
    case SL_ASKED_FPS:
        return sl_option_rate("--fps", text, &rules->fps_num, &rules->fps_den, error);
    case SL_ASKED_WINDOW:
        return sl_option_span("--window", text, &rules->window_us, error);
    case SL_ASKED_TOKENS:
        status = sl_option_int("--max-tokens-per-pair", text, 1, 16384, &number, error);
        rules->max_tokens_per_pair = (int)number;
        return status;
    case SL_ASKED_PROMPT:
        rules->prompt = text;
        return SL_OK;
    case SL_ASKED_PROMPT_FILE:
        return set_prompt_file(asked, text, error);
    default:
        return sl_fail(error, SL_ERR_INTERNAL, "an option without code");
    }
}

void sl_asked_free(struct sl_asked *asked)
{
    free(asked->prompt_file);
    asked->prompt_file = NULL;
}
