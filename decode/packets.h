// SPDX-License-Identifier: Apache-2.0
// Packets read some way ahead, so that it can be told which of them no sample needs. Private to decode/.
//
// A picture that no other refers to is needed only if it is the last one not later than some sample. That depends on
// when the next picture is shown, whose packet may come before or after it. Any picture known to be shown later says
// until when at most this one is shown: so what is not known yet can only make a picture needed that is not.
#ifndef SL_DECODE_PACKETS_H
#define SL_DECODE_PACKETS_H

#include "decode/input.h"

// More than pictures are reordered by.
#define SL_PACKETS_AHEAD 16

struct sl_packets {
    AVPacket *queue[SL_PACKETS_AHEAD];
    int count;
    int status;                       // SL_OK, or what reading ended with
    struct sl_error error;            // likewise
    int64_t passed[SL_PACKETS_AHEAD]; // times of the packets handed out last; SL_NO_TIME: none
    int turn;
    int64_t key_us; // time of the first key picture; SL_NO_TIME before
};

void sl_packets_clear(struct sl_packets *packets); // nothing is read ahead; before the first use, too

// Moves the next packet into `packet`, or SL_END, or an error, as sl_input_read(). *is_needed: 0 if its picture need
// not be decoded.
int sl_packets_next(struct sl_packets *packets, struct sl_input *input, AVPacket *packet, int *is_needed,
                    struct sl_error *error);

#endif
