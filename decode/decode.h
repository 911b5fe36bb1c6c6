// SPDX-License-Identifier: Apache-2.0
// The door of decode/: a video file or URL becomes pictures on a sampling grid, each with its own time in the media.
//
// A source owns the container, the decoder and a bounded list of holes. The frames it hands out are the receiver's:
// they stay valid after sl_source_close() and may be released from any thread. A source itself is used by one thread at
// a time. It decides nothing about colour, size or windows, and keeps a few pictures at most, however long the media.
//
// Lanes. A local file whose container has an index is cut at key pictures into parts of some seconds, and `lanes`
// threads decode parts side by side, each with an input and a decoder of its own that are opened once. Samples, holes,
// counts and the end are those that one session gives: every part is watched, and where anything is not as it should be
// (a loss, damage, a time out of order, a part that does not begin with the picture at which the one before ended) one
// session goes on alone from there. Each lane is at most two parts ahead, and holds at most 32 pictures that samples
// show, fewer when they are large (128 MiB, but at least 4). Where a file cannot be cut, one session reads it. Lanes on
// the GPU and on the CPU may share a file: a codec says exactly what its pictures are, and the seams are checked.
//
// Skipping. With skip_unneeded lanes (one at least) do not decode pictures of H.264 and HEVC that no other refers to
// and that are not on screen at any sample. The samples stay what they are: where a picture that was decoded does not
// come, one session goes on alone and decodes everything. But damage that only such pictures have makes no hole. Files
// that cannot be cut are decoded as a whole.
//
// GPU. With gpu.context pictures are decoded by NVDEC where FFmpeg can, and handed out as device surfaces
// (SL_MEMORY_CUDA) that are complete. What the hardware does not take is decoded on the CPU and handed out as host
// frames, with a note; the counts tell. A frame may be released when the work that reads it is done.
//
// FFmpeg's log is process-wide state, so nothing here touches it: src/ silences it once with av_log_set_level().
//
// Time (all int64 microseconds, spans half-open):
//   - Media time 0 is the container's start_time, else the first video PTS. A picture's pts_us is its PTS on
//     the stream's timebase minus that origin, computed exactly and rounded down once. It is never counted from a frame
//     rate.
//   - Sample k stands at k / fps (rounded down), whatever from_us says, and shows the last picture whose pts_us is not
//   later;
//     the first picture if there is none yet. A picture held for long is handed out again for each of its samples.
//   - The last picture stays until its PTS plus its stated duration; samples from there on do not exist.
//   - Where a stream may restart its clock (MPEG-TS, MPEG-PS) and does so backwards, media time goes on from the end
//     of the last picture, with a note. Seeking (from_us) cannot see a restart that lies before it.
#ifndef SL_DECODE_DECODE_H
#define SL_DECODE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/frame.h"

#define SL_LANES_MAX 64

struct sl_source;

// A GPU to decode on. Native handles of CUDA, so that decode/ need not know who made them.
struct sl_source_gpu {
    void *context;        // CUcontext; NULL: decode on the CPU. Must outlive all frames
    void *const *streams; // CUstream of each lane, `lanes` of them and at least one; in use until sl_source_close()
    int device_index;     // for the frames
    int (*wait)(void *ctx, int lane, struct sl_error *error); // until all that is on the lane's stream is done; from
                                                              // any thread, each lane's by one at a time
    void *ctx;                                                // for `wait`
};

struct sl_source_options {
    int64_t fps_num, fps_den; // samples a second as a fraction, each 1..1000000
    int64_t from_us, to_us;   // samples with from_us <= sample_us < to_us; SL_NO_TIME: open end
    int threads;              // decoder threads, 64 at most are used; 0: one for each core
    int lanes;                // sessions that decode parts of a file side by side; 0 or 1: one for all of it
    int cpu_lanes;            // beside those, on one CPU core each, when the others decode on a GPU
    int skip_unneeded;        // 1: pictures that no sample shows and no picture refers to need not be decoded
    struct sl_source_gpu gpu;
    int64_t open_timeout_us; // longest wait while opening; 0: none
    int64_t read_timeout_us; // longest wait for one packet; 0: none

    // Both may be NULL; called with `ctx` from the thread that is inside sl_source_open() or sl_source_next(), and
    // `interrupted` also from within FFmpeg's blocking reads.
    int (*interrupted)(void *ctx);             // nonzero: give up with SL_ERR_INTERRUPTED
    void (*note)(void *ctx, const char *text); // one line on what the stream is, or how it goes; each kind is said once
    void *ctx;
};

// What the container says. Strings live as long as the source, "" when unknown.
struct sl_source_info {
    const char *container, *codec, *profile, *pixel_format;
    int width, height;          // as stored, before rotation; 0 when unknown
    int rotation, mirrored;     // as in struct sl_frame
    int sar_num, sar_den;       // sample aspect ratio, 1:1 when unknown
    int64_t start_time_us;      // the container's own clock at media time 0
    int64_t duration_us;        // stated length of the media; SL_NO_TIME when unknown
    int duration_is_estimate;   // 1: guessed from the bit rate
    int64_t created_us;         // Unix time of the creation_time tag; SL_NO_TIME when absent
    int64_t rate_num, rate_den; // nominal pictures a second, 0/1 when unknown; for display only
    int64_t bit_rate;           // of the video stream, else of the file, in bits a second; 0 when unknown
};

