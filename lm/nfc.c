// SPDX-License-Identifier: Apache-2.0
// utf8proc knows the characters and composes; the marks are sorted here, since its own sort takes O(n^2) for a letter
// with n marks, and texts come from users.
#include "lm/nfc.h"

#include <stdint.h>
#include <stdlib.h>

#include <utf8proc.h>

enum { MAX_DECOMPOSED = 8 }; // code points that one decomposes to; canonically four at most

// Below U+0300 nothing combines, and what is composed is composed already.
static int is_plain(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] >= 0xcc) {
            return 0;
        }
    }
    return 1;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Sorts each run of marks by combining class, equal ones in their order. `keys` has room for `count`.
static void sort_marks(utf8proc_int32_t *points, size_t count, uint64_t *keys)
{
    for (size_t i = 0; i < count;) {
        size_t n = 0, ordered = 1;
        for (; i + n < count; n++) {
            uint64_t class = (uint64_t)utf8proc_get_property(points[i + n])->combining_class;
            if (class == 0) {
                break;
            }
            keys[n] = class << 56 | (uint64_t)n << 21 | (uint64_t)points[i + n]; // n < 2^35, a code point < 2^21
            ordered &= n == 0 || keys[n - 1] < keys[n];
        }
        if (!ordered) {
            qsort(keys, n, sizeof *keys, compare_keys);
            for (size_t k = 0; k < n; k++) {
                points[i + k] = (utf8proc_int32_t)(keys[k] & 0x1fffff);
            }
        }
        i += n + 1;
    }
}

static size_t decompose(const char *text, size_t size, utf8proc_int32_t *points)
{
    size_t count = 0;
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t point = 0;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &point);
        utf8proc_ssize_t n =
            utf8proc_decompose_char(point, points + count, MAX_DECOMPOSED, UTF8PROC_STABLE | UTF8PROC_COMPOSE, NULL);
        count += (size_t)n;
    }
    return count;
}

int sl_nfc(const char *text, size_t size, char **out, size_t *out_size, struct sl_error *error)
{
    *out = NULL;
    if (is_plain(text, size)) {
        return SL_OK;
    }
    // A character of two bytes or more decomposes to four code points at most, one byte to itself.
    size_t room = 2 * size + MAX_DECOMPOSED;
    utf8proc_int32_t *points = malloc(room * sizeof *points);
    uint64_t *keys = malloc(room * sizeof *keys);
    char *bytes = malloc(4 * room);
    if (points == NULL || keys == NULL || bytes == NULL) {
        free(points);
        free(keys);
        free(bytes);
        return sl_fail(error, SL_ERR_MEMORY, "no memory to normalise a text of %zu bytes", size);
    }
    size_t count = decompose(text, size, points), written = 0;
    sort_marks(points, count, keys);
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(points, (utf8proc_ssize_t)count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        written += (size_t)utf8proc_encode_char(points[i], (utf8proc_uint8_t *)bytes + written);
    }
    free(points);
    free(keys);
    *out = bytes;
    *out_size = written;
    return SL_OK;
}
