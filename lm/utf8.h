// SPDX-License-Identifier: Apache-2.0
// Bytes to whole UTF-8 characters: tokens end inside characters, and what comes from outside may be no UTF-8 at all.
// Plain data of the caller's; any thread.
#ifndef SL_LM_UTF8_H
#define SL_LM_UTF8_H

#include <stddef.h>
#include <stdint.h>

// Bytes of the character at `bytes`: 1..4; 0: `size` ends inside it; -1: the first byte is not part of a character.
// Overlong forms and surrogates are no characters.
int sl_utf8_character(const char *bytes, size_t size);

// Whole characters of a stream of bytes; a zeroed one is at the beginning.
struct sl_utf8 {
    char kept[4]; // bytes of a character that is not whole yet
    int count;
};

// Appends `size` bytes; writes what is whole now to `out` (3 * (size + 3) bytes at most) and returns its size. Each
// byte that is not part of a character becomes U+FFFD.
size_t sl_utf8_push(struct sl_utf8 *stream, const char *bytes, size_t size, char *out);

// The end of the stream: each byte that is still kept becomes U+FFFD (9 bytes at most).
size_t sl_utf8_finish(struct sl_utf8 *stream, char *out);

#endif
