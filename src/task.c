// SPDX-License-Identifier: Apache-2.0
#include "src/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

// Asks for what the answer grammar admits. The demo model is trained on exactly these words (samples/prompt.txt).
const char sl_task_default_prompt[] =
    "Report every event of this video in order of time. Answer with one JSON object and nothing else: each key is the "
    "time range of one event, \"mm:ss.ff - mm:ss.ff\", counted from the start of the video; each value is one sentence "
    "that says what happens. If nothing happens, answer {}.";

int sl_task_check(const struct sl_window_rules *r, struct sl_error *e)
{
    if (r->window_us < 1000000 || r->window_us > (int64_t)3600 * 1000000) {
        return sl_fail(e, SL_ERR_USAGE, "--window: must lie between 1 second and 1 hour");
    }
    double frames = (double)r->window_us / 1e6 * (double)r->fps_num / (double)r->fps_den;
    if (frames < 1 || frames > SL_TASK_WINDOW_FRAMES) {
        return sl_fail(e, SL_ERR_USAGE, "--window and --fps: a window must hold 1 to %d frames", SL_TASK_WINDOW_FRAMES);
    }
    size_t prompt_bytes = strlen(r->prompt);
    if (prompt_bytes == 0 || prompt_bytes > SL_TASK_PROMPT_BYTES) {
        return sl_fail(e, SL_ERR_USAGE, "--prompt: must have 1 to %d bytes", SL_TASK_PROMPT_BYTES);
    }
    return SL_OK;
}

char *sl_task_text(const struct sl_window_rules *rules)
{
    char fps[48];
    snprintf(fps, sizeof fps, "%" PRId64 "/%" PRId64, rules->fps_num, rules->fps_den);
    cJSON *task = cJSON_CreateObject();
    int whole = cJSON_AddStringToObject(task, "prompt", rules->prompt) != NULL &&
                cJSON_AddStringToObject(task, "grammar", "events-1") != NULL &&
                cJSON_AddStringToObject(task, "fps", fps) != NULL &&
                cJSON_AddNumberToObject(task, "window_us", (double)rules->window_us) != NULL &&
                cJSON_AddNumberToObject(task, "max_tokens_per_pair", rules->max_tokens_per_pair) != NULL;
    if (rules->skip_still) { // without, it is the task that it was before there was such a thing
        whole = whole && cJSON_AddNumberToObject(task, "skip_still", (double)rules->still_level) != NULL;
    }
    char *text = whole ? cJSON_PrintUnformatted(task) : NULL;
    cJSON_Delete(task);
    return text;
}
