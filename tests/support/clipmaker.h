// SPDX-License-Identifier: Apache-2.0
// Makes small video files with a burnt-in clock, and reads that clock back from decoded frames, so that a test can tell
// which picture it was given. Each picture carries a number of 16 bits (its time in milliseconds) and a checksum of 8
// as 6 x 4 blocks of black and white.
#ifndef SL_TESTS_SUPPORT_CLIPMAKER_H
#define SL_TESTS_SUPPORT_CLIPMAKER_H

#include <stddef.h>

#include <libavutil/pixfmt.h>
#include <libavutil/rational.h>

#include "core/frame.h"

struct clip {
    const char *path; // the container follows from the extension, unless `container` is set
    const char *container;
    const char *encoder;             // default "mpeg4"
    int width, height;               // default 192x128
    enum AVPixelFormat pixel_format; // default yuv420p (which is 0 in FFmpeg)
    int key_interval;                // pictures between key pictures; default 12
    int b_frames;
    AVRational time_base; // of `pts`; default 1/1000
    const int64_t *pts;   // of each picture; their burnt-in numbers are these times in ms
    int count;
    int64_t shift_ms; // added to all times in the container, not to the burnt-in ones
    int cut_at_zero;  // keep times before zero, for the container to cut away (an edit list in MP4)
    int turn[4];      // a, b, c, d of the display matrix (x' = a x + c y, y' = b x + d y); all 0: none
    int interlaced;   // 0, or 1: top field first, 2: bottom field first; burnt-in number + 1000 in the second field
    AVRational sample_aspect;
    int sound_ms;        // length of a silent PCM track that starts at zero; 0: none
    int cover;           // a cover picture as another stream (MP4), before the video
    const char *options; // encoder options, "key=value:key=value"
    const char *muxer_options;
};

void clip_make(const struct clip *clip);                                        // fails the test when it cannot
int clip_encoder_exists(const char *encoder);                                   // else skip()
void clip_make_sound(const char *path, int sound_ms);                           // no video at all
void clip_grid(int64_t *pts, int count, AVRational rate, AVRational time_base); // times of a constant rate

// The number burnt into a frame, or -1 if the checksum does not hold.
int clip_read_clock(const struct sl_frame *frame);

// Files of the test: a fresh folder, deleted with what is in it by clip_folder_remove() unless KEEP_CLIPS is set.
const char *clip_folder_make(void);
void clip_folder_remove(void);
const char *clip_path(const char *name); // inside the folder; valid for the next 8 calls
void clip_write_bytes(const char *path, const void *bytes, size_t size_bytes);
void *clip_read_bytes(const char *path, size_t *size_bytes); // for the caller to free()

#endif
