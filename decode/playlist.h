// SPDX-License-Identifier: Apache-2.0
// What an HLS playlist says of a segment's time. Private to decode/. Pure: text in, numbers out.
#ifndef SL_DECODE_PLAYLIST_H
#define SL_DECODE_PLAYLIST_H

#include <stddef.h>
#include <stdint.h>

struct sl_playlist_place {
    int64_t date_us;   // Unix time of the segment's beginning; SL_NO_TIME: not said
    int64_t behind_us; // from its beginning to the end of the list
    int64_t target_us; // no segment is longer; 0: not said
};

// 1 if the list is one that grows and names the segment at `url`: names are what follows the last slash of a path.
int sl_playlist_find(const char *text, const char *url, struct sl_playlist_place *place);

// 1 if the list is one of variants: the first one's URL, absolute. `base` is the URL of the list itself.
int sl_playlist_variant(const char *text, const char *base, char *out, size_t size);

#endif
