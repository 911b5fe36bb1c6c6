// SPDX-License-Identifier: Apache-2.0
// A JSON file in memory, and its values by dotted path ("vision_config.depth"), so that every complaint names the file
// and the whole path. Thin over cJSON; `root` is open to who needs more (arrays, long maps).
//
// Plain data of the caller's: open fills it, finish frees it. Reading from several threads at once is fine.
#ifndef SL_CORE_JSON_H
#define SL_CORE_JSON_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/error.h"

struct sl_json {
    cJSON *root;
    char *name;            // for messages: the path
    enum sl_status status; // of everything that is wrong inside the file
};

// Reads the file at `path`, of max_bytes at most. A file that is not there or unreadable is `missing`; one that is
// empty, too long, malformed (the message says at which byte) or nested deeper than 100 is `malformed`, and so is
// later every value that the getters find wrong.
int sl_json_open(const char *path, int64_t max_bytes, enum sl_status missing, enum sl_status malformed,
                 struct sl_json *out, struct sl_error *error);
// Likewise from memory; `name` is what messages call it.
int sl_json_parse(const char *text, size_t size_bytes, const char *name, enum sl_status malformed, struct sl_json *out,
                  struct sl_error *error);
void sl_json_finish(struct sl_json *json); // a zeroed one is fine

// The value at the path, or NULL when it is not there or null. Keys are case-sensitive.
const cJSON *sl_json_find(const struct sl_json *json, const char *path);

// The value must be there, of the type, and within the bounds given.
int sl_json_int(const struct sl_json *json, const char *path, int64_t least, int64_t most, int64_t *out,
                struct sl_error *error); // exact up to 2^53
int sl_json_double(const struct sl_json *json, const char *path, double *out, struct sl_error *error);
int sl_json_bool(const struct sl_json *json, const char *path, int *out, struct sl_error *error);
int sl_json_string(const struct sl_json *json, const char *path, const char **out, struct sl_error *error);
int sl_json_object(const struct sl_json *json, const char *path, const cJSON **out, struct sl_error *error);
// An array of `least` to `most` whole numbers that fit an int; *count of them.
int sl_json_ints(const struct sl_json *json, const char *path, int least, int most, int *out, int *count,
                 struct sl_error *error);

#endif
