// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void keep_one_line(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != 0; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
}

int sl_fail(struct sl_error *e, enum sl_status status, const char *format, ...)
{
    if (e != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        keep_one_line(e->text);
        e->status = status;
    }
    return status;
}

int sl_fail_at(struct sl_error *e, const char *format, ...)
{
    if (e == NULL) {
        return SL_ERR_INTERNAL;
    }
    char joined[sizeof e->text];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(joined, sizeof joined, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof joined) {
        size_t room = sizeof joined - (size_t)used;
        int tail = snprintf(joined + used, room, ": %s", e->text);
        (void)tail; // a text too long is cut at the end: the front says where
    }
    keep_one_line(joined);
    memcpy(e->text, joined, sizeof joined);
    return e->status;
}

int sl_exit_code(int status)
{
    return status < 0 ? -status : 0;
}
