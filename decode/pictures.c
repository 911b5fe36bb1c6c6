// SPDX-License-Identifier: Apache-2.0
#include "decode/pictures.h"

#include <libavutil/version.h>

#include "decode/h264.h"

#define CORRUPT_PACKET "corrupt packet"
#define DECODE_ERROR   "decode error"
#define NO_KEY_PICTURE "no key picture yet"
#define NO_PICTURES    "no pictures in the stream"
#define ENDS_EARLY     "file ends early"
#define READ_ERROR     "read error"

// A stream of a broadcast or camera container that shows nothing for this long was interrupted. Elsewhere pictures may
// be held for any time.
#define STREAM_GAP_US 10000000

// A picture further ahead than this waits for the next one: if that follows the picture before, this one's time is
// broken.
#define DOUBT_US 10000000

// A picture further ahead than this has a broken time whatever follows.
#define LEAP_US (24 * 3600 * INT64_C(1000000))

// Two pictures this close, after a jump back of more than this, are taken for a clock that restarted.
#define STEP_US 1000000

// More only take memory: a picture each.
#define MAX_THREADS 64

// How much earlier than stated pictures may end without being called cut, if nothing else is wrong: the last one is
// simply on screen for longer.
#define TAIL_SLACK_US 500000

int sl_pictures_open(struct sl_pictures *pictures, struct sl_input *input, struct sl_nvdec *gpu, struct sl_holes *holes,
                     struct sl_source_counts *counts, struct sl_error *error)
{
    *pictures = (struct sl_pictures){
        .input = input, .holes = holes, .counts = counts, .key_us = SL_NO_TIME, .backward_us = SL_NO_TIME};
    pictures->sent_pts = AV_NOPTS_VALUE;
    sl_packets_clear(&pictures->packets);
    AVCodecContext *codec = avcodec_alloc_context3(input->decoder);
    pictures->codec = codec;
    pictures->packet = av_packet_alloc();
    pictures->doubtful = av_frame_alloc();
    pictures->queued = av_frame_alloc();
    if (codec == NULL || pictures->packet == NULL || pictures->doubtful == NULL || pictures->queued == NULL ||
        avcodec_parameters_to_context(codec, input->stream->codecpar) < 0) {
        sl_pictures_close(pictures);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", input->path);
    }
    codec->pkt_timebase = input->stream->time_base;
    int threads = input->options->threads;
    codec->thread_count = threads < MAX_THREADS ? threads : MAX_THREADS;
    codec->thread_type = FF_THREAD_FRAME | FF_THREAD_SLICE;
    (void)sl_nvdec_attach(gpu, input->decoder, codec); // else it is the CPU
    int code = avcodec_open2(codec, input->decoder, NULL);
    if (code < 0) {
        char reason[AV_ERROR_MAX_STRING_SIZE] = "";
        av_strerror(code, reason, sizeof reason);
        sl_pictures_close(pictures);
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: the %s decoder cannot be opened: %s", input->path,
                       input->decoder->name, reason);
    }
    return SL_OK;
}

void sl_pictures_close(struct sl_pictures *pictures)
{
    avcodec_free_context(&pictures->codec);
    sl_packets_clear(&pictures->packets);
    av_packet_free(&pictures->packet);
    av_frame_free(&pictures->doubtful);
    av_frame_free(&pictures->queued);
}

static void flush_decoder(struct sl_pictures *pictures)
{
    avcodec_flush_buffers(pictures->codec);
    pictures->is_drained = 0;
    pictures->has_failed = 0;
    pictures->is_stale = 0;
    pictures->sent_pts = AV_NOPTS_VALUE;
}

// FFmpeg's decoder of H.264 sets up everything anew once it is flushed, the GPU's decoder and its surfaces too: a fifth
// of the time of a part of 8 s. Before an IDR picture that is later than all it was given it need not be flushed,
// unless it reported an error. On the CPU a flush costs nothing, and a damaged file is read the same whatever the lane
// read before.
static void decide_to_flush(struct sl_pictures *pictures, const AVPacket *key)
{
    int goes_on = !pictures->has_failed && pictures->sent_pts != AV_NOPTS_VALUE && key->pts > pictures->sent_pts;
    if (goes_on && sl_h264_is_idr(pictures->input->stream->codecpar, key)) {
        pictures->stale_until = pictures->sent_pts + 1;
    } else if (pictures->sent_pts == AV_NOPTS_VALUE && !pictures->has_failed) {
        pictures->is_stale = 0; // it was given nothing
    } else {
        flush_decoder(pictures);
    }
}

