// SPDX-License-Identifier: Apache-2.0
// The decoder: packets become pictures in the order of their times, and what is lost on the way becomes holes. Private
// to decode/. Owns the codec context; one thread at a time.
#ifndef SL_DECODE_PICTURES_H
#define SL_DECODE_PICTURES_H

#include "decode/holes.h"
#include "decode/input.h"
#include "decode/losses.h"
#include "decode/nvdec.h"
#include "decode/packets.h"

struct sl_picture {
    AVFrame *frame; // never NULL; blank before the first picture
    int64_t pts_us;
    int64_t end_us; // PTS plus the stated duration, or the nominal one
};

struct sl_pictures {
    struct sl_input *input;
    struct sl_holes *holes;
    struct sl_source_counts *counts;
    AVCodecContext *codec;
    struct sl_packets packets; // read ahead, where unneeded ones are skipped
    AVPacket *packet;
    int has_packet;   // `packet` waits to be sent
    int is_drained;   // the decoder was told that no packet follows
    int has_failed;   // it reported an error since it was flushed
    int64_t sent_pts; // the latest that the decoder was given, in the stream's ticks; INT64_MAX: not known
    // After a jump the decoder may still hold pictures from before it. They are earlier than `stale_until`, which is
    // known once a key picture's packet comes; AV_NOPTS_VALUE before.
    int is_stale;
    int64_t stale_until;
    struct sl_losses losses;

    int seen_key;   // a key picture's packet came by
    int64_t key_us; // time of the first key picture's packet since the start or the last jump; SL_NO_TIME before
    int missing;    // pictures that did not come, where some were skipped
    int guessed;    // pictures whose time is not stated but was guessed from the order of decoding
    // After a seek packets before the first key picture are dropped, and pictures before it are not missed.
    int was_repositioned;

    AVFrame *doubtful, *queued; // a picture far ahead of the one before, and the one after it that confirmed it
    int has_doubtful, has_queued;

    int has_last;
    int64_t last_us, last_end_us; // of the last picture handed out
    const char *last_damage;      // what it suffers from, or NULL
    int64_t step_us;              // added since the stream's clock went back
    int64_t backward_us;          // raw time of the picture just dropped for going back, or SL_NO_TIME
};

// Opens the decoder. On failure nothing is left to close. `pictures` is all zero before.
int sl_pictures_open(struct sl_pictures *pictures, struct sl_input *input, struct sl_nvdec *gpu, struct sl_holes *holes,
                     struct sl_source_counts *counts, struct sl_error *error);
void sl_pictures_close(struct sl_pictures *pictures);

// Forgets everything in flight: the input was repositioned.
void sl_pictures_reset(struct sl_pictures *pictures);

// What went wrong before the last picture is not to be held against those after it.
void sl_pictures_trust(struct sl_pictures *pictures);
// 1 if nothing went wrong since: no fault was reported, no time guessed, no clock corrected, nothing missing
// beside what was skipped.
int sl_pictures_are_trusted(const struct sl_pictures *pictures);

// Moves the next picture into `picture`; SL_END after the last one (then last_end_us is where pictures end), or
// SL_ERR_INTERRUPTED / SL_ERR_MEMORY.
int sl_pictures_next(struct sl_pictures *pictures, struct sl_picture *picture, struct sl_error *error);

#endif
