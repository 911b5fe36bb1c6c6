// SPDX-License-Identifier: Apache-2.0
// The index: one SQLite file that says what happened, when, and which moments were looked at (db/schema.sql).
//
// Owns the file, its schema, the claim of a source by a process, the derivation of events from the windows' answers,
// and every question asked of them. Does not know models, frames, or how a time is written.
//
// Who writes says who and what it is about, claims a source and task, commits one window after another, and releases
// the claim. Who reads needs only the questions.
//
// A `struct sl_db` is one connection: one thread at a time; open another for another thread. Any number of processes
// and connections may use one file; writers wait for each other for up to SL_DB_WAIT_MS, readers never wait.
// Strings given in are copied; strings handed to a callback live until it returns. Spans are half-open.
// Times are int64 microseconds: "media" time counts from the container's start, "Unix" time from 1970 UTC.
// SL_NO_TIME (core/frame.h) stands for "not known" or "unbounded".
#ifndef SL_DB_DB_H
#define SL_DB_DB_H

#include <stdint.h>

#include "core/error.h"
#include "core/frame.h"

enum { SL_DB_NAME_BYTES = 256, SL_DB_WAIT_MS = 20000, SL_DB_STALE_SECONDS = 30 };

struct sl_db;
enum sl_db_mode { SL_DB_READ, SL_DB_WRITE }; // WRITE makes the file if there is none; READ never writes

int sl_db_open(struct sl_db **out, const char *path, enum sl_db_mode mode, struct sl_error *e);
void sl_db_close(struct sl_db *db);

// --- Who and what: each call finds its row or makes it, and may be repeated ---

struct sl_db_media {
    int64_t source, media;              // row ids
    char source_name[SL_DB_NAME_BYTES]; // as resolved
    int known;                          // 1: this content was indexed before (perhaps under another path)
    int grown;                          // 1: known, and the file has become longer since
};

// Finds a file by inode and mtime, else by content. `source_name` NULL: the source that the content is known under,
// else the file's name.
int sl_db_file(struct sl_db *db, const char *path, const char *source_name, struct sl_db_media *out,
               struct sl_error *e);

struct sl_db_media_info {
    int64_t duration_us; // SL_NO_TIME: not stated
    const char *format;  // container, as FFmpeg names it
    const char *codec;   // codec and profile for people: "h264 High 1920x1080 29.97 fps"
};
int sl_db_describe(struct sl_db *db, int64_t media, const struct sl_db_media_info *info, struct sl_error *e);

enum sl_db_clock { SL_DB_CLOCK_NONE, SL_DB_CLOCK_USER, SL_DB_CLOCK_ARRIVAL, SL_DB_CLOCK_CAMERA };

// A stretch of media on which wall time = wall_start_us + (media time - start_us). A file has one, from 0.
struct sl_db_segment {
    int64_t media, start_us;
    int64_t wall_start_us; // Unix time; SL_NO_TIME: keep what the index says (a new segment: no wall time)
    enum sl_db_clock clock;
    int64_t error_us; // estimated error of the wall time; SL_NO_TIME: not known
};
int sl_db_segment(struct sl_db *db, const struct sl_db_segment *segment, int64_t *id, struct sl_error *e);
// The segment is over at this media time: events that touch the end are open no more, coverage counts up to it.
int sl_db_segment_end(struct sl_db *db, int64_t segment, int64_t end_us, struct sl_error *e);

// `text` is canonical: equal text is the same task. `pair_us`: one frame-pair period (2 / fps), the reach of joins.
int sl_db_task(struct sl_db *db, const char *text, int64_t pair_us, int64_t *task, struct sl_error *e);
int sl_db_run_begin(struct sl_db *db, const char *version, const char *arguments, int64_t *run, struct sl_error *e);
int sl_db_run_end(struct sl_db *db, int64_t run, int status, struct sl_error *e);

// --- Live sources ---

// One connection to a live source: a media of its own. `url` without credentials.
int sl_db_connection(struct sl_db *db, const char *source_name, const char *url, struct sl_db_media *out,
                     struct sl_error *e);
int sl_db_source(struct sl_db *db, const char *name, int64_t *source, struct sl_error *e);

// A span of Unix time in which a live source gave no pictures. Again with the same start: a later end (SL_NO_TIME: not
// over) and another cause.
int sl_db_outage(struct sl_db *db, int64_t source, int64_t start_us, int64_t end_us, const char *cause,
                 struct sl_error *e);
// Watching the source begins at this Unix time: what a killed process left open is closed, and the time since becomes
// an outage of this cause.
int sl_db_resume(struct sl_db *db, int64_t source, int64_t now_us, const char *cause, struct sl_error *e);

// --- The claim: one process at a time works on a source and task ---

struct sl_db_claim {
    int64_t source, task, token;
};
// SL_ERR_BUSY while a live process holds it. One that is dead, or silent for SL_DB_STALE_SECONDS, is taken over.
int sl_db_claim(struct sl_db *db, int64_t source, int64_t task, struct sl_db_claim *out, struct sl_error *e);
// Call at least every 10 s; a commit counts as one. SL_ERR_BUSY: somebody has taken it over, stop.
int sl_db_heartbeat(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e);
int sl_db_release(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e);

// --- Windows ---

// *done = 1 if every moment of the span has a done window of this task: nothing to do there unless forced.
int sl_db_is_done(struct sl_db *db, int64_t segment, int64_t task, int64_t start_us, int64_t end_us, int *done,
                  struct sl_error *e);

