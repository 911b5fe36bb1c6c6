// SPDX-License-Identifier: Apache-2.0
#include "src/clip.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "src/still.h"

struct sl_eye {
    struct sl_model *model;
    void *patches;                     // [max_patches, patch bytes] compute type
    void *features;                    // [max_patches / merge^2, out_hidden]
    void *deepstack[SL_MAX_DEEPSTACK]; // likewise
    // What `features` holds: groups [first_group, first_group + groups) of one filling of one clip; 0: nothing.
    uint64_t filling;
    int first_group, groups;
    atomic_uint_fast64_t fillings; // numbers given out so far
};

struct sl_clip {
    struct sl_eye *eye;
    struct sl_visual visual;
    int capacity, max_tokens_per_pair;
    int planned, count;          // frames that the window will have; frames that are in
    int width, height;           // of every picture
    uint8_t *pixels;             // device memory: capacity pictures, back to back
    int64_t pixels_size;         // bytes allocated
    struct sl_frame *last_frame; // our reference, so that no other frame has its address
    int32_t *picture;            // picture[i]: which picture frame i shows
    int *kept;                   // the pairs that the model is shown
    int kept_count;
    void *compared;    // device memory: `picture` as pairs, [pairs] f32 differences; NULL: never needed
    float *difference; // [pairs]
    int pictures;      // pictures that are in
    uint64_t filling;  // a number of its own, among all clips of the eye: a clip's address may return
};

// ---- Eye

static int64_t merge_area(const struct sl_model *model)
{
    return (int64_t)model->config.vision.merge * model->config.vision.merge;
}

static int64_t patch_elements(const struct sl_model *model)
{
    const struct sl_vision_config *v = &model->config.vision;
    return (int64_t)v->channels * v->temporal_patch * v->patch * v->patch;
}

