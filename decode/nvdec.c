// SPDX-License-Identifier: Apache-2.0
#include "decode/nvdec.h"

#include <libavutil/hwcontext.h>
#include <libavutil/pixdesc.h>

#include "config.h"

#if SL_HAVE_NVDEC
#include <libavutil/hwcontext_cuda.h>
#endif

// Surfaces of the decoder that a session holds at once, beside those that FFmpeg counts itself: the picture on screen,
// the one after it, and two whose times are in doubt. FFmpeg 5.1 refuses more than 32 in all.
#define HELD_SURFACES 4

enum AVPixelFormat sl_nvdec_format(const AVFrame *picture)
{
    if (picture->hw_frames_ctx == NULL) {
        return picture->format;
    }
    return ((const AVHWFramesContext *)picture->hw_frames_ctx->data)->sw_format;
}

#if SL_HAVE_NVDEC

static const char *open_device(struct sl_nvdec *nvdec)
{
    nvdec->device = av_hwdevice_ctx_alloc(AV_HWDEVICE_TYPE_CUDA);
    if (nvdec->device == NULL) {
        return "this FFmpeg was built without CUDA";
    }
    AVCUDADeviceContext *cuda = ((AVHWDeviceContext *)nvdec->device->data)->hwctx;
    cuda->cuda_ctx = nvdec->gpu->context;
    cuda->stream = nvdec->gpu->streams[nvdec->lane];
    if (av_hwdevice_ctx_init(nvdec->device) < 0) {
        av_buffer_unref(&nvdec->device);
        return "FFmpeg cannot load the CUDA driver";
    }
    return NULL;
}

#else

static const char *open_device(struct sl_nvdec *nvdec)
{
    (void)nvdec;
    return "this scenelog was built without NVDEC";
}

#endif

void sl_nvdec_open(struct sl_nvdec *nvdec, const struct sl_source_gpu *gpu, int lane)
{
    *nvdec = (struct sl_nvdec){.gpu = gpu, .lane = lane};
    if (gpu->context != NULL) {
        nvdec->refusal = open_device(nvdec);
    }
}

void sl_nvdec_close(struct sl_nvdec *nvdec)
{
    av_buffer_unref(&nvdec->surfaces);
    av_buffer_unref(&nvdec->device);
}

static int can_decode(const AVCodec *decoder)
{
    const AVCodecHWConfig *config = NULL;
    for (int i = 0; (config = avcodec_get_hw_config(decoder, i)) != NULL; i++) {
        if (config->pix_fmt == AV_PIX_FMT_CUDA && (config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX) != 0) {
            return 1;
        }
    }
    return 0;
}

// FFmpeg asks again, without CUDA in the list, when the hardware refuses the stream.
static enum AVPixelFormat choose_format(AVCodecContext *codec, const enum AVPixelFormat *formats)
{
    (void)codec;
    enum AVPixelFormat software = AV_PIX_FMT_NONE;
    for (int i = 0; formats[i] != AV_PIX_FMT_NONE; i++) {
        if (formats[i] == AV_PIX_FMT_CUDA) {
            return AV_PIX_FMT_CUDA;
        }
        const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(formats[i]);
        if (software == AV_PIX_FMT_NONE && d != NULL && (d->flags & AV_PIX_FMT_FLAG_HWACCEL) == 0) {
            software = formats[i];
        }
    }
    return software;
}

int sl_nvdec_attach(struct sl_nvdec *nvdec, const AVCodec *decoder, AVCodecContext *codec)
{
    if (nvdec->device == NULL) {
        return 0;
    }
    if (!can_decode(decoder)) {
        nvdec->refusal = "the GPU has no decoder for this codec";
        return 0;
    }
    codec->hw_device_ctx = av_buffer_ref(nvdec->device);
    if (codec->hw_device_ctx == NULL) {
        nvdec->refusal = "out of memory";
        return 0;
    }
    codec->get_format = choose_format;
    codec->extra_hw_frames = HELD_SURFACES;
    codec->thread_count = 1;
    return 1;
}

// Chroma planes are copied with their number of lines rounded down: so all sizes are even.
static int even(int size)
{
    return size + (size & 1);
}

// 1 if there is a place for a copy of this picture.
static int prepare_surfaces(struct sl_nvdec *nvdec, const AVFrame *picture)
{
    enum AVPixelFormat format = sl_nvdec_format(picture);
    if (nvdec->surfaces != NULL) {
        const AVHWFramesContext *now = (const AVHWFramesContext *)nvdec->surfaces->data;
        if (now->sw_format == format && now->width == even(picture->width) && now->height == even(picture->height)) {
            return 1;
        }
        av_buffer_unref(&nvdec->surfaces); // frames that are out keep theirs alive
    }
    nvdec->surfaces = av_hwframe_ctx_alloc(nvdec->device);
    if (nvdec->surfaces == NULL) {
        return 0;
    }
    AVHWFramesContext *frames = (AVHWFramesContext *)nvdec->surfaces->data;
    frames->format = AV_PIX_FMT_CUDA;
    frames->sw_format = format;
    frames->width = even(picture->width);
    frames->height = even(picture->height);
    if (av_hwframe_ctx_init(nvdec->surfaces) < 0) {
        av_buffer_unref(&nvdec->surfaces);
        return 0;
    }
    return 1;
}

static int copy_surface(struct sl_nvdec *nvdec, AVFrame *picture, AVFrame *copy, const char *path,
                        struct sl_error *error)
{
    int width = picture->width, height = picture->height;
    if (av_hwframe_get_buffer(nvdec->surfaces, copy, 0) < 0 || av_frame_copy_props(copy, picture) < 0) {
        return sl_fail(error, SL_ERR_MEMORY, "out of GPU memory for a picture of %s", path);
    }
    picture->height = copy->height;
    int code = av_hwframe_transfer_data(copy, picture, 0);
    picture->height = height;
    copy->width = width;
    copy->height = height;
    if (code < 0) {
        return sl_fail(error, SL_ERR_DEVICE, "%s: copying a picture on the GPU failed", path);
    }
    // The decoder's surface goes back, and the copy out: neither before it is done.
    return nvdec->gpu->wait(nvdec->gpu->ctx, nvdec->lane, error);
}

int sl_nvdec_keep(struct sl_nvdec *nvdec, AVFrame *picture, const char *path, struct sl_error *error)
{
    if (picture->format != AV_PIX_FMT_CUDA) {
        return SL_OK;
    }
    AVFrame *copy = av_frame_alloc();
    if (copy == NULL || !prepare_surfaces(nvdec, picture)) {
        av_frame_free(&copy);
        return sl_fail(error, SL_ERR_MEMORY, "out of GPU memory for pictures of %s", path);
    }
    int status = copy_surface(nvdec, picture, copy, path, error);
    if (status == SL_OK) {
        av_frame_unref(picture);
        av_frame_move_ref(picture, copy);
    }
    av_frame_free(&copy);
    return status;
}
