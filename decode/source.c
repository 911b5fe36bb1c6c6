// SPDX-License-Identifier: Apache-2.0
// The sampling grid over the pictures: see decode.h for the rules.
#include "decode/decode.h"

#include <stdlib.h>

#include <libavutil/parseutils.h>
#include <libavutil/pixdesc.h>

#include "decode/holes.h"
#include "decode/input.h"
#include "decode/pictures.h"
#include "decode/surface.h"

#define FPS_LIMIT 1000000

struct sl_source {
    struct sl_source_options options;
    struct sl_source_info info;
    struct sl_source_counts counts;
    struct sl_input input;
    struct sl_holes holes;
    struct sl_pictures pictures;
    struct sl_surfaces surfaces;

    int64_t index;           // k of the next sample
    struct sl_picture shown; // the last picture not later than the sample
    struct sl_picture ahead; // the first picture later than that
    int has_shown, has_ahead;
    struct sl_frame *frame; // of `shown`, made when first asked for; NULL before
    int is_drained;         // no picture follows `ahead`
    int64_t end_us;         // SL_NO_TIME until the last sample was handed out
    struct sl_error failed; // an error stays
};

void sl_source_defaults(struct sl_source_options *options)
{
    *options = (struct sl_source_options){.fps_num = 2, .fps_den = 1, .from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
}

static int64_t sample_time_us(const struct sl_source *source, int64_t index)
{
    return av_rescale_rnd(index, INT64_C(1000000) * source->options.fps_den, source->options.fps_num, AV_ROUND_DOWN);
}

// The first sample that is not before from_us.
static int64_t first_index(const struct sl_source_options *options)
{
    if (options->from_us == SL_NO_TIME || options->from_us <= 0) {
        return 0;
    }
    return av_rescale_rnd(options->from_us, options->fps_num, INT64_C(1000000) * options->fps_den, AV_ROUND_UP);
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
    AVFormatContext *format = source->input.format;
    AVStream *stream = source->input.stream;
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
    info->start_time_us = av_rescale_q(source->input.origin, source->input.origin_base, AV_TIME_BASE_Q);
    info->duration_us = sl_input_duration_us(&source->input);
    info->duration_is_estimate = format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE;
    info->created_us = creation_time_us(format);
    AVRational rate = av_guess_frame_rate(format, stream, NULL);
    info->rate_num = rate.num > 0 && rate.den > 0 ? rate.num : 0;
    info->rate_den = rate.num > 0 && rate.den > 0 ? rate.den : 1;
    info->bit_rate = codec->bit_rate > 0 ? codec->bit_rate : format->bit_rate;
    info->bit_rate = info->bit_rate > 0 ? info->bit_rate : 0;
}

// Reads one picture into `ahead`; none at the end.
static int look_ahead(struct sl_source *source, struct sl_error *error)
{
    av_frame_unref(source->ahead.frame);
    int status = sl_pictures_next(&source->pictures, &source->ahead, error);
    source->has_ahead = status == SL_OK;
    source->is_drained = status == SL_END;
    return status < 0 ? status : SL_OK;
}

// What was found on the way to the first sample is of no account once another way is taken.
static void forget_reading(struct sl_source *source)
{
    source->has_ahead = 0;
    source->is_drained = 0;
    source->counts = (struct sl_source_counts){0};
    source->holes.count = 0;
}

// 1 if a picture that is on screen at the first sample, or before, was found and lies in `ahead`. A container's index
// may lie, so where it landed is judged by the picture that came out.
static int try_seek(struct sl_source *source, int64_t target_us, struct sl_error *error)
{
    if (!sl_input_seek(&source->input, target_us)) {
        return 0;
    }
    forget_reading(source);
    sl_pictures_reset(&source->pictures);
    int status = look_ahead(source, error);
    if (status < 0) {
        return status;
    }
    // A time guessed from decoding order may differ after a seek.
    return source->has_ahead && source->ahead.frame->pts != AV_NOPTS_VALUE &&
           source->ahead.pts_us <= sample_time_us(source, source->index);
}

static int open_streams(struct sl_source *source, const char *path, struct sl_error *error)
{
    int status = sl_input_open(&source->input, path, &source->options, error);
    if (status == SL_OK) {
        status = sl_pictures_open(&source->pictures, &source->input, &source->holes, &source->counts, error);
    }
    return status;
}

static void close_streams(struct sl_source *source)
{
    sl_pictures_close(&source->pictures);
    sl_input_close(&source->input);
}

// Goes to the key picture before the first sample, further back if that was not early enough, and if nothing helps
// reads from the beginning, which is slow but right.
static int go_to_start(struct sl_source *source, const char *path, struct sl_error *error)
{
    static const int64_t step_back_us[] = {0, 2000000, 10000000, 60000000};
    int64_t target_us = sample_time_us(source, source->index);
    if (!sl_input_can_seek(&source->input)) {
        return SL_OK;
    }
    for (size_t i = 0; i < sizeof step_back_us / sizeof step_back_us[0] && target_us > step_back_us[i]; i++) {
        int found = try_seek(source, target_us - step_back_us[i], error);
        if (found != 0) {
            return found < 0 ? found : SL_OK;
        }
    }
    forget_reading(source);
    close_streams(source);
    return open_streams(source, path, error);
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
    made->index = first_index(options);
    made->end_us = SL_NO_TIME;
    made->holes.from_us = options->from_us;
    made->holes.to_us = options->to_us;
    made->surfaces.input = &made->input;
    made->shown.frame = av_frame_alloc();
    made->ahead.frame = av_frame_alloc();
    if (made->shown.frame == NULL || made->ahead.frame == NULL) {
        status = sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    if (status == SL_OK) {
        status = open_streams(made, path, error);
    }
    if (status == SL_OK && made->index > 0) {
        status = go_to_start(made, path, error);
    }
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
    return source->counts;
}

int sl_source_next_hole(struct sl_source *source, struct sl_hole *hole)
{
    return sl_holes_take(&source->holes, hole);
}

int64_t sl_source_end_us(const struct sl_source *source)
{
    return source->end_us;
}

// Moves on until `ahead` is later than the sample, or the pictures end.
static int advance(struct sl_source *source, int64_t sample_us, struct sl_error *error)
{
    for (;;) {
        if (!source->has_ahead && !source->is_drained) {
            int status = look_ahead(source, error);
            if (status != SL_OK) {
                return status;
            }
        }
        if (!source->has_ahead || (source->ahead.pts_us > sample_us && source->has_shown)) {
            return SL_OK;
        }
        int is_first_of_all = !source->has_shown && source->ahead.pts_us > sample_us;
        struct sl_picture passed = source->shown;
        source->shown = source->ahead;
        source->ahead = passed;
        source->has_shown = 1;
        source->has_ahead = 0;
        sl_frame_unref(source->frame);
        source->frame = NULL;
        if (is_first_of_all) {
            return SL_OK;
        }
    }
}

static int finish(struct sl_source *source)
{
    int64_t from_us = source->options.from_us == SL_NO_TIME ? 0 : source->options.from_us;
    int64_t to_us = source->options.to_us;
    source->end_us = source->is_drained ? source->pictures.last_end_us : to_us;
    if (to_us != SL_NO_TIME && source->end_us > to_us) {
        source->end_us = to_us;
    }
    if (source->end_us < from_us) {
        source->end_us = from_us;
    }
    return SL_END;
}

static int no_pictures(const struct sl_source *source, struct sl_error *error)
{
    const char *path = source->input.path;
    if (source->counts.undated > 0) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: no picture carries a time (a raw stream?): put it into a container",
                       path);
    }
    return sl_fail(error, SL_ERR_TRUNCATED, "%s: not one picture could be decoded", path);
}

