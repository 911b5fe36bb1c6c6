// SPDX-License-Identifier: Apache-2.0
#include "src/profile.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/options.h"
#include "src/task.h"

enum { MAX_FILE_BYTES = 65536 };

static int out_of_memory(struct sl_error *error)
{
    return sl_fail(error, SL_ERR_MEMORY, "out of memory");
}

static int replace(char **field, const char *value, struct sl_error *error)
{
    char *copy = strdup(value);
    if (copy == NULL) {
        return out_of_memory(error);
    }
    free(*field);
    *field = copy;
    return SL_OK;
}

static int append_line(char **field, const char *value, struct sl_error *error)
{
    size_t had = *field != NULL ? strlen(*field) + 1 : 0;
    char *grown = malloc(had + strlen(value) + 1);
    if (grown == NULL) {
        return out_of_memory(error);
    }
    sprintf(grown, "%s%s%s", had > 0 ? *field : "", had > 0 ? "\n" : "", value);
    free(*field);
    *field = grown;
    return SL_OK;
}

static int add_words(struct sl_tell_rules *tell, char *list, struct sl_error *error)
{
    char *rest = NULL;
    for (char *word = strtok_r(list, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        word = sl_option_trimmed(word);
        if (*word == 0) {
            continue;
        }
        if (tell->word_count == SL_PROFILE_WORDS) {
            return sl_fail(error, SL_ERR_USAGE, "words: more than %d", SL_PROFILE_WORDS);
        }
        char *copy = strdup(word);
        if (copy == NULL) {
            return out_of_memory(error);
        }
        for (char *c = copy; *c != 0; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        tell->words[tell->word_count++] = copy;
    }
    return SL_OK;
}

static int set_number(struct sl_profile *p, const char *key, const char *value, struct sl_error *error)
{
    if (strcmp(key, "fps") == 0) {
        return sl_option_rate("fps", value, &p->rules.fps_num, &p->rules.fps_den, error);
    }
    if (strcmp(key, "window") == 0) {
        return sl_option_span("window", value, &p->rules.window_us, error);
    }
    if (strcmp(key, "min-length") == 0) {
        return sl_option_span("min-length", value, &p->tell.min_length_us, error);
    }
    if (strcmp(key, "cool-down") == 0) {
        return sl_option_span("cool-down", value, &p->tell.cool_down_us, error);
    }
    if (strcmp(key, "max-tokens-per-pair") == 0) {
        int64_t tokens = 0;
        int status = sl_option_int(key, value, 1, 16384, &tokens, error);
        p->rules.max_tokens_per_pair = (int)tokens;
        return status;
    }
    return sl_fail(error, SL_ERR_USAGE, "%s: no such key", key);
}

static int set(struct sl_profile *p, const char *key, char *value, struct sl_error *error)
{
    if (strcmp(key, "prompt") == 0) {
        return replace(&p->base, value, error);
    }
    if (strcmp(key, "prompt-file") == 0) {
        char *text = NULL;
        int status = sl_option_file("prompt-file", value, SL_TASK_PROMPT_BYTES, &text, error);
        if (status == SL_OK) {
            free(p->base);
            p->base = text;
        }
        return status;
    }
    if (strcmp(key, "context") == 0) {
        return append_line(&p->context, value, error);
    }
    if (strcmp(key, "language") == 0) {
        return replace(&p->language, value, error);
    }
    if (strcmp(key, "words") == 0) {
        return add_words(&p->tell, value, error);
    }
    return set_number(p, key, value, error);
}

static int read_lines(const char *path, char *text, struct sl_profile *p, struct sl_error *error)
{
    int number = 0;
    for (char *line = text, *next = NULL; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = 0;
        }
        number++;
        line = sl_option_trimmed(line);
        if (*line == 0 || *line == '#') {
            continue;
        }
        char *equals = strchr(line, '=');
        if (equals == NULL) {
            return sl_fail(error, SL_ERR_USAGE, "%s:%d: not \"key = value\"", path, number);
        }
        *equals = 0;
        if (set(p, sl_option_trimmed(line), sl_option_trimmed(equals + 1), error) != SL_OK) {
            return sl_fail_at(error, "%s:%d", path, number);
        }
    }
    return SL_OK;
}

// The request with what the file adds to it.
static int compose(struct sl_profile *p, struct sl_error *error)
{
    int status = replace(&p->prompt, p->base != NULL ? p->base : p->rules.prompt, error);
    if (status == SL_OK && p->context != NULL) {
        status = append_line(&p->prompt, p->context, error);
    }
    if (status == SL_OK && p->language != NULL) {
        char line[256];
        snprintf(line, sizeof line, "Write the sentences in %s.", p->language);
        status = append_line(&p->prompt, line, error);
    }
    p->rules.prompt = p->prompt;
    return status;
}

int sl_profile_read(const char *path, const struct sl_window_rules *defaults, struct sl_profile *out,
                    struct sl_error *error)
{
    *out = (struct sl_profile){.rules = *defaults};
    char *text = NULL;
    int status = SL_OK;
    if (path != NULL) {
        status = sl_option_file("--profile", path, MAX_FILE_BYTES, &text, error);
    }
    if (status == SL_OK && text != NULL) {
        status = read_lines(path, text, out, error);
    }
    free(text);
    if (status == SL_OK) {
        status = compose(out, error);
    }
    if (status == SL_OK && sl_task_check(&out->rules, error) != SL_OK) {
        status = path != NULL ? sl_fail_at(error, "%s", path) : error->status;
    }
    if (status != SL_OK) {
        sl_profile_finish(out);
    }
    return status;
}

void sl_profile_finish(struct sl_profile *profile)
{
    for (int i = 0; i < profile->tell.word_count; i++) {
        free(profile->tell.words[i]);
    }
    free(profile->prompt);
    free(profile->base);
    free(profile->context);
    free(profile->language);
    *profile = (struct sl_profile){0};
}

int sl_profile_equal(const struct sl_profile *a, const struct sl_profile *b)
{
    int same = strcmp(a->prompt, b->prompt) == 0 && a->rules.fps_num == b->rules.fps_num &&
               a->rules.fps_den == b->rules.fps_den && a->rules.window_us == b->rules.window_us &&
               a->rules.max_tokens_per_pair == b->rules.max_tokens_per_pair &&
               a->tell.word_count == b->tell.word_count && a->tell.min_length_us == b->tell.min_length_us &&
               a->tell.cool_down_us == b->tell.cool_down_us;
    for (int i = 0; same && i < a->tell.word_count; i++) {
        same = strcmp(a->tell.words[i], b->tell.words[i]) == 0;
    }
    return same;
}
