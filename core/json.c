// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 100 };

// Reads to the end rather than to the size that stat says: the file may be a pipe, or grow meanwhile.
static int read_all(FILE *file, int64_t max_bytes, char **text, size_t *size_bytes)
{
    size_t room = 4096, used = 0;
    char *buffer = NULL;
    for (;;) {
        char *larger = realloc(buffer, room + 1);
        if (larger == NULL) {
            free(buffer);
            return SL_ERR_MEMORY;
        }
        buffer = larger;
        used += fread(buffer + used, 1, room - used, file);
        if (used < room || (int64_t)used > max_bytes) {
            break;
        }
        room *= 2;
    }
    buffer[used] = 0;
    *text = buffer;
    *size_bytes = used;
    return SL_OK;
}

int sl_json_open(const char *path, int64_t max_bytes, enum sl_status missing, enum sl_status malformed,
                 struct sl_json *out, struct sl_error *error)
{
    memset(out, 0, sizeof *out);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return sl_fail(error, missing, "%s: %s", path, strerror(errno));
    }
    char *text = NULL;
    size_t size_bytes = 0;
    int status = read_all(file, max_bytes, &text, &size_bytes);
    int read_error = ferror(file) ? errno : 0;
    fclose(file);
    if (status != SL_OK) {
        return sl_fail(error, SL_ERR_MEMORY, "%s: no memory to read it", path);
    }
    if (read_error != 0) {
        status = sl_fail(error, missing, "%s: %s", path, strerror(read_error));
    } else if ((int64_t)size_bytes > max_bytes) {
        status = sl_fail(error, malformed, "%s: longer than %lld bytes", path, (long long)max_bytes);
    } else {
        status = sl_json_parse(text, size_bytes, path, malformed, out, error);
    }
    free(text);
    return status;
}

// Brackets open at once, at most: cJSON goes down recursively, so a file of brackets would exhaust the stack.
static int depth_of(const char *text, size_t size_bytes)
{
    int depth = 0, deepest = 0, in_string = 0;
    for (size_t i = 0; i < size_bytes && deepest <= MAX_DEPTH; i++) {
        if (in_string) {
            if (text[i] == '\\') {
                i++;
            } else if (text[i] == '"') {
                in_string = 0;
            }
        } else if (text[i] == '"') {
            in_string = 1;
        } else if (text[i] == '{' || text[i] == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        }
    }
    return deepest;
}

// Only white space may follow the value.
static int ends_with_value(const char *text, size_t size_bytes, const char **end)
{
    while (*end < text + size_bytes && strchr(" \t\r\n", **end) != NULL && **end != 0) {
        (*end)++;
    }
    return *end == text + size_bytes;
}

int sl_json_parse(const char *text, size_t size_bytes, const char *name, enum sl_status malformed, struct sl_json *out,
                  struct sl_error *error)
{
    memset(out, 0, sizeof *out);
    if (size_bytes == 0) {
        return sl_fail(error, malformed, "%s: is empty", name);
    }
    if (depth_of(text, size_bytes) > MAX_DEPTH) {
        return sl_fail(error, malformed, "%s: nested deeper than %d", name, MAX_DEPTH);
    }
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size_bytes, &end, 0);
    if (root == NULL || !ends_with_value(text, size_bytes, &end)) {
        cJSON_Delete(root);
        return sl_fail(error, malformed, "%s: malformed JSON at byte %lld", name, (long long)(end - text));
    }
    out->name = strdup(name);
    if (out->name == NULL) {
        cJSON_Delete(root);
        return sl_fail(error, SL_ERR_MEMORY, "%s: no memory to read it", name);
    }
    out->root = root;
    out->status = malformed;
    return SL_OK;
}

void sl_json_finish(struct sl_json *json)
{
    cJSON_Delete(json->root);
    free(json->name);
    memset(json, 0, sizeof *json);
}

// The member whose key is the `size` bytes at `key`.
static const cJSON *member(const cJSON *object, const char *key, size_t size)
{
    const cJSON *item = NULL;
    if (!cJSON_IsObject(object)) {
        return NULL;
    }
    cJSON_ArrayForEach(item, object)
    {
        if (strncmp(item->string, key, size) == 0 && item->string[size] == 0) {
            return item;
        }
    }
    return NULL;
}

