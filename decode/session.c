// SPDX-License-Identifier: Apache-2.0
#include "decode/session.h"

#include "decode/grid.h"

// ---- Opening and going somewhere

static int open_streams(struct sl_session *session, struct sl_error *error)
{
    int status = sl_input_open(&session->input, session->path, session->options, error);
    if (status == SL_OK) {
        status = sl_pictures_open(&session->pictures, &session->input, &session->gpu, &session->holes, &session->counts,
                                  error);
    }
    return status;
}

static void close_streams(struct sl_session *session)
{
    sl_pictures_close(&session->pictures);
    sl_input_close(&session->input);
}

int sl_session_open(struct sl_session *session, const char *path, const struct sl_source_options *options, int lane,
                    struct sl_error *error)
{
    session->options = options;
    session->path = path;
    session->index = sl_grid_first(options, options->from_us);
    session->to_us = options->to_us;
    session->end_us = SL_NO_TIME;
    session->holes.from_us = options->from_us;
    session->holes.to_us = options->to_us;
    session->shown.frame = av_frame_alloc();
    session->ahead.frame = av_frame_alloc();
    if (session->shown.frame == NULL || session->ahead.frame == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    sl_nvdec_open(&session->gpu, &options->gpu, lane);
    return open_streams(session, error);
}

void sl_session_close(struct sl_session *session)
{
    close_streams(session);
    av_frame_free(&session->shown.frame);
    av_frame_free(&session->ahead.frame);
    sl_nvdec_close(&session->gpu);
}

// Reads one picture into `ahead`; none at the end.
static int look_ahead(struct sl_session *session, struct sl_error *error)
{
    av_frame_unref(session->ahead.frame);
    int status = sl_pictures_next(&session->pictures, &session->ahead, error);
    session->has_ahead = status == SL_OK;
    session->is_drained = status == SL_END;
    return status < 0 ? status : SL_OK;
}

// What was found on the way to the first sample is of no account once another way is taken.
static void forget_reading(struct sl_session *session)
{
    session->has_ahead = 0;
    session->is_drained = 0;
    session->counts = (struct sl_source_counts){0};
    session->holes.count = 0;
}

static int rewind_streams(struct sl_session *session, struct sl_error *error)
{
    forget_reading(session);
    close_streams(session);
    session->was_moved = 0;
    return open_streams(session, error);
}

static int jump(struct sl_session *session, int64_t target_us)
{
    session->was_moved = 1;
    return sl_input_seek(&session->input, target_us);
}

// 1 if a picture that is on screen at the first sample, or before, was found and lies in `ahead`. A container's index
// may lie, so where it landed is judged by the picture that came out.
static int try_seek(struct sl_session *session, int64_t target_us, struct sl_error *error)
{
    if (!jump(session, target_us)) {
        return 0;
    }
    forget_reading(session);
    sl_pictures_reset(&session->pictures);
    int status = look_ahead(session, error);
    if (status < 0) {
        return status;
    }
    // A time guessed from decoding order may differ after a seek.
    return session->has_ahead && session->ahead.frame->pts != AV_NOPTS_VALUE &&
           session->ahead.pts_us <= sl_grid_us(session->options, session->index);
}

// Further back if the key picture was not early enough, and if nothing helps from the beginning, which is slow but
// right.
int sl_session_go_to_start(struct sl_session *session, struct sl_error *error)
{
    static const int64_t step_back_us[] = {0, 2000000, 10000000, 60000000};
    int64_t target_us = sl_grid_us(session->options, session->index);
    if (session->index == 0 || !sl_input_can_seek(&session->input)) {
        return session->was_moved ? rewind_streams(session, error) : SL_OK;
    }
    for (size_t i = 0; i < sizeof step_back_us / sizeof step_back_us[0] && target_us > step_back_us[i]; i++) {
        int found = try_seek(session, target_us - step_back_us[i], error);
        if (found != 0) {
            return found < 0 ? found : SL_OK;
        }
    }
    return rewind_streams(session, error);
}

// ---- Parts

int sl_session_begin(struct sl_session *session, int64_t target_us, int64_t *start_us, struct sl_error *error)
{
    if (!jump(session, target_us)) {
        return 0;
    }
    forget_reading(session);
    sl_pictures_reset(&session->pictures);
    session->has_shown = 0;
    session->end_us = SL_NO_TIME;
    av_frame_unref(session->shown.frame);
    do {
        int status = look_ahead(session, error);
        if (status < 0) {
            return status;
        }
        // Pictures shown before the key picture belong to the part before, and may lack what they refer to.
    } while (session->has_ahead && session->ahead.pts_us < session->pictures.key_us);
    *start_us = session->pictures.key_us;
    if (!session->has_ahead || session->ahead.pts_us != *start_us ||
        session->ahead.frame->pict_type != AV_PICTURE_TYPE_I || session->pictures.last_damage != NULL) {
        return 0;
    }
    int is_on_gpu = session->ahead.frame->format == AV_PIX_FMT_CUDA;
    session->counts = (struct sl_source_counts){.decoded = 1, .on_gpu = is_on_gpu};
    session->holes.count = 0;
    sl_pictures_trust(&session->pictures);
    return 1;
}

void sl_session_read_index(struct sl_session *session)
{
    (void)jump(session, 0); // where it lands is of no account
}

int sl_session_find_key(struct sl_session *session, int64_t target_us, int64_t *key_us, struct sl_error *error)
{
    if (!jump(session, target_us)) {
        return 0;
    }
    return sl_input_read_key(&session->input, key_us, error);
}

int sl_session_reach(struct sl_session *session, int64_t pts_us, struct sl_error *error)
{
    while (!session->is_drained && (!session->has_ahead || session->ahead.pts_us < pts_us)) {
        int status = look_ahead(session, error);
        if (status < 0) {
            return status;
        }
    }
    if (!session->has_ahead || session->ahead.pts_us != pts_us) {
        return 0;
    }
    session->counts.decoded--;
    session->counts.on_gpu -= session->ahead.frame->format == AV_PIX_FMT_CUDA;
    return 1;
}

int sl_session_is_clean(const struct sl_session *session)
{
    const struct sl_source_counts *counts = &session->counts;
    return session->holes.count == 0 && counts->undated == 0 && counts->backward == 0 && counts->damaged == 0 &&
           sl_pictures_are_trusted(&session->pictures);
}

// ---- Samples

// Moves on until `ahead` is later than the sample, or the pictures end.
static int advance(struct sl_session *session, int64_t sample_us, struct sl_error *error)
{
    for (;;) {
        if (!session->has_ahead && !session->is_drained) {
            int status = look_ahead(session, error);
            if (status != SL_OK) {
                return status;
            }
        }
        if (!session->has_ahead || (session->ahead.pts_us > sample_us && session->has_shown)) {
            return SL_OK;
        }
        int is_first_of_all = !session->has_shown && session->ahead.pts_us > sample_us;
        struct sl_picture passed = session->shown;
        session->shown = session->ahead;
        session->ahead = passed;
        session->has_shown = 1;
        session->has_ahead = 0;
        session->shown_is_kept = 0;
        if (is_first_of_all) {
            return SL_OK;
        }
    }
}

static int finish(struct sl_session *session)
{
    int64_t from_us = session->options->from_us == SL_NO_TIME ? 0 : session->options->from_us;
    session->end_us = session->is_drained ? session->pictures.last_end_us : session->to_us;
    if (session->to_us != SL_NO_TIME && session->end_us > session->to_us) {
        session->end_us = session->to_us;
    }
    if (session->end_us < from_us) {
        session->end_us = from_us;
    }
    return SL_END;
}

static int no_pictures(const struct sl_session *session, struct sl_error *error)
{
    if (session->counts.undated > 0) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: no picture carries a time (a raw stream?): put it into a container",
                       session->path);
    }
    return sl_fail(error, SL_ERR_TRUNCATED, "%s: not one picture could be decoded", session->path);
}

int sl_session_next(struct sl_session *session, int64_t *index, int *is_new, struct sl_error *error)
{
    if (session->end_us != SL_NO_TIME) {
        return SL_END;
    }
    int64_t sample_us = sl_grid_us(session->options, session->index);
    if (session->to_us != SL_NO_TIME && sample_us >= session->to_us) {
        return finish(session);
    }
    int status = advance(session, sample_us, error);
    if (status != SL_OK) {
        return status;
    }
    if (!session->has_shown) {
        return no_pictures(session, error);
    }
    if (session->is_drained && !session->has_ahead && sample_us >= session->pictures.last_end_us) {
        return finish(session);
    }
    *is_new = !session->shown_is_kept;
    if (*is_new) {
        status = sl_nvdec_keep(&session->gpu, session->shown.frame, session->path, error);
        if (status != SL_OK) {
            return status;
        }
        session->shown_is_kept = 1;
    }
    *index = session->index++;
    return SL_OK;
}