int sl_eye_create(struct sl_model *model, struct sl_eye **out, struct sl_error *error)
{
    struct sl_eye *eye = calloc(1, sizeof *eye);
    if (eye == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    eye->model = model;
    struct sl_device *device = model->device;
    int64_t element = sl_dtype_bytes(model->compute);
    int64_t feature_bytes = model->max_patches / merge_area(model) * model->config.vision.out_hidden * element;
    int status = device->ops->alloc(device, model->max_patches * patch_elements(model) * element, &eye->patches, error);
    if (status == SL_OK) {
        status = device->ops->alloc(device, feature_bytes, &eye->features, error);
    }
    for (int k = 0; k < model->config.vision.deepstack_count && status == SL_OK; k++) {
        status = device->ops->alloc(device, feature_bytes, &eye->deepstack[k], error);
    }
    if (status != SL_OK) {
        sl_eye_destroy(eye);
        return status;
    }
    *out = eye;
    return SL_OK;
}

void sl_eye_destroy(struct sl_eye *eye)
{
    if (eye == NULL) {
        return;
    }
    struct sl_device *device = eye->model->device;
    device->ops->release(device, eye->patches);
    device->ops->release(device, eye->features);
    for (int k = 0; k < SL_MAX_DEEPSTACK; k++) {
        device->ops->release(device, eye->deepstack[k]);
    }
    free(eye);
}

struct sl_model *sl_eye_model(const struct sl_eye *eye)
{
    return eye->model;
}

// ---- Clip: filling

static int64_t picture_bytes(const struct sl_clip *clip)
{
    return (int64_t)clip->width * clip->height * 3;
}

static struct sl_tensor picture(const struct sl_clip *clip, int index)
{
    return sl_tensor_3d(clip->pixels + index * picture_bytes(clip), SL_U8, clip->height, clip->width, 3);
}

static int clip_features(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                         const struct sl_tensor *out, const struct sl_tensor *deepstack, struct sl_error *error);

int sl_clip_create(struct sl_eye *eye, int capacity, int max_tokens_per_pair, struct sl_clip **out,
                   struct sl_error *error)
{
    struct sl_clip *clip = calloc(1, sizeof *clip);
    if (clip == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    clip->eye = eye;
    clip->picture = calloc((size_t)capacity + 1, sizeof *clip->picture);
    clip->kept = calloc((size_t)capacity / 2 + 1, sizeof *clip->kept);
    clip->difference = calloc((size_t)capacity / 2 + 1, sizeof *clip->difference);
    if (clip->picture == NULL || clip->kept == NULL || clip->difference == NULL) {
        sl_clip_destroy(clip);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    clip->visual = (struct sl_visual){.context = clip, .features = clip_features};
    clip->capacity = capacity;
    clip->max_tokens_per_pair = max_tokens_per_pair;
    *out = clip;
    return SL_OK;
}

void sl_clip_destroy(struct sl_clip *clip)
{
    if (clip == NULL) {
        return;
    }
    struct sl_device *device = clip->eye->model->device;
    device->ops->release(device, clip->pixels);
    device->ops->release(device, clip->compared);
    sl_frame_unref(clip->last_frame);
    free(clip->picture);
    free(clip->kept);
    free(clip->difference);
    free(clip);
}

static void keep_frame(struct sl_clip *clip, struct sl_frame *frame)
{
    sl_frame_unref(clip->last_frame);
    clip->last_frame = frame != NULL ? sl_frame_ref(frame) : NULL;
}

void sl_clip_begin(struct sl_clip *clip, int frames)
{
    clip->planned = frames;
    clip->count = 0;
    clip->pictures = 0;
    clip->kept_count = 0;
    keep_frame(clip, NULL);
    clip->filling = atomic_fetch_add(&clip->eye->fillings, 1) + 1;
}

void sl_clip_move(struct sl_clip *clip, struct sl_eye *eye)
{
    if (clip->eye != eye) {
        clip->eye = eye;
        clip->filling = atomic_fetch_add(&eye->fillings, 1) + 1; // numbers are each eye's own
    }
}

// The first frame decides the size; memory grows only when a larger one than ever comes.
static int choose_size(struct sl_clip *clip, const struct sl_frame *frame, struct sl_error *error)
{
    struct sl_model *model = clip->eye->model;
    int64_t width = 0;
    int64_t height = 0;
    sl_vision_shown_size(frame, &width, &height);
    int status = sl_vision_picture_size(&model->config, width, height, clip->planned, clip->max_tokens_per_pair,
                                        &clip->width, &clip->height, error);
    if (status != SL_OK) {
        return status;
    }
    int64_t needed = picture_bytes(clip) * clip->capacity;
    if (needed <= clip->pixels_size) {
        return SL_OK;
    }
    model->device->ops->release(model->device, clip->pixels);
    clip->pixels = NULL;
    clip->pixels_size = 0;
    void *pixels = NULL;
    status = model->device->ops->alloc(model->device, needed, &pixels, error);
    if (status == SL_OK) {
        clip->pixels = pixels;
        clip->pixels_size = needed;
    }
    return status;
}

int sl_clip_add(struct sl_clip *clip, struct sl_stream *stream, struct sl_frame *frame, struct sl_error *error)
{
    if (clip->count == clip->capacity) {
        return sl_fail(error, SL_ERR_INTERNAL, "a window got more frames than it has room for");
    }
    if (clip->count == 0) {
        int status = choose_size(clip, frame, error);
        if (status != SL_OK) {
            return status;
        }
    }
    if (frame != clip->last_frame) {
        struct sl_tensor target = picture(clip, clip->pictures++);
        clip->eye->model->device->ops->image_resize(stream, frame, &target);
        keep_frame(clip, frame);
    }
    clip->picture[clip->count++] = clip->pictures - 1;
    return SL_OK;
}

// All at once: the device knows itself which pair the next one is compared with.
static int compare_pairs(struct sl_clip *clip, struct sl_stream *stream, int pairs, float level, struct sl_error *error)
{
    struct sl_device *device = clip->eye->model->device;
    int64_t most = clip->capacity / 2 + 1;
    if (clip->compared == NULL) {
        int status = device->ops->alloc(device, most * (2 * (int64_t)sizeof(int32_t) + (int64_t)sizeof(float)),
                                        &clip->compared, error);
        if (status != SL_OK) {
            return status;
        }
    }
    struct sl_tensor pair = sl_tensor_2d(clip->compared, SL_I32, pairs, 2);
    struct sl_tensor difference = sl_tensor_1d((int32_t *)clip->compared + 2 * most, SL_F32, pairs);
    struct sl_tensor pictures = sl_tensor_4d(clip->pixels, SL_U8, clip->pictures, clip->height, clip->width, 3);
    device->ops->upload(stream, pair.data, clip->picture, sl_tensor_bytes(&pair));
    device->ops->pair_differences(stream, &pictures, &pair, level, &difference);
    device->ops->download(stream, clip->difference, difference.data, sl_tensor_bytes(&difference));
    return SL_OK;
}

int sl_clip_end(struct sl_clip *clip, struct sl_stream *stream, float still_level, struct sl_error *error)
{
    int pairs = (clip->count + 1) / 2;
    int status = SL_OK;
    if (clip->count % 2 != 0) {
        clip->picture[clip->count] = clip->picture[clip->count - 1];
    }
    keep_frame(clip, NULL);
    if (still_level >= 0) {
        status = compare_pairs(clip, stream, pairs, still_level, error);
    }
    if (status == SL_OK) {
        status = clip->eye->model->device->ops->wait(stream, error);
    }
    for (int i = 0; i < pairs; i++) {
        clip->kept[i] = i;
    }
    clip->kept_count = still_level >= 0 ? sl_still_keep(clip->difference, pairs, still_level, clip->kept) : pairs;
    return status;
}

int sl_clip_pairs(const struct sl_clip *clip)
{
    return clip->kept_count;
}

int sl_clip_kept_pair(const struct sl_clip *clip, int i)
{
    return clip->kept[i];
}

void sl_clip_grid(const struct sl_clip *clip, int *rows, int *columns)
{
    const struct sl_vision_config *v = &clip->eye->model->config.vision;
    *rows = clip->height / (v->patch * v->merge);
    *columns = clip->width / (v->patch * v->merge);
}

const struct sl_visual *sl_clip_visual(struct sl_clip *clip)
{
    return &clip->visual;
}

// ---- Clip: reading, on the engine's thread

static int holds(const struct sl_eye *eye, const struct sl_clip *clip, int group)
{
    return eye->filling == clip->filling && group >= eye->first_group && group < eye->first_group + eye->groups;
}

// Encodes as many groups from `group` on as one call of the tower takes.
static int encode_from(struct sl_eye *eye, struct sl_clip *clip, int group, struct sl_stream *stream,
                       struct sl_error *error)
{
    struct sl_model *model = eye->model;
    const struct sl_vision_config *v = &model->config.vision;
    const struct sl_video_config *video = &model->config.video;
    int grid_h = clip->height / v->patch;
    int grid_w = clip->width / v->patch;
    int64_t rows = (int64_t)grid_h * grid_w;
    int64_t fit = model->max_patches / rows;
    int left = sl_clip_pairs(clip) - group;
    if (fit < 1) {
        return sl_fail(error, SL_ERR_INTERNAL, "a frame pair of %d x %d patches is larger than planned", grid_h,
                       grid_w);
    }
    int groups = fit < left ? (int)fit : left;
    struct sl_tensor patches = sl_tensor_2d(eye->patches, model->compute, rows * groups, patch_elements(model));
    for (int g = 0; g < groups; g++) {
        const int32_t *shown = clip->picture + 2 * (int64_t)clip->kept[group + g];
        struct sl_tensor rgb[2] = {picture(clip, shown[0]), picture(clip, shown[1])};
        struct sl_tensor target = sl_tensor_rows(&patches, g * rows, rows);
        model->device->ops->patchify(stream, rgb, 2, v->patch, v->merge, video->mean, video->std, &target);
    }
    int64_t tokens = rows * groups / merge_area(model);
    struct sl_tensor features = sl_tensor_2d(eye->features, model->compute, tokens, v->out_hidden);
    struct sl_tensor deepstack[SL_MAX_DEEPSTACK];
    for (int k = 0; k < v->deepstack_count; k++) {
        deepstack[k] = sl_tensor_2d(eye->deepstack[k], model->compute, tokens, v->out_hidden);
    }
    eye->filling = 0;
    int status = sl_vision_encode(model->vision, stream, &patches, groups, grid_h, grid_w, &features, deepstack, error);
    if (status == SL_OK) {
        eye->filling = clip->filling;
        eye->first_group = group;
        eye->groups = groups;
    }
    return status;
}

static void copy_rows(const struct sl_eye *eye, struct sl_stream *stream, void *from, int64_t from_row,
                      const struct sl_tensor *to, int64_t to_row, int64_t count)
{
    const struct sl_model *model = eye->model;
    int64_t row_bytes = model->config.vision.out_hidden * sl_dtype_bytes(model->compute);
    struct sl_tensor target = sl_tensor_rows(to, to_row, count);
    model->device->ops->copy(stream, target.data, (char *)from + from_row * row_bytes, count * row_bytes);
}

static int clip_features(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                         const struct sl_tensor *out, const struct sl_tensor *deepstack, struct sl_error *error)
{
    struct sl_clip *clip = context;
    struct sl_eye *eye = clip->eye;
    int grid_rows = 0;
    int grid_columns = 0;
    sl_clip_grid(clip, &grid_rows, &grid_columns);
    int64_t per_group = (int64_t)grid_rows * grid_columns;
    for (int64_t at = first; at < first + count;) {
        int group = (int)(at / per_group);
        if (!holds(eye, clip, group)) {
            int status = encode_from(eye, clip, group, stream, error);
            if (status != SL_OK) {
                return status;
            }
        }
        int64_t held_from = eye->first_group * per_group;
        int64_t held_to = held_from + eye->groups * per_group;
        int64_t to = held_to < first + count ? held_to : first + count;
        copy_rows(eye, stream, eye->features, at - held_from, out, at - first, to - at);
        for (int k = 0; k < eye->model->config.vision.deepstack_count; k++) {
            copy_rows(eye, stream, eye->deepstack[k], at - held_from, &deepstack[k], at - first, to - at);
        }
        at = to;
    }
    return SL_OK;
}
