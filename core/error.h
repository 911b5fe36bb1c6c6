// SPDX-License-Identifier: Apache-2.0
// What went wrong, on which object, and what to do about it.
//
// A function that can fail returns SL_OK or a negative `enum sl_status` and fills the `struct sl_error *` given last
// (which may be NULL). Nothing in the libraries prints or exits; src/ prints `text` as one line and exits with
// sl_exit_code(status). Thread-safe: no state here.
#ifndef SL_CORE_ERROR_H
#define SL_CORE_ERROR_H

// Each cause has its own exit code, which is the status negated. Documented in README.md; never renumber.
enum sl_status {
    SL_OK = 0,
    SL_ERR_PARTIAL = -1,        // finished, but some windows failed, or `check` found faults
    SL_ERR_USAGE = -2,          // impossible flag or value
    SL_ERR_OPEN = -3,           // path missing or unreadable
    SL_ERR_EMPTY = -4,          // file of zero bytes
    SL_ERR_NOT_VIDEO = -5,      // no container that FFmpeg knows
    SL_ERR_NO_VIDEO = -6,       // a container without a video stream that can be decoded
    SL_ERR_TRUNCATED = -7,      // file ends early or is damaged; what could be read was indexed
    SL_ERR_MODEL_MISSING = -8,  // model folder lacks a file or a shard
    SL_ERR_MODEL_FORMAT = -9,   // safetensors header or index is malformed
    SL_ERR_MODEL_SHAPE = -10,   // a tensor is missing or has the wrong shape or type
    SL_ERR_MODEL_CONFIG = -11,  // config.json lacks a key, or says what scenelog does not know
    SL_ERR_TOKENIZER = -12,     // tokenizer.json is malformed or lacks special tokens
    SL_ERR_INDEX_VERSION = -13, // index written by a newer scenelog
    SL_ERR_INDEX = -14,         // not an index, or a damaged one
    SL_ERR_DISK_FULL = -15,     // no room to write
    SL_ERR_BUSY = -16,          // another process works on the same source and task; or the engine is full
    SL_ERR_DEVICE = -17,        // GPU asked for and not usable
    SL_ERR_MEMORY = -18,        // out of memory
    SL_ERR_IO = -19,            // reading or writing failed otherwise
    SL_ERR_INTERNAL = -20,      // a fault of scenelog itself
    SL_ERR_INTERRUPTED = -130,  // cancelled by the user or by a deadline
    // Not failures: control flow between rooms, never an exit code.
    SL_END = 1, // end of stream
};

struct sl_error {
    enum sl_status status;
    char text[480]; // one line, UTF-8, no newline: what failed: on which object: what to do
};

// Fills `e` (if not NULL) and returns `status`, so that `return sl_fail(e, SL_ERR_OPEN, "...", ...)` reads well.
// Control characters in the text are replaced by '?', so that a hostile file name stays one line.
int sl_fail(struct sl_error *e, enum sl_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Puts "context: " in front of the text that `e` already holds. Returns e->status (SL_ERR_INTERNAL if e is NULL).
int sl_fail_at(struct sl_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Process exit code of a status: 0 for SL_OK, else -status.
int sl_exit_code(int status);

#endif
