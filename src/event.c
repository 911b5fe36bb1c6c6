// SPDX-License-Identifier: Apache-2.0
#include "src/event.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EVENTS = 4096, MAX_DEPTH = 8 };

// ---- Where the string literals of a JSON text stand, in document order: cJSON does not tell.

struct literal {
    size_t begin, end; // bytes inside the quotes
};

struct literals {
    struct literal *item;
    size_t count;
};

static int find_literals(const char *text, size_t size, struct literals *out)
{
    out->item = NULL;
    out->count = 0;
    size_t room = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '"') {
            continue;
        }
        size_t begin = ++i;
        while (i < size && text[i] != '"') {
            i += text[i] == '\\' ? 2 : 1;
        }
        if (out->count == room) {
            room = room == 0 ? 64 : room * 2;
            struct literal *grown = realloc(out->item, room * sizeof *grown);
            if (grown == NULL) {
                return SL_ERR_MEMORY;
            }
            out->item = grown;
        }
        out->item[out->count++] = (struct literal){.begin = begin, .end = i < size ? i : size};
    }
    return SL_OK;
}

// ---- Times

static const char *skip_space(const char *s)
{
    while (isspace((unsigned char)*s)) {
        s++;
    }
    return s;
}

// Digits with an optional fraction, to microseconds; *s moves behind them. 0 when there are none or too many.
static int read_seconds(const char **s, int64_t *us)
{
    const char *p = *s;
    int64_t whole = 0;
    int digits = 0;
    for (; isdigit((unsigned char)*p); p++, digits++) {
        if (digits >= 9) {
            return 0;
        }
        whole = whole * 10 + (*p - '0');
    }
    if (digits == 0) {
        return 0;
    }
    int64_t fraction = 0;
    if (*p == '.' && isdigit((unsigned char)p[1])) {
        p++;
        for (int64_t scale = 100000; isdigit((unsigned char)*p); p++, scale /= 10) {
            fraction += scale * (*p - '0');
        }
    }
    *us = whole * 1000000 + fraction;
    *s = p;
    return 1;
}

// "90", "12.5s", "01:02.50", "1:01:02.5": *s moves behind it.
static int read_time(const char **s, int64_t *us)
{
    const char *p = skip_space(*s);
    int64_t total = 0;
    for (int part = 0; part < 3; part++) {
        int64_t value = 0;
        if (!read_seconds(&p, &value)) {
            return 0;
        }
        total = total * 60 + value;
        if (*p != ':') {
            break;
        }
        p++;
    }
    if (*p == 's' && !isalpha((unsigned char)p[1])) {
        p++;
    } else if (strncmp(p, " seconds", 8) == 0) {
        p += 8;
    }
    *us = total;
    *s = p;
    return 1;
}

static int read_separator(const char **s)
{
    static const char *const forms[] = {"-", "\xe2\x80\x93" /* en dash */, "to ", "~", ","};
    const char *p = skip_space(*s);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        size_t n = strlen(forms[i]);
        if (strncmp(p, forms[i], n) == 0) {
            *s = p + n;
            return 1;
        }
    }
    return 0;
}

static int read_range(const char *s, int64_t *start_us, int64_t *end_us)
{
    return read_time(&s, start_us) && read_separator(&s) && read_time(&s, end_us) && *skip_space(s) == 0;
}

static int time_of(const cJSON *node, int64_t *us)
{
    if (cJSON_IsNumber(node)) {
        if (!(node->valuedouble >= 0 && node->valuedouble < 1e9)) {
            return 0;
        }
        *us = (int64_t)llround(node->valuedouble * 1e6);
        return 1;
    }
    const char *s = cJSON_GetStringValue(node);
    return s != NULL && read_time(&s, us) && *skip_space(s) == 0;
}

// ---- Events

struct parser {
    const struct literals *literals;
    size_t next_literal; // of the next string node in document order
    int64_t window_us;
    struct sl_event_list *list;
    struct sl_error *error;
};