void sl_pictures_reset(struct sl_pictures *pictures)
{
    int is_dear = pictures->codec->codec_id == AV_CODEC_ID_H264 && pictures->codec->hw_device_ctx != NULL;
    if (!is_dear || pictures->is_drained || pictures->has_failed) {
        flush_decoder(pictures);
    } else {
        pictures->is_stale = 1;
        pictures->stale_until = AV_NOPTS_VALUE;
    }
    sl_packets_clear(&pictures->packets);
    av_packet_unref(pictures->packet);
    pictures->has_packet = 0;
    pictures->losses = (struct sl_losses){0};
    pictures->seen_key = 0;
    pictures->key_us = SL_NO_TIME;
    pictures->was_repositioned = 1;
    av_frame_unref(pictures->doubtful);
    av_frame_unref(pictures->queued);
    pictures->has_doubtful = 0;
    pictures->has_queued = 0;
    pictures->has_last = 0;
    pictures->step_us = 0;
    pictures->backward_us = SL_NO_TIME;
}

void sl_pictures_trust(struct sl_pictures *pictures)
{
    pictures->losses.suspicion = 0;
    pictures->losses.faults = 0;
    pictures->guessed = 0;
    pictures->missing = 0;
}

int sl_pictures_are_trusted(const struct sl_pictures *pictures)
{
    return pictures->losses.faults == 0 && pictures->guessed == 0 && pictures->missing == 0 && pictures->step_us == 0 &&
           !pictures->input->read_error;
}

static void decoder_failed(struct sl_pictures *pictures)
{
    pictures->has_failed = 1;
    if (pictures->is_stale && pictures->stale_until == AV_NOPTS_VALUE) {
        return; // over what was given before the jump
    }
    // In frame threads the decoder runs ahead of its reports.
    if ((pictures->codec->active_thread_type & FF_THREAD_FRAME) != 0) {
        sl_losses_suspect(&pictures->losses, DECODE_ERROR);
    } else {
        sl_losses_blame(&pictures->losses, DECODE_ERROR);
    }
}

// Some decoders make pictures out of nothing when they start without a key picture.
static const char *known_damage(const struct sl_pictures *pictures, const AVPacket *packet)
{
    if ((packet->flags & AV_PKT_FLAG_CORRUPT) != 0) {
        return CORRUPT_PACKET;
    }
    return pictures->seen_key ? NULL : NO_KEY_PICTURE;
}

static void expect_picture(struct sl_pictures *pictures, const AVPacket *packet)
{
    if (!pictures->seen_key && (packet->flags & AV_PKT_FLAG_KEY) != 0) {
        pictures->seen_key = 1;
        pictures->key_us = sl_input_media_us(pictures->input, packet->pts);
    }
    const char *damage = known_damage(pictures, packet);
    if (damage != NULL) {
        sl_losses_suspect(&pictures->losses, damage);
    }
    int is_shown = (packet->flags & AV_PKT_FLAG_DISCARD) == 0; // else an edit list cuts it away
    int64_t pts_us = is_shown ? sl_input_media_us(pictures->input, packet->pts) : SL_NO_TIME;
    sl_losses_expect(&pictures->losses, pts_us, damage);
}

static int64_t stated_ticks(const AVFrame *frame)
{
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 30, 100)
    return frame->duration;
#else
    return frame->pkt_duration;
#endif
}

// How long a picture is on screen: as stated, else by the nominal rate, else 0.
static int64_t length_us(const struct sl_pictures *pictures, int64_t ticks)
{
    int64_t stated_us = sl_input_length_us(pictures->input, ticks);
    AVRational rate = pictures->input->stream->avg_frame_rate;
    if (stated_us > 0 || rate.num <= 0 || rate.den <= 0) {
        return stated_us;
    }
    return av_rescale(AV_TIME_BASE, rate.den, rate.num);
}

