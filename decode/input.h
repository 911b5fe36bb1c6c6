// SPDX-License-Identifier: Apache-2.0
// The container: opening, choosing the video stream, the origin of media time, packets, seeking, and what FFmpeg's
// error codes mean. Private to decode/. Owns the AVFormatContext; one thread at a time.
#ifndef SL_DECODE_INPUT_H
#define SL_DECODE_INPUT_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "decode/decode.h"

enum sl_note {
    SL_NOTE_COUNTED_TIME,
    SL_NOTE_UNDATED,
    SL_NOTE_BACKWARD,
    SL_NOTE_CLOCK_STEP,
    SL_NOTE_INTERLACED,
    SL_NOTE_CONVERTED,
    SL_NOTE_ROTATION,
    SL_NOTE_MATRIX,
    SL_NOTE_READ_ERROR,
    SL_NOTE_SOFTWARE,
    SL_NOTE_LANE_FAULT,
};

struct sl_input {
    const struct sl_source_options *options; // the source's copy
    char *path;
    AVFormatContext *format;
    AVStream *stream;
    const AVCodec *decoder;
    int64_t origin; // media time 0, in ticks of origin_base
    AVRational origin_base;
    int64_t give_up_us;  // on av_gettime_relative()'s clock; 0: never
    int64_t read_end_us; // latest end of any packet of any stream so far
    int is_local;        // 1: a name that exists on this machine
    int read_error;      // 1: reading ended on an error, not on the end of the file
    unsigned said;       // bit per enum sl_note
};

// `input` is all zero before. On failure nothing is left to close.
int sl_input_open(struct sl_input *input, const char *path, const struct sl_source_options *options,
                  struct sl_error *error);
void sl_input_close(struct sl_input *input); // keeps `said`, so that a reopened input does not repeat its notes

// The next packet of the video stream, SL_END at the end of what can be read, or SL_ERR_INTERRUPTED / SL_ERR_MEMORY.
int sl_input_read(struct sl_input *input, AVPacket *packet, struct sl_error *error);

// Reads up to the next key picture's packet: 1 and its time; 0 if there is none, or it has none.
int sl_input_read_key(struct sl_input *input, int64_t *key_us, struct sl_error *error);

// 1 if a jump can be tried at all.
int sl_input_can_seek(const struct sl_input *input);

// Asks for the key picture at or before media_us; 1 if the container did something. Where it landed is the caller's to
// verify; after a failure it may be anywhere.
int sl_input_seek(struct sl_input *input, int64_t media_us);

// Media time of a PTS of the video stream; SL_NO_TIME for AV_NOPTS_VALUE and for times beyond 100,000 years.
int64_t sl_input_media_us(const struct sl_input *input, int64_t pts);

// A length in ticks of the video stream; 0 if unknown, or longer than a day, which no picture is shown for.
int64_t sl_input_length_us(const struct sl_input *input, int64_t ticks);

// The stated length of the media, from media time 0; SL_NO_TIME if unknown.
int64_t sl_input_duration_us(const struct sl_input *input);

// Where the pictures should end according to the container, judged after the last packet; SL_NO_TIME if it does not
// say.
int64_t sl_input_stated_end_us(const struct sl_input *input);

// SL_ERR_INTERRUPTED if the caller wants to stop or time is up, else SL_OK.
int sl_input_check(const struct sl_input *input, struct sl_error *error);

// Passes one line to the caller, once for each kind.
void sl_input_note(struct sl_input *input, enum sl_note kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
