// SPDX-License-Identifier: Apache-2.0
// Playlists come from the network: any bytes are read, and a segment that is found lies inside its list.
#include <stdlib.h>
#include <string.h>

#include "decode/playlist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char url[64], *text = malloc(size + 1);
    struct sl_playlist_place place;
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = 0;
    if (sl_playlist_find(text, "http://host/a.ts", &place) && (place.behind_us < 0 || place.target_us < 0)) {
        abort();
    }
    if (sl_playlist_variant(text, "http://host/all.m3u8", url, sizeof url) && strlen(url) >= sizeof url) {
        abort();
    }
    free(text);
    return 0;
}
