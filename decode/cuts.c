// SPDX-License-Identifier: Apache-2.0
#include "decode/cuts.h"

#include <stdlib.h>

// Index entries of MP4 carry decoding times, and seeking compares something between those and the times of pictures. So
// the time to seek to lies a little behind the entry's: more than pictures are reordered, less than the next entry.
#define BEHIND_US 250000

int sl_cuts_are_possible(const struct sl_input *input)
{
    return input->is_local && sl_input_can_seek(input) && (input->format->iformat->flags & AVFMT_TS_DISCONT) == 0;
}

// The next key picture's entry from *at on, or NULL.
static const AVIndexEntry *next_key(AVStream *stream, int *at)
{
    int count = avformat_index_get_entries_count(stream);
    while (*at < count) {
        const AVIndexEntry *entry = avformat_index_get_entry(stream, (*at)++);
        if (entry != NULL && (entry->flags & AVINDEX_KEYFRAME) != 0 && (entry->flags & AVINDEX_DISCARD_FRAME) == 0) {
            return entry;
        }
    }
    return NULL;
}

static int add_cut(struct sl_cuts *cuts, int *room, int64_t seek_us)
{
    if (cuts->count == *room) {
        int more = *room > 0 ? 2 * *room : 64;
        int64_t *grown = realloc(cuts->seek_us, (size_t)more * sizeof *grown);
        if (grown == NULL) {
            return 0;
        }
        cuts->seek_us = grown;
        *room = more;
    }
    cuts->seek_us[cuts->count++] = seek_us;
    return 1;
}

int sl_cuts_find(const struct sl_input *input, int64_t from_us, int64_t to_us, int64_t part_us, struct sl_cuts *cuts,
                 struct sl_error *error)
{
    *cuts = (struct sl_cuts){0};
    int room = 0, at = 0;
    int64_t least_us = from_us + part_us;
    const AVIndexEntry *entry = next_key(input->stream, &at);
    while (entry != NULL) {
        int64_t key_us = sl_input_media_us(input, entry->timestamp);
        entry = next_key(input->stream, &at);
        // The last entry is none to cut at: it is not known how far behind it one may seek.
        int64_t next_us = entry != NULL ? sl_input_media_us(input, entry->timestamp) : SL_NO_TIME;
        if (key_us < least_us || next_us <= key_us || (to_us != SL_NO_TIME && key_us + part_us > to_us)) {
            continue;
        }
        int64_t behind_us = (next_us - key_us) / 2 < BEHIND_US ? (next_us - key_us) / 2 : BEHIND_US;
        if (!add_cut(cuts, &room, key_us + behind_us)) {
            free(cuts->seek_us);
            *cuts = (struct sl_cuts){0};
            return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", input->path);
        }
        least_us = key_us + part_us;
    }
    return SL_OK;
}