// The clock of a stream that may restart did so if two pictures in a row agree on it. Media time goes on from the end
// of the last picture; the picture dropped in doubt had that very time.
static int clock_restarted(struct sl_pictures *pictures, int64_t raw_us)
{
    int64_t before_us = pictures->backward_us;
    int64_t pts_us = raw_us + pictures->step_us;
    if ((pictures->input->format->iformat->flags & AVFMT_TS_DISCONT) == 0 || before_us == SL_NO_TIME ||
        raw_us <= before_us || raw_us - before_us > STEP_US || pictures->last_us - pts_us < STEP_US) {
        return 0;
    }
    int64_t step_us = pictures->last_end_us - (before_us + pictures->step_us);
    sl_input_note(pictures->input, SL_NOTE_CLOCK_STEP,
                  "the stream's clock goes back by %.3f s at %.3f s: later times count on from there",
                  (double)step_us / 1e6, (double)pictures->last_end_us / 1e6);
    pictures->step_us += step_us;
    pictures->losses.count = 0;
    return 1;
}

static void leave_out_undated(struct sl_pictures *pictures, int64_t raw_us)
{
    int64_t after_us = pictures->has_last ? pictures->last_us : 0;
    pictures->counts->undated++;
    sl_input_note(pictures->input, SL_NOTE_UNDATED, "a picture after %.3f s has no usable time and is left out",
                  (double)after_us / 1e6);
    sl_losses_forget(&pictures->losses, raw_us);
    sl_losses_suspect(&pictures->losses, DECODE_ERROR);
}

// The media time of a picture on a clock that only goes forward, or SL_NO_TIME if the picture is to be left out.
static int64_t date_frame(struct sl_pictures *pictures, const AVFrame *frame, int64_t *raw_us)
{
    *raw_us = sl_input_media_us(pictures->input, frame->best_effort_timestamp);
    int64_t pts_us = *raw_us == SL_NO_TIME ? SL_NO_TIME : *raw_us + pictures->step_us;
    int64_t from_us = pictures->has_last ? pictures->last_us : 0;
    if (pts_us == SL_NO_TIME || pts_us - from_us > LEAP_US) {
        leave_out_undated(pictures, *raw_us);
        return SL_NO_TIME;
    }
    if (!pictures->has_last || pts_us > pictures->last_us) {
        pictures->backward_us = SL_NO_TIME;
        return pts_us;
    }
    if (clock_restarted(pictures, *raw_us)) {
        pictures->backward_us = SL_NO_TIME;
        return *raw_us + pictures->step_us;
    }
    pictures->backward_us = *raw_us;
    pictures->counts->backward++;
    sl_losses_forget(&pictures->losses, *raw_us);
    sl_input_note(pictures->input, SL_NOTE_BACKWARD, "a picture's time goes back from %.3f s to %.3f s: it is left out",
                  (double)pictures->last_us / 1e6, (double)pts_us / 1e6);
    return SL_NO_TIME;
}

// Records what is missing between the last picture and this one, and whether this one is damaged.
static void record_losses(struct sl_pictures *pictures, const AVFrame *frame, int64_t raw_us,
                          const struct sl_picture *now)
{
    int64_t step_us = pictures->step_us;
    const char *damage = NULL;
    int64_t after_us = pictures->has_last ? pictures->last_us - step_us : INT64_MIN;
    int64_t lost_us = sl_losses_settle(&pictures->losses, after_us, raw_us, &damage);
    pictures->missing += lost_us != SL_NO_TIME && pictures->counts->skipped > 0;
    if (!pictures->has_last) {
        if (lost_us != SL_NO_TIME && !pictures->was_repositioned) {
            sl_holes_add(pictures->holes, lost_us + step_us, now->pts_us, NO_KEY_PICTURE);
        }
    } else if (pictures->last_damage != NULL) { // it stays on screen until now
        sl_holes_add(pictures->holes, pictures->last_end_us, now->pts_us, pictures->last_damage);
    } else if (now->pts_us - pictures->last_end_us >= STREAM_GAP_US &&
               (pictures->input->format->iformat->flags & AVFMT_TS_DISCONT) != 0) {
        sl_holes_add(pictures->holes, pictures->last_end_us, now->pts_us, NO_PICTURES);
    } else if (lost_us != SL_NO_TIME && pictures->losses.suspicion > 0) {
        sl_holes_add(pictures->holes, lost_us + step_us, now->pts_us, pictures->losses.cause);
    }
    if (damage == NULL && (frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0)) {
        damage = DECODE_ERROR;
    }
    if (damage != NULL) {
        pictures->counts->damaged++;
        sl_holes_add(pictures->holes, now->pts_us, now->end_us, damage);
    }
    pictures->last_damage = damage;
    pictures->losses.suspicion -= pictures->losses.suspicion > 0;
}

