// SPDX-License-Identifier: Apache-2.0
// What stands behind the door: one session, or lanes and after them, where something is odd, one session; frames made
// of the pictures that either gives.
#include "decode/decode.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/parseutils.h>
#include <libavutil/pixdesc.h>

#include "decode/cuts.h"
#include "decode/grid.h"
#include "decode/lanes.h"
#include "decode/session.h"
#include "decode/surface.h"

#define FPS_LIMIT 1000000

struct sl_source {
    struct sl_source_options options;
    struct sl_source_options alone; // the session's: it decodes everything
    char *path;
    struct sl_source_info info;
    struct sl_session session;      // stands still while there are lanes
    struct sl_lanes *lanes;         // NULL: none, or not any more
    struct sl_source_counts before; // counts of the lanes, when they are gone
    struct sl_surfaces surfaces;
    struct sl_frame *frame; // of the last sample
    int64_t end_us;         // SL_NO_TIME until the last sample was handed out
    struct sl_error failed; // an error stays
};

void sl_source_defaults(struct sl_source_options *options)
{
    *options = (struct sl_source_options){.fps_num = 2, .fps_den = 1, .from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
}

static int check_options(const char *path, const struct sl_source_options *options, struct sl_error *error)
{
    if (options->fps_num < 1 || options->fps_num > FPS_LIMIT || options->fps_den < 1 || options->fps_den > FPS_LIMIT) {
        return sl_fail(error, SL_ERR_USAGE, "%s: a rate of %lld/%lld samples a second is not between 1/%d and %d", path,
                       (long long)options->fps_num, (long long)options->fps_den, FPS_LIMIT, FPS_LIMIT);
    }
    if (options->to_us != SL_NO_TIME && options->from_us != SL_NO_TIME && options->to_us <= options->from_us) {
        return sl_fail(error, SL_ERR_USAGE, "%s: the span asked for ends before it starts", path);
    }
    if (options->threads < 0) {
        return sl_fail(error, SL_ERR_USAGE, "%s: %d decoder threads are less than none", path, options->threads);
    }
    if (options->lanes < 0 || options->lanes > SL_LANES_MAX || options->cpu_lanes < 0 ||
        options->cpu_lanes > SL_LANES_MAX) {
        return sl_fail(error, SL_ERR_USAGE, "%s: %d and %d decoding lanes are not between 0 and %d", path,
                       options->lanes, options->cpu_lanes, SL_LANES_MAX);
    }
    return SL_OK;
}

static const char *known(const char *text)
{
    return text != NULL ? text : "";
}

static int64_t creation_time_us(const AVFormatContext *format)
{
    const AVDictionaryEntry *tag = av_dict_get(format->metadata, "creation_time", NULL, 0);
    int64_t created_us = 0;
    if (tag == NULL || av_parse_time(&created_us, tag->value, 0) < 0) {
        return SL_NO_TIME;
    }
    return created_us;
}

static void fill_info(struct sl_source *source)
{
    const struct sl_input *input = &source->session.input;
    AVFormatContext *format = input->format;
    AVStream *stream = input->stream;
    const AVCodecParameters *codec = stream->codecpar;
    struct sl_source_info *info = &source->info;
    info->container = known(format->iformat->name);
    info->codec = known(avcodec_get_name(codec->codec_id));
    info->profile = known(avcodec_profile_name(codec->codec_id, codec->profile));
    info->pixel_format = known(av_get_pix_fmt_name(codec->format));
    info->width = codec->width;
    info->height = codec->height;
    sl_surface_rotation(stream, NULL, &info->rotation, &info->mirrored);
    AVRational sar = av_guess_sample_aspect_ratio(format, stream, NULL);
    info->sar_num = sar.num > 0 && sar.den > 0 ? sar.num : 1;
    info->sar_den = sar.num > 0 && sar.den > 0 ? sar.den : 1;
    info->start_time_us = av_rescale_q(input->origin, input->origin_base, AV_TIME_BASE_Q);
    info->duration_us = sl_input_duration_us(input);
    info->duration_is_estimate = format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE;
    info->created_us = creation_time_us(format);
    AVRational rate = av_guess_frame_rate(format, stream, NULL);
    info->rate_num = rate.num > 0 && rate.den > 0 ? rate.num : 0;
    info->rate_den = rate.num > 0 && rate.den > 0 ? rate.den : 1;
    info->bit_rate = codec->bit_rate > 0 ? codec->bit_rate : format->bit_rate;
    info->bit_rate = info->bit_rate > 0 ? info->bit_rate : 0;
}

static void say_refusal(struct sl_source *source)
{
    if (source->session.gpu.refusal != NULL) {
        sl_input_note(&source->session.input, SL_NOTE_SOFTWARE, "pictures are decoded on the CPU: %s",
                      source->session.gpu.refusal);
    }
}

static int open_source(struct sl_source *source, const char *path, struct sl_error *error)
{
    const struct sl_source_options *options = &source->options;
    source->path = strdup(path);
    if (source->path == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    source->alone = *options;
    source->alone.skip_unneeded = 0;
    int status = sl_session_open(&source->session, source->path, &source->alone, 0, error);
    if (status != SL_OK) {
        return status;
    }
    say_refusal(source);
    if ((options->lanes > 1 || options->cpu_lanes > 0 || options->skip_unneeded) &&
        sl_cuts_are_possible(&source->session.input)) {
        sl_session_read_index(&source->session);
        status = sl_lanes_start(source->path, options, &source->session.input, &source->lanes, error);
    }
    if (status == SL_OK && source->lanes == NULL) {
        status = sl_session_go_to_start(&source->session, error);
    }
    return status;
}

int sl_source_open(const char *path, const struct sl_source_options *options, struct sl_source **source,
                   struct sl_error *error)
{
    *source = NULL;
    int status = check_options(path, options, error);
    if (status != SL_OK) {
        return status;
    }
    struct sl_source *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    made->options = *options;
    made->end_us = SL_NO_TIME;
    made->surfaces.input = &made->session.input;
    status = open_source(made, path, error);
    if (status != SL_OK) {
        sl_source_close(made);
        return status;
    }
    fill_info(made);
    *source = made;
    return SL_OK;
}

const struct sl_source_info *sl_source_info(const struct sl_source *source)
{
    return &source->info;
}

struct sl_source_counts sl_source_counts(const struct sl_source *source)
{
    if (source->lanes != NULL) {
        return sl_lanes_counts(source->lanes);
    }
    return sl_counts_sum(source->before, source->session.counts);
}

int sl_source_next_hole(struct sl_source *source, struct sl_hole *hole)
{
    return sl_holes_take(&source->session.holes, hole); // while there are lanes there are no holes
}

int64_t sl_source_end_us(const struct sl_source *source)
{
    return source->end_us;
}

static int fail(struct sl_source *source, int status, struct sl_error *error)
{
    if (error != NULL) {
        source->failed = *error;
    }
    source->failed.status = status;
    return status;
}

// The frame of the last sample becomes that of this one's picture.
static int make_frame(struct sl_source *source, const struct sl_lanes_sample *next, struct sl_error *error)
{
    sl_frame_unref(source->frame);
    source->frame = NULL;
    if (source->options.gpu.context != NULL && next->picture->format != AV_PIX_FMT_CUDA && !next->is_beside) {
        sl_input_note(
            &source->session.input, SL_NOTE_SOFTWARE,
            "pictures are decoded on the CPU: the GPU does not take this stream, or has no memory left for it");
    }
    return sl_surface_make(&source->surfaces, next->picture, next->pts_us, &source->frame, error);
}

// What is wrong with the file the session finds too, and says. A machine's fault in a lane may not come again, and
// would have slowed decoding down in silence.
static void say_lane_fault(struct sl_source *source, const struct sl_error *fault)
{
    if (fault->status == SL_ERR_MEMORY || fault->status == SL_ERR_DEVICE) {
        sl_input_note(&source->session.input, SL_NOTE_LANE_FAULT, "one decoder goes on alone, slower: %s", fault->text);
    }
}

// The lanes found something odd: the session takes over and sees what it would have seen without them.
static int take_over(struct sl_source *source, struct sl_error *error)
{
    struct sl_session *session = &source->session;
    struct sl_lanes_rest rest = sl_lanes_rest(source->lanes);
    sl_lanes_stop(source->lanes);
    source->lanes = NULL;
    source->before = rest.counts;
    say_lane_fault(source, &rest.fault);
    int64_t start_us = 0;
    int begun = rest.seek_us != SL_NO_TIME ? sl_session_begin(session, rest.seek_us, &start_us, error) : 0;
    if (begun < 0) {
        return begun;
    }
    if (!begun) {
        source->before = (struct sl_source_counts){0};
        int status = sl_session_go_to_start(session, error);
        if (status != SL_OK) {
            return status;
        }
    }
    if (rest.read_end_us > session->input.read_end_us) {
        session->input.read_end_us = rest.read_end_us;
    }
    session->index = rest.index;
    return SL_OK;
}

// The next sample from whoever has it; it has no picture if it shows that of the sample before.
static int next_picture(struct sl_source *source, struct sl_lanes_sample *next, struct sl_error *error)
{
    *next = (struct sl_lanes_sample){0};
    if (source->lanes != NULL) {
        enum sl_lanes_turn turn;
        int status = sl_lanes_next(source->lanes, &turn, next, error);
        if (status == SL_OK && turn == SL_LANES_HAND_OVER) {
            status = take_over(source, error);
        } else if (status == SL_OK && turn == SL_LANES_END) {
            source->end_us = sl_lanes_end_us(source->lanes);
            return SL_END;
        }
        if (status != SL_OK || source->lanes != NULL) {
            next->picture = next->is_new ? next->picture : NULL;
            return status;
        }
    }
    int status = sl_session_next(&source->session, &next->index, &next->is_new, error);
    if (status == SL_OK && (next->is_new || source->frame == NULL)) {
        next->picture = source->session.shown.frame;
        next->pts_us = source->session.shown.pts_us;
    }
    source->end_us = source->session.end_us;
    return status;
}

int sl_source_next(struct sl_source *source, struct sl_sample *sample, struct sl_error *error)
{
    *sample = (struct sl_sample){0};
    struct sl_error own;
    error = error != NULL ? error : &own;
    if (source->failed.status != SL_OK) {
        *error = source->failed;
        return source->failed.status;
    }
    if (source->end_us != SL_NO_TIME) {
        return SL_END;
    }
    struct sl_lanes_sample next;
    int status = next_picture(source, &next, error);
    if (status == SL_OK && next.picture != NULL) {
        status = make_frame(source, &next, error);
    }
    if (status != SL_OK) {
        return status == SL_END ? SL_END : fail(source, status, error);
    }
    int64_t sample_us = sl_grid_us(&source->options, next.index);
    *sample = (struct sl_sample){next.index, sample_us, sl_frame_ref(source->frame)};
    return SL_OK;
}

void sl_source_close(struct sl_source *source)
{
    if (source == NULL) {
        return;
    }
    sl_lanes_stop(source->lanes);
    sl_frame_unref(source->frame);
    sl_surfaces_close(&source->surfaces);
    sl_session_close(&source->session);
    free(source->path);
    free(source);
}
