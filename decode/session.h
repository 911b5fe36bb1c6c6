// SPDX-License-Identifier: Apache-2.0
// The sampling grid over the pictures of one input and one decoder: which picture does sample k show? Private to
// decode/. One thread at a time; a session must not move in memory while it is open.
//
// A session reads a span from its start to its end, or, as a lane, one part of it after another: it is opened once and
// begun again at each part's key picture.
#ifndef SL_DECODE_SESSION_H
#define SL_DECODE_SESSION_H

#include "decode/holes.h"
#include "decode/input.h"
#include "decode/nvdec.h"
#include "decode/pictures.h"

struct sl_session {
    const struct sl_source_options *options; // outlive the session
    const char *path;                        // likewise
    struct sl_source_counts counts;
    struct sl_input input;
    struct sl_nvdec gpu;
    struct sl_holes holes;
    struct sl_pictures pictures;

    int64_t index;           // k of the next sample
    int64_t to_us;           // no samples from here on; SL_NO_TIME: open
    struct sl_picture shown; // the last picture not later than the sample
    struct sl_picture ahead; // the first picture later than that
    int has_shown, has_ahead;
    int shown_is_kept; // `shown` was handed out, and is no surface of the GPU's decoder any more
    int is_drained;    // no picture follows `ahead`
    int was_moved;     // the input is not where it was when it was opened
    int64_t end_us;    // where pictures end, after SL_END; SL_NO_TIME before
};

// Opens input and decoder; the first sample is that of options->from_us, but nothing is read yet. `session` is all zero
// before; `lane` says which of options->gpu's streams is its own. After a failure close it all the same.
int sl_session_open(struct sl_session *session, const char *path, const struct sl_source_options *options, int lane,
                    struct sl_error *error);
void sl_session_close(struct sl_session *session);

// Goes to the key picture before the first sample, verified, or to the beginning.
int sl_session_go_to_start(struct sl_session *session, struct sl_error *error);

// Begins a part: goes to the key picture that seeking to target_us finds, whose time is *start_us then. Its picture is
// in `ahead`, and counts and holes begin with it. Returns 1; 0 if the picture does not come, or its time is not sure.
int sl_session_begin(struct sl_session *session, int64_t target_us, int64_t *start_us, struct sl_error *error);

// Has the container's index read, without which there are no cuts. The session has to go to its start afterwards.
void sl_session_read_index(struct sl_session *session);

// The time of the key picture that seeking to target_us finds. The session has to be begun anew afterwards. 1 if found.
int sl_session_find_key(struct sl_session *session, int64_t target_us, int64_t *key_us, struct sl_error *error);

// Reads on to the picture of this time, which is in `ahead` then, and not counted. 1; 0 if there is no such picture.
int sl_session_reach(struct sl_session *session, int64_t pts_us, struct sl_error *error);

// 1 while everything was as it should be since the part began: no loss, no damage, no time out of order or guessed.
int sl_session_is_clean(const struct sl_session *session);

// SL_OK: `shown` is the picture of sample number *index, with planes that may be handed out; *is_new: not the one of
// the sample before. SL_END after the last sample.
int sl_session_next(struct sl_session *session, int64_t *index, int *is_new, struct sl_error *error);

#endif
