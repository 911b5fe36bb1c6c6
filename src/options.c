// SPDX-License-Identifier: Apache-2.0
#include "src/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "core/time.h"
#include "decode/decode.h"

int sl_options_read(int argc, char **argv, const char *letters, const struct option *words,
                    int (*set)(void *context, int option, const char *text, struct sl_error *error), void *context,
                    struct sl_error *error)
{
    int status = SL_OK;
    int option = 0;
    opterr = 0;
    while (status == SL_OK && (option = getopt_long(argc, argv, letters, words, NULL)) != -1) {
        if (option == '?' || option == ':') {
            return sl_fail(error, SL_ERR_USAGE, "%s: %s: %s; see 'scenelog help %s'", argv[0], argv[optind - 1],
                           option == ':' ? "needs a value" : "no such option", argv[0]);
        }
        status = set(context, option, optarg, error);
    }
    return status;
}

int sl_option_int(const char *name, const char *text, int64_t min, int64_t max, int64_t *out, struct sl_error *error)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != 0 || errno != 0 || value < min || value > max) {
        return sl_fail(error, SL_ERR_USAGE, "%s %s: must be a whole number from %" PRId64 " to %" PRId64, name, text,
                       min, max);
    }
    *out = value;
    return SL_OK;
}

int sl_option_real(const char *name, const char *text, double min, double max, double *out, struct sl_error *error)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != 0 || !(value >= min && value <= max)) {
        return sl_fail(error, SL_ERR_USAGE, "%s %s: must be a number from %g to %g", name, text, min, max);
    }
    *out = value;
    return SL_OK;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// Digits with an optional fraction of up to six, as a fraction.
static int read_decimal(const char **s, int64_t *num, int64_t *den)
{
    const char *p = *s;
    int digits = 0;
    *num = 0;
    *den = 1;
    for (; *p >= '0' && *p <= '9' && digits < 7; p++, digits++) {
        *num = *num * 10 + (*p - '0');
    }
    if (*p == '.') {
        p++;
        for (int n = 0; *p >= '0' && *p <= '9' && n < 6; p++, n++, digits++) {
            *num = *num * 10 + (*p - '0');
            *den *= 10;
        }
    }
    *s = p;
    return digits > 0;
}

int sl_option_rate(const char *name, const char *text, int64_t *num, int64_t *den, struct sl_error *error)
{
    const char *p = text;
    int64_t below_num = 1;
    int64_t below_den = 1;
    int valid = read_decimal(&p, num, den);
    if (valid && *p == '/') {
        p++;
        valid = read_decimal(&p, &below_num, &below_den);
    }
    if (!valid || *p != 0 || *num == 0 || below_num == 0) {
        return sl_fail(error, SL_ERR_USAGE, "%s %s: must be a rate such as 2, 0.5 or 30000/1001", name, text);
    }
    *num *= below_den;
    *den *= below_num;
    int64_t common = gcd(*num, *den);
    *num /= common;
    *den /= common;
    if (*num > 1000000 || *den > 1000000 || *num > 1000 * *den) {
        return sl_fail(error, SL_ERR_USAGE, "%s %s: must lie between one frame in 11 days and 1000 a second", name,
                       text);
    }
    return SL_OK;
}

int sl_option_span(const char *name, const char *text, int64_t *out_us, struct sl_error *error)
{
    int status = sl_time_parse_span(text, out_us, error);
    if (status != SL_OK) {
        return sl_fail_at(error, "%s", name);
    }
    return *out_us < 0 ? sl_fail(error, SL_ERR_USAGE, "%s %s: must not be negative", name, text) : SL_OK;
}

int sl_option_lanes(const char *text, int *lanes, int *cpu_lanes, struct sl_error *error)
{
    int length = 0;
    *cpu_lanes = 0;
    int valid = sscanf(text, "%d%n", lanes, &length) == 1;
    if (valid && text[length] == '+') {
        const char *beside = text + length + 1;
        valid = sscanf(beside, "%d%n", cpu_lanes, &length) == 1 && *cpu_lanes >= 1 && beside[length] == 0;
    } else {
        valid = valid && text[length] == 0;
    }
    return valid && *lanes >= 1 && *lanes <= SL_LANES_MAX && *cpu_lanes <= SL_LANES_MAX
               ? SL_OK
               : sl_fail(error, SL_ERR_USAGE, "--decode-lanes %s: must be a number from 1 to %d, or two such as 12+8",
                         text, SL_LANES_MAX);
}

char *sl_option_trimmed(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t end = strlen(text);
    while (end > 0 && isspace((unsigned char)text[end - 1])) {
        text[--end] = 0;
    }
    return text;
}

int sl_option_file(const char *name, const char *path, int64_t max_bytes, char **out, struct sl_error *error)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return sl_fail(error, SL_ERR_OPEN, "%s %s: %s", name, path, strerror(errno));
    }
    char *text = malloc((size_t)max_bytes + 2);
    size_t size = text != NULL ? fread(text, 1, (size_t)max_bytes + 1, file) : 0;
    int failed = ferror(file);
    fclose(file); // read only: nothing can be lost
    if (text == NULL || failed || size > (size_t)max_bytes || memchr(text, 0, size) != NULL) {
        free(text);
        return sl_fail(error, text == NULL ? SL_ERR_MEMORY : SL_ERR_USAGE,
                       "%s %s: must be a text of at most %" PRId64 " bytes", name, path, max_bytes);
    }
    if (size > 0 && text[size - 1] == '\n') {
        size--;
    }
    text[size] = 0;
    *out = text;
    return SL_OK;
}

const char *sl_default_index(void)
{
    const char *path = getenv("SCENELOG_INDEX");
    return path != NULL && *path != 0 ? path : "scenelog.db";
}

const char *sl_default_model(void)
{
    const char *dir = getenv("SCENELOG_MODEL");
    return dir != NULL && *dir != 0 ? dir : SL_DATADIR "/demo-model";
}

int sl_report(const struct sl_error *error)
{
    fprintf(stderr, "scenelog: %s\n", error->text);
    return sl_exit_code(error->status);
}