// 1 if the picture in `picture->frame` is to be handed out; its times are then filled in.
static int accept_frame(struct sl_pictures *pictures, struct sl_picture *picture)
{
    AVFrame *frame = picture->frame;
    int64_t raw_us = SL_NO_TIME;
    int64_t pts_us = date_frame(pictures, frame, &raw_us);
    if (pts_us == SL_NO_TIME) {
        return 0;
    }
    picture->pts_us = pts_us;
    picture->end_us = pts_us + length_us(pictures, stated_ticks(frame));
    record_losses(pictures, frame, raw_us, picture);
    pictures->counts->decoded++;
    pictures->counts->on_gpu += frame->format == AV_PIX_FMT_CUDA;
    pictures->guessed += frame->pts == AV_NOPTS_VALUE;
    pictures->has_last = 1;
    pictures->last_us = pts_us;
    pictures->last_end_us = picture->end_us;
    return 1;
}

// After the last picture: what the decoder never gave back, and what the container promised.
static void record_tail(struct sl_pictures *pictures)
{
    const struct sl_losses *losses = &pictures->losses;
    int64_t end_us = pictures->has_last ? pictures->last_end_us : 0;
    int64_t lost_end_us = end_us;
    pictures->missing += losses->count > 0 && pictures->counts->skipped > 0;
    for (int i = 0; i < losses->count && losses->suspicion > 0; i++) {
        int64_t pts_us = losses->expected[i].pts_us + pictures->step_us;
        if (pts_us >= lost_end_us && pts_us - lost_end_us < DOUBT_US) {
            lost_end_us = pts_us + length_us(pictures, 0);
        }
    }
    sl_holes_add(pictures->holes, end_us, lost_end_us, losses->cause);
    int64_t stated_us = pictures->step_us == 0 ? sl_input_stated_end_us(pictures->input) : SL_NO_TIME;
    if (stated_us == SL_NO_TIME || stated_us <= pictures->last_us) {
        return;
    }
    int is_damaged = losses->suspicion > 0 || pictures->input->read_error;
    if (stated_us - end_us > (is_damaged ? length_us(pictures, 0) / 2 : TAIL_SLACK_US)) {
        sl_holes_add(pictures->holes, lost_end_us, stated_us, pictures->input->read_error ? READ_ERROR : ENDS_EARLY);
    } else if (pictures->has_last) {
        pictures->last_end_us = stated_us;
    }
}

static int next_packet(struct sl_pictures *pictures, int *is_needed, struct sl_error *error)
{
    *is_needed = 1;
    if (!pictures->input->options->skip_unneeded) {
        return sl_input_read(pictures->input, pictures->packet, error);
    }
    return sl_packets_next(&pictures->packets, pictures->input, pictures->packet, is_needed, error);
}

// Gives the decoder one more packet, or tells it that none follows.
static int feed(struct sl_pictures *pictures, struct sl_error *error)
{
    if (!pictures->has_packet) {
        int is_needed = 1;
        int status = next_packet(pictures, &is_needed, error);
        if (status < 0) {
            return status;
        }
        if (status == SL_END) {
            avcodec_send_packet(pictures->codec, NULL); // fails only when it was told before
            pictures->is_drained = 1;
            return SL_OK;
        }
        int is_key = (pictures->packet->flags & AV_PKT_FLAG_KEY) != 0;
        pictures->counts->skipped += !is_needed;
        if (!is_needed || (pictures->was_repositioned && !pictures->seen_key && !is_key)) {
            av_packet_unref(pictures->packet);
            return SL_OK;
        }
        if (pictures->is_stale && pictures->stale_until == AV_NOPTS_VALUE) {
            decide_to_flush(pictures, pictures->packet);
        }
        int64_t pts = pictures->packet->pts;
        pictures->sent_pts = pts == AV_NOPTS_VALUE ? INT64_MAX : pts > pictures->sent_pts ? pts : pictures->sent_pts;
        expect_picture(pictures, pictures->packet);
    }
    int code = avcodec_send_packet(pictures->codec, pictures->packet);
    pictures->has_packet = code == AVERROR(EAGAIN);
    if (pictures->has_packet) {
        return SL_OK;
    }
    av_packet_unref(pictures->packet);
    if (code == AVERROR(ENOMEM)) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory decoding %s", pictures->input->path);
    }
    if (code < 0) {
        decoder_failed(pictures);
    }
    return SL_OK;
}

