// SPDX-License-Identifier: Apache-2.0
// Which pictures should have come out of the decoder and did not. Private to decode/; no thread safety.
//
// Every packet with a time is expected to become a picture with that time. Pictures come out in the order of their
// times, so when one comes, all earlier expectations that are still open are lost. Some packets never become pictures
// by design (hidden reference pictures, second fields), so an open expectation counts as a loss only for a while after
// the demuxer or the decoder reported a fault. Reports alone would not do: with threads and reordered pictures they
// arrive long after the packet they are about.
#ifndef SL_DECODE_LOSSES_H
#define SL_DECODE_LOSSES_H

#include <stdint.h>

// More than any decoder holds back (16 frame threads and 16 reordered pictures).
#define SL_EXPECTED_MAX 128

// All zero at first. Times are those of the stream's own clock, in microseconds.
struct sl_losses {
    struct sl_expected {
        int64_t pts_us;
        const char *damage; // what the picture will suffer from; NULL: nothing known
    } expected[SL_EXPECTED_MAX];
    int count;
    int64_t sent_us;   // of the packet sent last, or SL_NO_TIME
    int suspicion;     // pictures left during which missing ones are blamed on `cause`
    const char *cause; // of the last fault; a constant
    int64_t faults;    // reported so far
};

// A fault was reported, at no known time.
void sl_losses_suspect(struct sl_losses *losses, const char *cause);

// A fault was reported, and it is about the packet sent last, whose picture may come nevertheless.
void sl_losses_blame(struct sl_losses *losses, const char *cause);

// A packet goes to the decoder.
void sl_losses_expect(struct sl_losses *losses, int64_t pts_us, const char *damage);

// A picture came: closes all expectations up to its time. Returns the first one later than `after_us` that is lost, or
// SL_NO_TIME; *damage is what was known about the packet of this very time.
int64_t sl_losses_settle(struct sl_losses *losses, int64_t after_us, int64_t pts_us, const char **damage);

// The picture of this time came, and is left out.
void sl_losses_forget(struct sl_losses *losses, int64_t pts_us);

#endif
