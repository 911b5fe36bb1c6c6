// SPDX-License-Identifier: Apache-2.0
#include "vision/size.h"

#include <math.h>

#include "vision/vision.h"

enum { MAX_TOKENS_PER_PAIR = 768, MAX_ASPECT = 200 };

// rint rounds half to even, like Python's round.
static int64_t round_to_unit(double pixels, int unit)
{
    return (int64_t)rint(pixels / unit) * unit;
}

static int64_t floor_to_unit(double pixels, int unit)
{
    int64_t down = (int64_t)floor(pixels / unit) * unit;
    return down > unit ? down : unit;
}

static int64_t ceil_to_unit(double pixels, int unit)
{
    return (int64_t)ceil(pixels / unit) * unit;
}

// The budget compares `rounded_frames` of the rounded size, but scales by the true `frames` and picture: so the
// references do it.
static struct sl_size fit(struct sl_size picture, double frames, double rounded_frames, int unit, double min_pixels,
                          double max_pixels)
{
    double width = (double)picture.width, height = (double)picture.height;
    struct sl_size size = {round_to_unit(width, unit), round_to_unit(height, unit)};
    double pixels = rounded_frames * (double)size.width * (double)size.height;
    if (pixels > max_pixels) {
        double beta = sqrt(frames * height * width / max_pixels);
        size.height = floor_to_unit(height / beta, unit);
        size.width = floor_to_unit(width / beta, unit);
    } else if (pixels < min_pixels) {
        double beta = sqrt(min_pixels / (frames * height * width));
        size.height = ceil_to_unit(height * beta, unit);
        size.width = ceil_to_unit(width * beta, unit);
    }
    return size;
}

static struct sl_size at_least_unit(struct sl_size size, int unit)
{
    size.width = size.width > unit ? size.width : unit;
    size.height = size.height > unit ? size.height : unit;
    return size;
}

struct sl_size sl_size_of_frame(struct sl_size picture, int unit, double min_pixels, double max_pixels)
{
    return at_least_unit(fit(picture, 1, 1, unit, min_pixels, max_pixels), unit);
}

double sl_size_frame_limit(int frames, int unit, double min_pixels, double total_pixels)
{
    double most = fmin((double)MAX_TOKENS_PER_PAIR * unit * unit, total_pixels / frames * 2);
    return fmax(most, floor(min_pixels * 1.05));
}

// A picture smaller than one unit is enlarged first, its shape kept.
static struct sl_size enlarge_to_unit(struct sl_size picture, int unit)
{
    if (picture.width >= unit && picture.height >= unit) {
        return picture;
    }
    double scale = fmax((double)unit / (double)picture.height, (double)unit / (double)picture.width);
    return (struct sl_size){(int64_t)((double)picture.width * scale), (int64_t)((double)picture.height * scale)};
}

struct sl_size sl_size_of_clip(struct sl_size picture, int frames, int temporal, int unit, double min_pixels,
                               double max_pixels)
{
    double rounded_frames = rint((double)frames / temporal) * temporal;
    // The unit is the floor here too: enlarging truncates and may fall short of it by one pixel.
    return at_least_unit(fit(enlarge_to_unit(picture, unit), frames, rounded_frames, unit, min_pixels, max_pixels),
                         unit);
}

double sl_size_clip_limit(const struct sl_video_config *video, int frames, int unit)
{
    if (!video->cap_pixels_per_frame) {
        return (double)video->longest_edge;
    }
    double most = fmin((double)video->max_video_tokens * unit * unit, (double)(video->longest_edge / frames));
    return fmax(most, floor((double)video->shortest_edge * 1.05)) * frames;
}

// At most `tokens` units, even where the picture is so long and thin that the published rule, which keeps one unit on
// the short axis, would overstep.
static struct sl_size cap(struct sl_size size, struct sl_size picture, int unit, int tokens)
{
    double max_pixels = (double)tokens * unit * unit;
    if ((double)size.width * (double)size.height <= max_pixels) {
        return size;
    }
    int64_t longest = (int64_t)tokens * unit;
    size = sl_size_of_frame(picture, unit, 0, max_pixels);
    if (size.height == unit && size.width > longest) {
        size.width = longest;
    } else if (size.width == unit && size.height > longest) {
        size.height = longest;
    }
    return size;
}

int sl_vision_picture_size(const struct sl_model_config *config, int64_t width, int64_t height, int frames,
                           int max_tokens_per_pair, int *out_width, int *out_height, struct sl_error *error)
{
    if (width <= 0 || height <= 0) {
        return sl_fail(error, SL_ERR_USAGE, "picture of %lldx%lld pixels: nothing to look at", (long long)width,
                       (long long)height);
    }
    if (width > height * MAX_ASPECT || height > width * MAX_ASPECT) {
        return sl_fail(error, SL_ERR_USAGE, "picture of %lldx%lld pixels: one side is more than %d times the other",
                       (long long)width, (long long)height, MAX_ASPECT);
    }
    int unit = config->vision.patch * config->vision.merge;
    int temporal = config->vision.temporal_patch;
    frames = frames > temporal ? frames : temporal; // fewer are padded to one group
    struct sl_size picture = {width, height};
    double max_pixels = max_tokens_per_pair > 0 ? INFINITY : sl_size_clip_limit(&config->video, frames, unit);
    struct sl_size size =
        sl_size_of_clip(picture, frames, temporal, unit, (double)config->video.shortest_edge, max_pixels);
    size = cap(size, picture, unit, max_tokens_per_pair > 0 ? max_tokens_per_pair : MAX_TOKENS_PER_PAIR);
    *out_width = (int)size.width;
    *out_height = (int)size.height;
    return SL_OK;
}

void sl_vision_shown_size(const struct sl_frame *frame, int64_t *width, int64_t *height)
{
    int64_t w = frame->width, h = frame->height, num = frame->sar_num, den = frame->sar_den;
    if (num > den && den > 0) {
        w = (w * num + den / 2) / den;
    } else if (den > num && num > 0) {
        h = (h * den + num / 2) / num;
    }
    int turned = frame->rotation == 90 || frame->rotation == 270;
    *width = turned ? h : w;
    *height = turned ? w : h;
}