// Neither cut away by an edit list nor from before the last jump.
static int is_wanted(struct sl_pictures *pictures, const AVFrame *frame)
{
    if (pictures->is_stale) {
        // What comes without a PTS was not given before the jump: or the decoder would have been flushed.
        pictures->is_stale = pictures->stale_until == AV_NOPTS_VALUE ||
                             (frame->pts != AV_NOPTS_VALUE && frame->pts < pictures->stale_until);
    }
    return !pictures->is_stale && (frame->flags & AV_FRAME_FLAG_DISCARD) == 0;
}

// The next picture as the decoder gives it, or SL_END.
static int decode(struct sl_pictures *pictures, AVFrame *frame, struct sl_error *error)
{
    for (;;) {
        int status = SL_OK;
        int code = avcodec_receive_frame(pictures->codec, frame);
        if (code >= 0 && is_wanted(pictures, frame)) {
            return SL_OK;
        }
        if (code == AVERROR_EOF) {
            return SL_END;
        }
        if (code == AVERROR(EAGAIN)) {
            status = feed(pictures, error);
        } else if (code == AVERROR(ENOMEM)) {
            status = sl_fail(error, SL_ERR_MEMORY, "out of memory decoding %s", pictures->input->path);
        } else {
            if (code < 0) {
                decoder_failed(pictures); // but it goes on
            }
            status = sl_input_check(pictures->input, error);
        }
        if (status != SL_OK) {
            return status;
        }
    }
}

static int64_t time_of(const struct sl_pictures *pictures, const AVFrame *frame)
{
    int64_t raw_us = sl_input_media_us(pictures->input, frame->best_effort_timestamp);
    return raw_us == SL_NO_TIME ? SL_NO_TIME : raw_us + pictures->step_us;
}

// The next picture whose place in time is settled, or SL_END. *is_sure: it needs no second opinion.
static int next_settled(struct sl_pictures *pictures, AVFrame *frame, int *is_sure, struct sl_error *error)
{
    *is_sure = 0;
    if (pictures->has_queued) {
        pictures->has_queued = 0;
        av_frame_move_ref(frame, pictures->queued);
        return SL_OK;
    }
    int status = decode(pictures, frame, error);
    if (status < 0 || !pictures->has_doubtful) {
        return status;
    }
    pictures->has_doubtful = 0;
    int64_t pts_us = status == SL_OK ? time_of(pictures, frame) : SL_NO_TIME;
    int64_t doubtful_us = time_of(pictures, pictures->doubtful);
    int64_t last_us = pictures->has_last ? pictures->last_us : -1;
    if (pts_us > last_us && pts_us < doubtful_us) {
        leave_out_undated(pictures, doubtful_us - pictures->step_us);
        av_frame_unref(pictures->doubtful);
        return SL_OK;
    }
    *is_sure = 1;
    if (status == SL_OK) {
        av_frame_move_ref(pictures->queued, frame);
        pictures->has_queued = 1;
    }
    av_frame_move_ref(frame, pictures->doubtful);
    return SL_OK;
}

// 1 if the picture is so far ahead of the last one that its time may be broken.
static int is_doubtful(const struct sl_pictures *pictures, const AVFrame *frame)
{
    if (!pictures->has_last && pictures->was_repositioned) {
        return 0;
    }
    int64_t end_us = pictures->has_last ? pictures->last_end_us : 0;
    return time_of(pictures, frame) > end_us + DOUBT_US;
}

int sl_pictures_next(struct sl_pictures *pictures, struct sl_picture *picture, struct sl_error *error)
{
    for (;;) {
        int is_sure = 0;
        int status = next_settled(pictures, picture->frame, &is_sure, error);
        if (status == SL_END) {
            record_tail(pictures);
        }
        if (status != SL_OK) {
            return status;
        }
        if (!is_sure && is_doubtful(pictures, picture->frame)) {
            av_frame_move_ref(pictures->doubtful, picture->frame);
            pictures->has_doubtful = 1;
        } else if (accept_frame(pictures, picture)) {
            return SL_OK;
        } else {
            av_frame_unref(picture->frame);
        }
    }
}