static int fail(struct sl_source *source, int status, struct sl_error *error)
{
    if (error != NULL) {
        source->failed = *error;
    }
    source->failed.status = status;
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
    int64_t sample_us = sample_time_us(source, source->index);
    if (source->options.to_us != SL_NO_TIME && sample_us >= source->options.to_us) {
        return finish(source);
    }
    int status = advance(source, sample_us, error);
    if (status != SL_OK) {
        return fail(source, status, error);
    }
    if (!source->has_shown) {
        return fail(source, no_pictures(source, error), error);
    }
    if (source->is_drained && !source->has_ahead && sample_us >= source->pictures.last_end_us) {
        return finish(source);
    }
    if (source->frame == NULL) {
        status = sl_surface_make(&source->surfaces, source->shown.frame, source->shown.pts_us, &source->frame, error);
        if (status != SL_OK) {
            return fail(source, status, error);
        }
    }
    *sample = (struct sl_sample){source->index, sample_us, sl_frame_ref(source->frame)};
    source->index++;
    return SL_OK;
}

void sl_source_close(struct sl_source *source)
{
    if (source == NULL) {
        return;
    }
    sl_frame_unref(source->frame);
    sl_surfaces_close(&source->surfaces);
    close_streams(source);
    av_frame_free(&source->shown.frame);
    av_frame_free(&source->ahead.frame);
    free(source);
}
