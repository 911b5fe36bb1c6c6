// SPDX-License-Identifier: Apache-2.0
// Watching live sources: many cameras, one engine, one index.
//
// Threads:
//   camera      one for each source: connects for ever, decodes, cuts windows (src/camera.c)
//   dispatcher  asks the engine, at most as many windows at once as it decodes together: the camera that waited longest
//               goes first
//   [engine]    each model's own
//   writer      the only one that uses the index: connections, segments, windows, outages of each camera in the order
//               of time, and what sinks are told (src/watch_writer.c)
// A live source never waits. Of each camera at most SL_WATCH_WAITING full windows wait for the engine; when another one
// is full the oldest of them is dropped, and its row says so. So a window is begun by the engine, or dropped, at most
// SL_WATCH_WAITING window lengths after its end.
#ifndef SL_SRC_WATCH_H
#define SL_SRC_WATCH_H

#include <pthread.h>
#include <stdatomic.h>

#include "decode/decode.h"
#include "src/profile.h"
#include "src/row.h"
#include "src/sinks.h"

enum {
    SL_WATCH_WAITING = 2, // full windows of a camera that wait
    SL_WATCH_FLYING = 2,  // windows of a camera that are with the engine, or answered and not yet written
    SL_WATCH_CLIPS = SL_WATCH_WAITING + SL_WATCH_FLYING + 1,
};

// The cause of an outage between two segments of a connection.
#define SL_WATCH_LEAPT "time leapt: a clock was set, or pictures were lost"

// What a camera's thread tells the writer, in the order of time.
enum sl_record_kind {
    SL_RECORD_CONNECTION,
    SL_RECORD_SEGMENT,
    SL_RECORD_WINDOW,
    SL_RECORD_END,
    SL_RECORD_OUTAGE,
    SL_RECORD_PROFILE
};
// A window's way; all other records are settled from the beginning.
enum sl_record_state { SL_RECORD_WAITING, SL_RECORD_ASKING, SL_RECORD_FLYING, SL_RECORD_SETTLED };

struct sl_record {
    struct sl_record *next;
    enum sl_record_kind kind;
    enum sl_record_state state;
    struct sl_live_segment segment; // segment, window: as known then
    struct sl_window *window;
    const char *dropped;       // window: why it was never asked; NULL: it was
    int64_t start_us, end_us;  // end: end_us, media time; outage: Unix times, end_us SL_NO_TIME while it goes on
    char text[480];            // outage: cause; connection: codec
    char format[64];           // connection: container
    int64_t ready_us;          // monotonic: when it was told
    struct sl_profile profile; // profile: the new one, the writer's from now on
};

// Read by the metrics while the threads count.
struct sl_camera_stats {
    atomic_int connected;
    _Atomic int64_t packets, bytes, decoded, damaged, backward, sampled;
    _Atomic int64_t windows_done, windows_failed, windows_dropped, connects, attempts, events;
    _Atomic int64_t lag_us;        // of the last window: from its end on screen to its row
    _Atomic int64_t last_event_us; // Unix time; 0: none yet
    _Atomic int64_t waiting;       // windows
};

struct sl_known_event {
    int64_t id, revision, start_us, end_us; // media time
    int ended;
};

struct sl_watch;

struct sl_camera {
    struct sl_watch *watch;
    char *url;       // secret
    char shown[512]; // the same without its secrets
    char name[SL_DB_NAME_BYTES];
    char *profile_path;        // NULL: none
    struct sl_profile profile; // constant while the thread runs
    int over_udp;
    int64_t timeout_us;
    struct sl_choice choice; // whose its windows are
    struct sl_camera_stats stats;

    pthread_t thread;
    int started;
    atomic_int stopping;  // this one alone: its profile is read again
    atomic_int finished;  // its thread is about to end
    atomic_int reloading; // until the writer has taken the new profile

    // Under the watch's lock:
    struct sl_record *first, *last; // not yet written
    int waiting, flying;
    int64_t served_us; // when the engine got its last window
    struct sl_clip *free_clips[SL_WATCH_CLIPS];
    int free_count;

    // The camera thread's alone:
    struct sl_clip *clips[SL_WATCH_CLIPS];
    struct sl_stream *stream;
    struct sl_live *live;
    struct sl_live_segment segment;
    struct sl_window *window; // being filled
    struct sl_hole hole;      // the last one
    int64_t cut_us;           // media time up to which windows were cut of the segment
    int64_t outage_us;        // Unix time since when there are no pictures; SL_NO_TIME: there are
    int64_t ended_us;         // Unix time up to which all is told; before the thread starts: when watching began
    int has_segment;

    // The writer's alone:
    int64_t source, task, segment_id;
    struct sl_db_media media;
    struct sl_db_claim claim;
    int claimed;
    struct sl_live_segment written; // the segment as the index has it
    int64_t last_outage_us; // Unix time at which the outage before this segment began, or would have; SL_NO_TIME: none
    char last_cause[480];
    struct sl_known_event *known;
    int known_count, known_room;
    int64_t answered_end_us; // media time up to which windows of the segment are written
};

struct sl_watch_options {
    struct sl_device *device; // of all models
    struct sl_db *db;
    struct sl_sinks *sinks;
    const char *index_path;
    int64_t run;
    int64_t keep_us, max_bytes; // 0: for ever, any size
    void *context;
    int (*interrupted)(void *context);              // any thread
    int (*reload)(void *context);                   // calling thread; 1: profiles are to be read again
    void (*note)(void *context, const char *text);  // any thread
    void (*alive)(void *context, const char *text); // calling thread, every second: all threads do their work
};

struct sl_watch {
    const struct sl_watch_options *options;
    struct sl_window_rules defaults; // before profiles
    int64_t began_us;                // Unix time
    struct sl_camera *cameras;
    int camera_count;

    pthread_mutex_t lock;
    pthread_cond_t change; // records, free clips, flights
    atomic_int stopping;   // cameras end
    atomic_int drained;    // no record will come any more
    atomic_int giving_up;  // what waits is dropped
    atomic_int fatal;      // the index cannot be used; error says why
    struct sl_error error;
    _Atomic int64_t writer_beat_us, dispatcher_beat_us; // monotonic
    _Atomic int64_t generated_tokens, prompt_tokens, index_bytes;
};

// Runs until interrupted, or until all sources are files and over. Cameras are set up by the caller (url to
// choice).
int sl_watch_run(struct sl_watch *watch, const struct sl_watch_options *options, struct sl_error *error);

// ---- Between the threads' files

int64_t sl_watch_now_us(void); // monotonic
void sl_watch_note(struct sl_camera *camera, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Takes a filled record; drops the oldest waiting window when there are too many. Copies `record`.
int sl_watch_tell(struct sl_camera *camera, const struct sl_record *record);
struct sl_clip *sl_watch_take_clip(struct sl_camera *camera); // never fails: at worst a waiting window gives its own
void sl_watch_return_clip(struct sl_camera *camera, struct sl_clip *clip);

void *sl_camera_thread(void *camera);
void *sl_watch_writer_thread(void *watch);

#endif
