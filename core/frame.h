// SPDX-License-Identifier: Apache-2.0
// A decoded picture and the time it was true: what decode/ hands to the image operation of a device.
//
// Frames are reference-counted and immutable once handed out; ref and unref from any thread. Whoever made a frame
// gives `release`, called once when the last reference goes (from whichever thread dropped it).
#ifndef SL_CORE_FRAME_H
#define SL_CORE_FRAME_H

#include <stdint.h>

#ifdef __cplusplus // the host side of kernels passes frames on, and leaves their count alone
typedef int sl_references;
#else
#include <stdatomic.h>
typedef atomic_int sl_references;
#endif

#define SL_NO_TIME INT64_MIN

enum sl_memory { SL_MEMORY_HOST, SL_MEMORY_CUDA };

enum sl_layout {
    SL_LAYOUT_YUV_PLANAR,     // planes Y, U, V
    SL_LAYOUT_YUV_SEMIPLANAR, // planes Y, UV interleaved (NV12, P010)
    SL_LAYOUT_GRAY,           // plane Y
    SL_LAYOUT_RGB_PLANAR,     // planes R, G, B
    SL_LAYOUT_RGB_PACKED,     // plane RGB, 3 samples a pixel
};

enum sl_matrix {
    SL_MATRIX_UNKNOWN,
    SL_MATRIX_BT601,
    SL_MATRIX_BT709,
    SL_MATRIX_BT2020,
    SL_MATRIX_SMPTE240M,
    SL_MATRIX_FCC
};
enum sl_range { SL_RANGE_UNKNOWN, SL_RANGE_LIMITED, SL_RANGE_FULL };
enum sl_siting { SL_SITING_UNKNOWN, SL_SITING_LEFT, SL_SITING_CENTER, SL_SITING_TOPLEFT };
enum sl_transfer { SL_TRANSFER_SDR, SL_TRANSFER_PQ, SL_TRANSFER_HLG };

struct sl_frame {
    int64_t pts_us;  // media time: the frame's own PTS on the source's timebase, media time 0 = container start
    int64_t wall_us; // Unix time of a live source's frame; SL_NO_TIME for files

    enum sl_memory memory;
    int device_index; // GPU ordinal when memory is SL_MEMORY_CUDA
    void *ready;      // opaque native event after which the planes may be read; NULL: now

    int width, height; // in luma samples, before rotation
    enum sl_layout layout;
    int bit_depth;                      // 8..16 significant bits a sample; above 8: 16-bit little-endian samples
    int msb_shift;                      // unused low bits of a 16-bit sample (P010: 6; planar 10-bit: 0)
    int chroma_shift_x, chroma_shift_y; // log2 of the chroma subsampling
    const uint8_t *plane[3];            // host or device addresses
    int64_t pitch[3];                   // bytes a line; may be negative
    enum sl_matrix matrix;              // UNKNOWN: by height, see vision rules in ARCHITECTURE.md
    enum sl_range range;
    enum sl_siting siting;
    enum sl_transfer transfer;
    int sar_num, sar_den; // sample aspect ratio before rotation, 1:1 when unknown
    int rotation;         // clockwise degrees to turn the picture for viewing: 0, 90, 180, 270
    int mirrored;         // 1: flip left-right after turning

    sl_references references;
    void (*release)(struct sl_frame *frame); // frees frame and planes
    void *owner;                             // for release
};

// One point of the sampling grid: the frame that is on screen then.
struct sl_sample {
    int64_t index;          // k of the grid
    int64_t sample_us;      // media time k / fps
    struct sl_frame *frame; // one reference, the receiver's
};

struct sl_frame *sl_frame_ref(struct sl_frame *frame);
void sl_frame_unref(struct sl_frame *frame); // accepts NULL

#endif