static char *trimmed(const char *s)
{
    s = skip_space(s);
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1])) {
        n--;
    }
    return strndup(s, n);
}

static int add_event(struct parser *p, int64_t start_us, int64_t end_us, const char *text, size_t literal)
{
    size_t number = p->list->count + 1;
    if (end_us <= start_us) {
        return sl_fail(p->error, SL_ERR_PARTIAL, "answer: event %zu ends before it has begun", number);
    }
    if (end_us > p->window_us) {
        return sl_fail(p->error, SL_ERR_PARTIAL, "answer: event %zu ends after its window", number);
    }
    if (number > MAX_EVENTS) {
        return sl_fail(p->error, SL_ERR_PARTIAL, "answer: more than %d events", MAX_EVENTS);
    }
    struct sl_event *grown = realloc(p->list->events, number * sizeof *grown);
    if (grown == NULL) {
        return sl_fail(p->error, SL_ERR_MEMORY, "out of memory");
    }
    p->list->events = grown;
    struct sl_event event = {.start_us = start_us, .end_us = end_us, .text = trimmed(text)};
    if (event.text == NULL) {
        return sl_fail(p->error, SL_ERR_MEMORY, "out of memory");
    }
    if (*event.text == 0) {
        free(event.text);
        return sl_fail(p->error, SL_ERR_PARTIAL, "answer: event %zu says nothing", number);
    }
    if (literal < p->literals->count) {
        event.text_begin = p->literals->item[literal].begin;
        event.text_end = p->literals->item[literal].end;
    }
    p->list->events[p->list->count++] = event;
    return SL_OK;
}

// {"00:01.00 - 00:02.50": "sentence", ...}
static int parse_ranges(struct parser *p, const cJSON *object)
{
    for (const cJSON *node = object->child; node != NULL; node = node->next) {
        int64_t start_us = 0;
        int64_t end_us = 0;
        if (!cJSON_IsString(node) || !read_range(node->string, &start_us, &end_us)) {
            return sl_fail(p->error, SL_ERR_PARTIAL, "answer: '%.60s' is not a time range with a sentence",
                           node->string);
        }
        int status = add_event(p, start_us, end_us, node->valuestring, p->next_literal + 1);
        if (status != SL_OK) {
            return status;
        }
        p->next_literal += 2;
    }
    return SL_OK;
}

static int is_one_of(const char *name, const char *const *names)
{
    for (; *names != NULL; names++) {
        if (strcasecmp(name, *names) == 0) {
            return 1;
        }
    }
    return 0;
}

static size_t count_strings(const cJSON *node)
{
    size_t n = cJSON_IsString(node) ? 1 : 0;
    for (const cJSON *child = node->child; child != NULL; child = child->next) {
        n += (child->string != NULL ? 1 : 0) + count_strings(child);
    }
    return n;
}

// {"start": 1.0, "end": "00:02.50", "description": "sentence"}, keys in any order.
static int parse_record(struct parser *p, const cJSON *object)
{
    static const char *const starts[] = {"start", "start_time", "start_timestamp", "begin", "from", NULL};
    static const char *const ends[] = {"end", "end_time", "end_timestamp", "to", NULL};
    static const char *const texts[] = {"description", "text", "event", "caption", "sentence", "activity", NULL};
    static const char *const ranges[] = {"timestamp", "timestamps", "time", "range", "time_range", NULL};
    int64_t start_us = -1;
    int64_t end_us = -1;
    const char *text = NULL;
    size_t literal = 0;
    for (const cJSON *node = object->child; node != NULL; node = node->next) {
        p->next_literal++; // the key
        if (is_one_of(node->string, starts) && !time_of(node, &start_us)) {
            return sl_fail(p->error, SL_ERR_PARTIAL, "answer: '%s' of an event is not a time", node->string);
        }
        if (is_one_of(node->string, ends) && !time_of(node, &end_us)) {
            return sl_fail(p->error, SL_ERR_PARTIAL, "answer: '%s' of an event is not a time", node->string);
        }
        if (is_one_of(node->string, ranges) && cJSON_IsString(node)) {
            (void)read_range(node->valuestring, &start_us, &end_us); // a lone time is caught below
        }
        if (is_one_of(node->string, texts) && cJSON_IsString(node) && text == NULL) {
            text = node->valuestring;
            literal = p->next_literal;
        }
        p->next_literal += count_strings(node);
    }
    if (start_us < 0 || end_us < 0 || text == NULL) {
        return sl_fail(p->error, SL_ERR_PARTIAL, "answer: event %zu lacks start, end or description",
                       p->list->count + 1);
    }
    return add_event(p, start_us, end_us, text, literal);
}

