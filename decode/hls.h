// SPDX-License-Identifier: Apache-2.0
// The wall time of HLS. FFmpeg's demuxer reads segments and says nothing of their dates, so this watches which segments
// it opens, reads the playlist once more, and tells the clock what that says of the segment at hand: its date
// (EXT-X-PROGRAM-DATE-TIME), or else how far behind the end of the list it lies. Private to decode/; one thread.
#ifndef SL_DECODE_HLS_H
#define SL_DECODE_HLS_H

#include <libavformat/avformat.h>

#include "decode/liveclock.h"

enum { SL_HLS_OPENED = 4 };

struct sl_hls {
    int (*open)(AVFormatContext *format, AVIOContext **io, const char *url, int flags, AVDictionary **options);
    char *url;                   // of the playlist, as it was given; secret
    char *opened[SL_HLS_OPENED]; // the last URLs that the demuxer opened, in turn; secret
    int64_t open_count, seen_count;
    int begins;       // the next key picture is the first of a segment
    int64_t asked_us; // monotonic; 0: never
    int64_t pts_us;   // of the packet before
};

// Before the context is opened, whatever it will turn out to be. Takes its `opaque` and `io_open`.
int sl_hls_attach(struct sl_hls *hls, const char *url, AVFormatContext *format);
void sl_hls_detach(struct sl_hls *hls);

// Options of FFmpeg's demuxer that keep what it opens and what it reads in step.
int sl_hls_options(AVDictionary **options);

// A packet of the video was read. It may wait for the playlist: `interrupt` says for how long.
void sl_hls_packet(struct sl_hls *hls, const AVPacket *packet, int64_t pts_us, const AVIOInterruptCB *interrupt,
                   struct sl_liveclock *clock);

#endif