// *end_us: where the last done window of this task ends; SL_NO_TIME when there is none.
int sl_db_done_until(struct sl_db *db, int64_t segment, int64_t task, int64_t *end_us, struct sl_error *e);

enum sl_db_state { SL_DB_DONE, SL_DB_FAILED, SL_DB_DROPPED };

struct sl_db_piece {
    int64_t start_us, end_us; // media time, inside the window
    const char *text;
    double confidence; // 0..1; negative: not known
};
struct sl_db_hole { // a stretch that could not be decoded
    int64_t start_us, end_us;
    const char *cause;
};
struct sl_db_window {
    int64_t segment, run;
    int64_t start_us, end_us; // media time
    enum sl_db_state state;
    const char *cause;    // why failed or dropped; NULL when done
    const char *raw_text; // the answer that could not be read; NULL otherwise
    const char *model_name, *model_hash;
    int64_t frames_seen, pairs_skipped, prompt_tokens, generated_tokens, elapsed_ms;
    const struct sl_db_piece *pieces; // none unless done
    int64_t piece_count;
    const struct sl_db_hole *holes;
    int64_t hole_count;
};
// One transaction: all of it and the events that follow from it, or nothing. A done window replaces what its span had
// before; a failed or dropped one never hides a done one. SL_ERR_BUSY: the claim is lost.
int sl_db_commit(struct sl_db *db, const struct sl_db_claim *claim, const struct sl_db_window *window,
                 struct sl_error *e);

// --- Questions. A callback returns 0 to go on, anything else to stop early (the call still returns SL_OK) ---

struct sl_db_query {
    int64_t from_us, to_us;   // events that overlap [from, to); SL_NO_TIME: unbounded
    int wall;                 // 1: Unix times; only segments with wall time answer
    const char *source_glob;  // NULL: all
    const char *const *words; // all must occur; taken as they are, never as FTS5 syntax
    int word_count;
    int64_t task;    // 0: for each source the task that was first answered last
    int64_t limit;   // 0: all
    int64_t segment; // 0: all
};
struct sl_db_event {
    int64_t id, revision, task, media;
    const char *source;
    int64_t start_us, end_us;           // media time
    int64_t wall_start_us, wall_end_us; // Unix time or SL_NO_TIME
    const char *text;
    double confidence; // negative: not known
    int open;          // 1: the next window has not spoken yet, it may grow
    const char *model;
};
// In the order of time (media time, or wall time where there is one), then source.
int sl_db_query(struct sl_db *db, const struct sl_db_query *query, int (*row)(const struct sl_db_event *, void *),
                void *user, struct sl_error *e);
// Of a live source, what is open in segments that nobody has ended, whatever the task.
int sl_db_open_events(struct sl_db *db, int64_t source, int (*row)(const struct sl_db_event *, void *), void *user,
                      struct sl_error *e);
int sl_db_event(struct sl_db *db, int64_t id, int (*row)(const struct sl_db_event *, void *), void *user,
                struct sl_error *e); // one, if it is there

enum sl_db_seen { SL_DB_NEVER, SL_DB_SPAN_DROPPED, SL_DB_SPAN_FAILED, SL_DB_SEEN, SL_DB_OUTAGE };

// One source under one task.
struct sl_db_work {
    int64_t source_id, task;
    const char *source, *task_text, *model; // model: of the newest window; NULL: none
    int newest;                             // 1: what a query without a task takes
    int busy;                               // 1: a live process holds the claim
    int64_t windows_done, windows_failed, windows_dropped, events;
};
int sl_db_works(struct sl_db *db, const char *source_glob, int (*row)(const struct sl_db_work *, void *), void *user,
                struct sl_error *e);

struct sl_db_span {
    int64_t segment; // 0: no media had it, an outage between connections; start_us and end_us are Unix times then
    int64_t start_us, end_us, wall_start_us;
    int live;         // 1: of a connection
    const char *path; // of the media; NULL when segment is 0
    enum sl_db_seen seen;
    const char *cause; // of a failed, dropped or outage span, else NULL
};
// Every segment of the source from its start to its end, cut into spans without gaps or overlaps; and the outages of a
// live source, in the order of time.
int sl_db_coverage(struct sl_db *db, int64_t source, int64_t task, int (*row)(const struct sl_db_span *, void *),
                   void *user, struct sl_error *e);

struct sl_db_stats {
    int schema_version;
    int64_t file_bytes, free_bytes; // free: inside the file, to be used again
    int64_t sources, media, segments, tasks, runs, windows_done, windows_failed, windows_dropped, pieces, events;
};
int sl_db_stats(struct sl_db *db, struct sl_db_stats *out, struct sl_error *e);

struct sl_db_model {
    const char *name, *hash;
    int64_t windows_done, windows_failed, windows_dropped; // that it was given, or meant for
    int64_t events;                                        // whose earliest piece it saw
};
// In the order of their first window.
int sl_db_models(struct sl_db *db, int (*row)(const struct sl_db_model *, void *), void *user, struct sl_error *e);

// --- Upkeep ---

// Forgets live sources: all windows that ended before this Unix time (SL_NO_TIME: none for their age), and beyond that
// the oldest until the content fits into max_bytes (0: any size); then gives the room back, so that the file is as
// small as its content. Files that were indexed stay. *forgotten: windows.
int sl_db_retain(struct sl_db *db, int64_t before_us, int64_t max_bytes, int64_t *forgotten, struct sl_error *e);

// Calls `fault`, as a question its callback, with one line for everything that is wrong with the file. Also says
// whether events follow from pieces.
int sl_db_verify(struct sl_db *db, int (*fault)(const char *line, void *), void *user, struct sl_error *e);

#endif