static int parse_list(struct parser *p, const cJSON *array)
{
    for (const cJSON *node = array->child; node != NULL; node = node->next) {
        if (!cJSON_IsObject(node)) {
            return sl_fail(p->error, SL_ERR_PARTIAL, "answer: the list holds something that is not an event");
        }
        int status = parse_record(p, node);
        if (status != SL_OK) {
            return status;
        }
    }
    return SL_OK;
}

static int parse_root(struct parser *p, const cJSON *root)
{
    if (cJSON_IsArray(root)) {
        return parse_list(p, root);
    }
    const cJSON *first = root->child;
    if (first != NULL && first->next == NULL && cJSON_IsArray(first)) { // {"events": [...]}
        p->next_literal++;
        return parse_list(p, first);
    }
    return parse_ranges(p, root);
}

// Braces inside a sentence open nothing.
static int too_deep(const char *json, size_t size)
{
    int depth = 0, quoted = 0;
    for (size_t i = 0; i < size; i++) {
        if (json[i] == '"') {
            quoted = !quoted;
        } else if (quoted) {
            i += json[i] == '\\';
        } else {
            depth += (json[i] == '{' || json[i] == '[') - (json[i] == '}' || json[i] == ']');
        }
        if (depth > MAX_DEPTH) {
            return 1;
        }
    }
    return 0;
}

int sl_event_parse(const char *text, size_t size_bytes, int64_t window_us, struct sl_event_list *out,
                   struct sl_error *error)
{
    *out = (struct sl_event_list){0};
    size_t at = 0;
    while (at < size_bytes && text[at] != '{' && text[at] != '[') {
        at++;
    }
    if (at == size_bytes) {
        return sl_fail(error, SL_ERR_PARTIAL, "answer: no JSON in it");
    }
    if (memchr(text, 0, size_bytes) != NULL || too_deep(text + at, size_bytes - at)) {
        return sl_fail(error, SL_ERR_PARTIAL, "answer: not the JSON that was asked for");
    }
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text + at, size_bytes - at, &end, 0);
    if (root == NULL) {
        return sl_fail(error, SL_ERR_PARTIAL, "answer: malformed JSON at byte %zu", (size_t)(end - text));
    }
    struct literals literals;
    int status = find_literals(text + at, (size_t)(end - (text + at)), &literals);
    if (status == SL_OK) {
        for (size_t i = 0; i < literals.count; i++) {
            literals.item[i].begin += at;
            literals.item[i].end += at;
        }
        struct parser parser = {.literals = &literals, .window_us = window_us, .list = out, .error = error};
        status = parse_root(&parser, root);
    } else {
        sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    free(literals.item);
    cJSON_Delete(root);
    if (status != SL_OK) {
        sl_event_list_finish(out);
    }
    return status;
}

void sl_event_list_finish(struct sl_event_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->events[i].text);
    }
    free(list->events);
    *list = (struct sl_event_list){0};
}

double sl_event_confidence(const float *logprobs, const size_t *text_ends, size_t tokens, size_t begin, size_t end)
{
    double sum = 0;
    size_t n = 0;
    size_t token_begin = 0;
    for (size_t i = 0; i < tokens; i++) {
        if (token_begin < end && text_ends[i] > begin) {
            sum += logprobs[i];
            n++;
        }
        token_begin = text_ends[i];
    }
    return n == 0 ? -1 : exp(sum / (double)n);
}