const cJSON *sl_json_find(const struct sl_json *json, const char *path)
{
    const cJSON *item = json->root;
    while (item != NULL) {
        size_t size = strcspn(path, ".");
        item = member(item, path, size);
        if (path[size] == 0) {
            break;
        }
        path += size + 1;
    }
    return cJSON_IsNull(item) ? NULL : item;
}

// The value at the path if it is `right` as `is` says; else NULL, and the error says what it should be.
static const cJSON *demand(const struct sl_json *json, const char *path, cJSON_bool (*is)(const cJSON *),
                           const char *what, struct sl_error *error)
{
    const cJSON *item = sl_json_find(json, path);
    if (item == NULL) {
        sl_fail(error, json->status, "%s: lacks %s", json->name, path);
        return NULL;
    }
    if (!is(item)) {
        sl_fail(error, json->status, "%s: %s is not %s", json->name, path, what);
        return NULL;
    }
    return item;
}

static int is_whole(double value, double least, double most)
{
    return value >= least && value <= most && value == floor(value);
}

int sl_json_int(const struct sl_json *json, const char *path, int64_t least, int64_t most, int64_t *out,
                struct sl_error *error)
{
    const cJSON *item = demand(json, path, cJSON_IsNumber, "a number", error);
    if (item == NULL) {
        return json->status;
    }
    double limit = 0x1p53;
    if (!is_whole(item->valuedouble, -limit, limit) || (int64_t)item->valuedouble < least ||
        (int64_t)item->valuedouble > most) {
        return sl_fail(error, json->status, "%s: %s is %.17g, not a whole number from %lld to %lld", json->name, path,
                       item->valuedouble, (long long)least, (long long)most);
    }
    *out = (int64_t)item->valuedouble;
    return SL_OK;
}

int sl_json_double(const struct sl_json *json, const char *path, double *out, struct sl_error *error)
{
    const cJSON *item = demand(json, path, cJSON_IsNumber, "a number", error);
    if (item == NULL) {
        return json->status;
    }
    *out = item->valuedouble;
    return SL_OK;
}

int sl_json_bool(const struct sl_json *json, const char *path, int *out, struct sl_error *error)
{
    const cJSON *item = demand(json, path, cJSON_IsBool, "true or false", error);
    if (item == NULL) {
        return json->status;
    }
    *out = cJSON_IsTrue(item) ? 1 : 0;
    return SL_OK;
}

int sl_json_string(const struct sl_json *json, const char *path, const char **out, struct sl_error *error)
{
    const cJSON *item = demand(json, path, cJSON_IsString, "a string", error);
    if (item == NULL) {
        return json->status;
    }
    *out = item->valuestring;
    return SL_OK;
}

int sl_json_object(const struct sl_json *json, const char *path, const cJSON **out, struct sl_error *error)
{
    const cJSON *item = demand(json, path, cJSON_IsObject, "an object", error);
    if (item == NULL) {
        return json->status;
    }
    *out = item;
    return SL_OK;
}

int sl_json_ints(const struct sl_json *json, const char *path, int least, int most, int *out, int *count,
                 struct sl_error *error)
{
    const cJSON *array = demand(json, path, cJSON_IsArray, "an array", error);
    if (array == NULL) {
        return json->status;
    }
    const cJSON *item = NULL;
    int n = 0;
    cJSON_ArrayForEach(item, array)
    {
        if (n == most) {
            n++; // one too many
            break;
        }
        if (!cJSON_IsNumber(item) || !is_whole(item->valuedouble, INT_MIN, INT_MAX)) {
            return sl_fail(error, json->status, "%s: %s[%d] is not a whole number", json->name, path, n);
        }
        out[n++] = (int)item->valuedouble;
    }
    if (n < least || n > most) {
        return sl_fail(error, json->status, "%s: %s must have %d to %d numbers", json->name, path, least, most);
    }
    *count = n;
    return SL_OK;
}
