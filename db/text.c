// SPDX-License-Identifier: Apache-2.0
#include "db/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/hash.h"

// Han, kana, bopomofo and Hangul, without the punctuation among them.
static int stands_alone(int32_t c)
{
    return (c >= 0x2e80 && c <= 0x2fdf) || (c >= 0x3005 && c <= 0x3007) || (c >= 0x3031 && c <= 0x3035) ||
           (c >= 0x3041 && c <= 0x30fa) || (c >= 0x30fc && c <= 0x312f) || (c >= 0x31a0 && c <= 0x31bf) ||
           (c >= 0x31f0 && c <= 0x31ff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
           (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x1b000 && c <= 0x1b16f) ||
           (c >= 0x20000 && c <= 0x3ffff);
}

static int is_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return 1;
    default:
        return 0;
    }
}

// Marks and symbols tell texts apart ("-5 °C" has a sign of its own), spaces, punctuation and controls do not.
static int is_said(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO) ||
           (category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO);
}

static int map(const char *text, utf8proc_option_t options, uint8_t **out, struct sl_error *e)
{
    utf8proc_ssize_t length =
        utf8proc_map((const uint8_t *)text, 0, out,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE | options);
    if (length < 0)
        return sl_fail(e, length == UTF8PROC_ERROR_NOMEM ? SL_ERR_MEMORY : SL_ERR_INTERNAL, "text \"%.60s\": %s", text,
                       utf8proc_errmsg(length));
    return SL_OK;
}

// The next code point of valid UTF-8, 0 at the end.
static int32_t next(const uint8_t **at)
{
    int32_t c = 0;
    if (**at)
        *at += utf8proc_iterate(*at, -1, &c);
    return c;
}

int text_key(const char *text, int64_t *key, struct sl_error *e)
{
    uint8_t *folded;
    int status = map(text, UTF8PROC_CASEFOLD | UTF8PROC_IGNORE, &folded, e);
    if (status != SL_OK)
        return status;
    uint8_t *to = folded; // never overtakes `at`: a separator takes the place of at least one byte
    int32_t last = 0;
    int apart = 0;
    const uint8_t *at = folded;
    for (int32_t c; (c = next(&at));) {
        if (!is_said(c)) {
            apart = 1;
            continue;
        }
        if (apart && last && !stands_alone(last) && !stands_alone(c))
            *to++ = ' ';
        to += utf8proc_encode_char(c, to);
        last = c;
        apart = 0;
    }
    *key = (int64_t)sl_hash64(folded, (size_t)(to - folded), 0);
    free(folded);
    return SL_OK;
}

int text_words(const char *text, char **words, struct sl_error *e)
{
    *words = NULL;
    uint8_t *plain;
    int status = map(text, 0, &plain, e);
    if (status != SL_OK)
        return status;
    char *out = malloc(strlen((char *)plain) * 3 + 1); // a space before and after each character at most
    if (!out) {
        free(plain);
        return sl_fail(e, SL_ERR_MEMORY, "out of memory");
    }
    char *to = out;
    const uint8_t *at = plain;
    for (const uint8_t *from = at; *from; from = at) {
        int32_t c = next(&at);
        int alone = stands_alone(c);
        if (alone && to > out && to[-1] != ' ')
            *to++ = ' ';
        memcpy(to, from, (size_t)(at - from));
        to += at - from;
        if (alone && *at && *at != ' ')
            *to++ = ' ';
    }
    *to = 0;
    free(plain);
    if (strcmp(out, text) == 0)
        free(out);
    else
        *words = out;
    return SL_OK;
}

static int has_word(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    for (int32_t c; (c = next(&at));)
        if (is_word(c))
            return 1;
    return 0;
}

// A string of FTS5: in quotes, quotes inside doubled.
static char *append_quoted(char *to, const char *text)
{
    *to++ = '"';
    for (; *text; text++) {
        if (*text == '"')
            *to++ = '"';
        *to++ = *text;
    }
    *to++ = '"';
    *to++ = ' ';
    return to;
}

int text_match(const char *const *words, int count, char **match, struct sl_error *e)
{
    size_t length = 0, capacity = 1;
    char *out = NULL;
    *match = NULL;
    for (int i = 0; i < count; i++) {
        char *apart;
        int status = text_words(words[i], &apart, e);
        const char *word = apart ? apart : words[i];
        if (status == SL_OK && has_word(word)) {
            capacity += strlen(word) * 2 + 3;
            char *larger = realloc(out, capacity);
            if (larger) {
                out = larger;
                length = (size_t)(append_quoted(out + length, word) - out);
                out[length] = 0;
            } else {
                status = sl_fail(e, SL_ERR_MEMORY, "out of memory");
            }
        }
        free(apart);
        if (status != SL_OK) {
            free(out);
            return status == SL_ERR_INTERNAL ? sl_fail(e, SL_ERR_USAGE, "search word %d is not UTF-8", i + 1) : status;
        }
    }
    *match = out;
    return SL_OK;
}