// Pictures left out, and pictures handed out although FFmpeg found them damaged.
struct sl_source_counts {
    int64_t decoded;  // dated pictures that came out of the decoder
    int64_t on_gpu;   // of those, the ones that came as a surface of the GPU
    int64_t skipped;  // not decoded, as no sample needs them; some near the seams of parts count twice
    int64_t undated;  // left out: no time, or one that cannot be
    int64_t backward; // left out: not later than the picture before
    int64_t damaged;  // kept; each lies in a hole
};

// A span of media time whose pictures are lost or damaged. Samples inside it still come: they show the last picture
// held, or a damaged one.
struct sl_hole {
    int64_t start_us, end_us; // inside [from_us, to_us)
    const char *cause;        // a constant: "corrupt packet", "decode error", "no key picture yet",
                              // "no pictures in the stream", "file ends early", "read error"
};

// Two samples a second, the whole media, all cores, no time limits, no callbacks.
void sl_source_defaults(struct sl_source_options *options);

// Opens a path (any name that exists is taken as a local file) or a URL, picks the video stream, and seeks to the key
// picture before from_us, verified. `options` is copied. On failure *source is NULL and the status tells the cause:
// SL_ERR_OPEN (missing, unreadable, a folder), SL_ERR_EMPTY, SL_ERR_NOT_VIDEO, SL_ERR_NO_VIDEO, SL_ERR_TRUNCATED
// (container known, its header or index is not there), SL_ERR_USAGE, SL_ERR_IO, SL_ERR_MEMORY, SL_ERR_INTERRUPTED.
int sl_source_open(const char *path, const struct sl_source_options *options, struct sl_source **source,
                   struct sl_error *error);

// What the container says, valid until sl_source_close().
const struct sl_source_info *sl_source_info(const struct sl_source *source);

// The next sample, whose frame is the caller's reference; SL_END after the last; or an error, which stays. A file that
// ends early still ends in SL_END, with a hole over what is missing; if not one picture could be decoded the error is
// SL_ERR_TRUNCATED.
int sl_source_next(struct sl_source *source, struct sl_sample *sample, struct sl_error *error);

// Takes the next hole, in order: 1 and *hole, or 0. A hole is there before the first sample inside it is handed out, so
// ask after each sl_source_next(). A long hole may come in touching parts.
int sl_source_next_hole(struct sl_source *source, struct sl_hole *hole);

struct sl_source_counts sl_source_counts(const struct sl_source *source);

// After SL_END: where the pictures end, at most to_us; from_us if there were none. Before: SL_NO_TIME.
int64_t sl_source_end_us(const struct sl_source *source);

void sl_source_close(struct sl_source *source); // accepts NULL

// --- Live sources: cameras (RTSP, HLS, MJPEG over HTTP, V4L2 devices), and files at their own pace for rehearsals ---
//
// A connection's media time begins with its first picture and runs on wall time: a segment is a stretch of it on which
// Unix time is media time plus a constant, found from the camera's RTCP sender reports or from arrival (liveclock.h).
// Pictures whose time repeats or goes back are left out; a clock that steps begins a new segment. Nothing here waits
// for whoever takes the samples, and nothing is read for longer than the time-outs allow.

enum sl_live_origin { SL_LIVE_ARRIVAL, SL_LIVE_CAMERA };

struct sl_live_segment {
    int64_t start_us;      // media time
    int64_t wall_start_us; // Unix time of start_us; may be bettered a little while the segment goes on
    enum sl_live_origin origin;
    int64_t error_us; // estimated error of the wall time, plus or minus
};

enum sl_live_kind {
    SL_LIVE_SEGMENT, // what follows is of a new segment; the one before ended at end_us
    SL_LIVE_SAMPLE,  // sample k of the segment stands at its start + k / fps
    SL_LIVE_HOLE,    // no pictures came for some time; before the first sample inside it
};
struct sl_live_item {
    enum sl_live_kind kind;
    int64_t end_us; // of the segment before; SL_NO_TIME: this is the first
    struct sl_sample sample;
    struct sl_hole hole;
};

struct sl_live_options {
    int64_t fps_num, fps_den;
    int over_udp;                  // RTSP: media over UDP; else inside the control connection
    int64_t timeout_us;            // longest wait for opening, and for one packet
    int (*interrupted)(void *ctx); // as in sl_source_options
    void (*note)(void *ctx, const char *text);
    void *ctx;
};

struct sl_live_counts {
    int64_t packets, bytes, decoded, damaged, backward, sampled; // damaged and backward: pictures left out
};

struct sl_live;
// `url` may hold a password; messages call the source `name`, and FFmpeg's reasons are given without the URL.
int sl_live_open(const char *url, const char *name, const struct sl_live_options *options, struct sl_live **live,
                 struct sl_error *error);
// SL_OK and *item, whose frame is the caller's reference; SL_END: the stream is over; SL_ERR_IO: nothing came in time,
// or reading failed; SL_ERR_INTERRUPTED: the caller wants to stop.
int sl_live_next(struct sl_live *live, struct sl_live_item *item, struct sl_error *error);
struct sl_live_segment sl_live_segment(const struct sl_live *live); // the one at hand
int64_t sl_live_end_us(const struct sl_live *live);                 // media time up to which pictures have come
int sl_live_is_file(const struct sl_live *live);                    // it ends for good
int sl_live_names_file(const char *url);                            // the same of what is not open yet
const char *sl_live_codec(const struct sl_live *live);              // for people
const char *sl_live_container(const struct sl_live *live);
struct sl_live_counts sl_live_counts(const struct sl_live *live);
void sl_live_close(struct sl_live *live); // accepts NULL

// The URL without user, password and query, for logs and the index. `out` is cut to `size`.
void sl_live_redact(const char *url, char *out, size_t size);

#endif
