// SPDX-License-Identifier: Apache-2.0
#include "lm/utf8.h"

#include <string.h>

int sl_utf8_character(const char *bytes, size_t size)
{
    const uint8_t *b = (const uint8_t *)bytes;
    if (size == 0) {
        return 0;
    }
    if (b[0] < 0x80) {
        return 1;
    }
    if (b[0] < 0xc2 || b[0] > 0xf4) {
        return -1;
    }
    // Unicode 15, table 3-7: only the second byte's range depends on the first.
    int length = b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    uint8_t low = b[0] == 0xe0 ? 0xa0 : b[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = b[0] == 0xed ? 0x9f : b[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == size) {
            return 0;
        }
        if (b[i] < low || b[i] > high) {
            return -1;
        }
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

static size_t put_replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return 3;
}

size_t sl_utf8_push(struct sl_utf8 *stream, const char *bytes, size_t size, char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < size; i++) {
        stream->kept[stream->count++] = bytes[i];
        // A bad byte goes alone: what followed it is looked at again.
        for (int length; stream->count > 0; stream->count -= length) {
            length = sl_utf8_character(stream->kept, (size_t)stream->count);
            if (length == 0) {
                break;
            }
            if (length < 0) {
                length = 1;
                written += put_replacement(out + written);
            } else {
                memcpy(out + written, stream->kept, (size_t)length);
                written += (size_t)length;
            }
            memmove(stream->kept, stream->kept + length, (size_t)(stream->count - length));
        }
    }
    return written;
}

size_t sl_utf8_finish(struct sl_utf8 *stream, char *out)
{
    size_t written = 0;
    for (; stream->count > 0; stream->count--) {
        written += put_replacement(out + written);
    }
    return written;
}
