// SPDX-License-Identifier: Apache-2.0
#include "decode/surface.h"

#include <stdlib.h>

#include <libavcodec/avcodec.h>
#include <libavutil/pixdesc.h>

#include "decode/nvdec.h"

// Formats to convert to: the nearest is chosen by FFmpeg, which knows what each conversion would lose.
static const enum AVPixelFormat canonical[] = {
    AV_PIX_FMT_YUV420P,     AV_PIX_FMT_YUV422P,     AV_PIX_FMT_YUV444P,     AV_PIX_FMT_YUV440P,
    AV_PIX_FMT_YUV411P,     AV_PIX_FMT_YUV410P,     AV_PIX_FMT_YUV420P10LE, AV_PIX_FMT_YUV422P10LE,
    AV_PIX_FMT_YUV444P10LE, AV_PIX_FMT_YUV420P12LE, AV_PIX_FMT_YUV422P12LE, AV_PIX_FMT_YUV444P12LE,
    AV_PIX_FMT_YUV420P16LE, AV_PIX_FMT_YUV422P16LE, AV_PIX_FMT_YUV444P16LE, AV_PIX_FMT_GRAY8,
    AV_PIX_FMT_GRAY16LE,    AV_PIX_FMT_RGB24,       AV_PIX_FMT_RGB48LE,     AV_PIX_FMT_NONE,
};

// Fills layout, depth, shifts and the plane numbers of the format, and returns 1; or 0 if it fits no layout.
static int describe(enum AVPixelFormat format, struct sl_frame *frame, int plane_of[3])
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    const uint64_t foreign = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL |
                             AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_ALPHA | AV_PIX_FMT_FLAG_FLOAT | AV_PIX_FMT_FLAG_BE;
    if (d == NULL || (d->flags & foreign) != 0 || (d->nb_components != 1 && d->nb_components != 3)) {
        return 0;
    }
    const AVComponentDescriptor *c = d->comp;
    int bytes = c[0].depth > 8 ? 2 : 1;
    for (int i = 0; i < d->nb_components; i++) {
        int samples_fit = c[i].depth == c[0].depth && c[i].shift == c[0].shift && c[i].depth >= 8 &&
                          c[i].depth + c[i].shift <= 8 * bytes;
        if (!samples_fit) {
            return 0;
        }
        plane_of[i] = c[i].plane;
    }
    int is_rgb = (d->flags & AV_PIX_FMT_FLAG_RGB) != 0;
    if (d->nb_components == 1) {
        frame->layout = SL_LAYOUT_GRAY;
        plane_of[1] = plane_of[2] = -1;
        if (c[0].step != bytes || c[0].offset != 0) {
            return 0;
        }
    } else if (c[0].step == bytes && c[1].step == bytes && c[2].step == bytes && c[1].plane != c[2].plane &&
               c[0].plane != c[1].plane && c[0].plane != c[2].plane) {
        frame->layout = is_rgb ? SL_LAYOUT_RGB_PLANAR : SL_LAYOUT_YUV_PLANAR;
    } else if (!is_rgb && c[0].step == bytes && c[0].plane == 0 && c[1].plane == 1 && c[2].plane == 1 &&
               c[1].step == 2 * bytes && c[1].offset == 0 && c[2].offset == bytes) {
        frame->layout = SL_LAYOUT_YUV_SEMIPLANAR;
        plane_of[2] = -1;
    } else if (is_rgb && c[0].step == 3 * bytes && c[0].offset == 0 && c[1].offset == bytes &&
               c[2].offset == 2 * bytes && c[1].plane == 0 && c[2].plane == 0) {
        frame->layout = SL_LAYOUT_RGB_PACKED;
        plane_of[1] = plane_of[2] = -1;
    } else {
        return 0;
    }
    frame->bit_depth = c[0].depth;
    frame->msb_shift = c[0].shift;
    frame->chroma_shift_x = d->nb_components == 3 ? d->log2_chroma_w : 0;
    frame->chroma_shift_y = d->nb_components == 3 ? d->log2_chroma_h : 0;
    return 1;
}

static int convert(struct sl_surfaces *surfaces, const AVFrame *picture, AVFrame *converted, struct sl_error *error)
{
    const char *name = av_get_pix_fmt_name(picture->format);
    enum AVPixelFormat target = avcodec_find_best_pix_fmt_of_list(canonical, picture->format, 0, NULL);
    sl_input_note(surfaces->input, SL_NOTE_CONVERTED, "pictures are converted from %s to %s",
                  name != NULL ? name : "an unknown format", av_get_pix_fmt_name(target));
    converted->format = target;
    converted->width = picture->width;
    converted->height = picture->height;
    surfaces->scaler =
        sws_getCachedContext(surfaces->scaler, picture->width, picture->height, picture->format, picture->width,
                             picture->height, target, SWS_BICUBIC | SWS_ACCURATE_RND, NULL, NULL, NULL);
    if (surfaces->scaler == NULL) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: pictures in the format %s cannot be converted",
                       surfaces->input->path, name != NULL ? name : "unknown");
    }
    // The same range on both sides: the numbers stay as they are, and the colour tags keep telling the truth.
    int full = picture->color_range == AVCOL_RANGE_JPEG;
    const int *matrix = sws_getCoefficients(SWS_CS_DEFAULT);
    sws_setColorspaceDetails(surfaces->scaler, matrix, full, matrix, full, 0, 1 << 16, 1 << 16);
    if (av_frame_get_buffer(converted, 0) < 0 || av_frame_copy_props(converted, picture) < 0) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory converting a picture of %s", surfaces->input->path);
    }
    int lines = sws_scale(surfaces->scaler, (const uint8_t *const *)picture->data, picture->linesize, 0,
                          picture->height, converted->data, converted->linesize);
    if (lines != picture->height) {
        return sl_fail(error, SL_ERR_INTERNAL, "%s: converting a picture from %s failed", surfaces->input->path,
                       name != NULL ? name : "an unknown format");
    }
    return SL_OK;
}

static enum sl_matrix matrix_of(struct sl_input *input, enum AVColorSpace space)
{
    switch (space) {
    case AVCOL_SPC_BT709:
        return SL_MATRIX_BT709;
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
        return SL_MATRIX_BT601;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
        return SL_MATRIX_BT2020;
    case AVCOL_SPC_SMPTE240M:
        return SL_MATRIX_SMPTE240M;
    case AVCOL_SPC_FCC:
        return SL_MATRIX_FCC;
    case AVCOL_SPC_RGB:
    case AVCOL_SPC_UNSPECIFIED:
    case AVCOL_SPC_RESERVED:
        return SL_MATRIX_UNKNOWN;
    default:
        sl_input_note(input, SL_NOTE_MATRIX, "the colour matrix %s is not known: the usual one for the size is taken",
                      av_color_space_name(space));
        return SL_MATRIX_UNKNOWN;
    }
}

static enum sl_range range_of(const AVFrame *picture)
{
    switch (picture->format) { // the old way to say full range
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUVJ444P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUVJ411P:
        return SL_RANGE_FULL;
    default:
        break;
    }
    if (picture->color_range == AVCOL_RANGE_JPEG) {
        return SL_RANGE_FULL;
    }
    return picture->color_range == AVCOL_RANGE_MPEG ? SL_RANGE_LIMITED : SL_RANGE_UNKNOWN;
}

static void tag_colour(struct sl_input *input, const AVFrame *picture, struct sl_frame *frame)
{
    const AVCodecParameters *stated = input->stream->codecpar;
    enum AVColorSpace space = picture->colorspace;
    frame->matrix = matrix_of(input, space != AVCOL_SPC_UNSPECIFIED ? space : stated->color_space);
    frame->range = range_of(picture);
    int is_rgb = frame->layout == SL_LAYOUT_RGB_PLANAR || frame->layout == SL_LAYOUT_RGB_PACKED;
    if (is_rgb && frame->range == SL_RANGE_UNKNOWN) {
        frame->range = SL_RANGE_FULL;
    }
    enum AVColorTransferCharacteristic transfer = picture->color_trc;
    transfer = transfer != AVCOL_TRC_UNSPECIFIED ? transfer : stated->color_trc;
    frame->transfer = transfer == AVCOL_TRC_SMPTE2084      ? SL_TRANSFER_PQ
                      : transfer == AVCOL_TRC_ARIB_STD_B67 ? SL_TRANSFER_HLG
                                                           : SL_TRANSFER_SDR;
    switch (picture->chroma_location) {
    case AVCHROMA_LOC_LEFT:
        frame->siting = SL_SITING_LEFT;
        break;
    case AVCHROMA_LOC_CENTER:
        frame->siting = SL_SITING_CENTER;
        break;
    case AVCHROMA_LOC_TOPLEFT:
        frame->siting = SL_SITING_TOPLEFT;
        break;
    default:
        frame->siting = SL_SITING_UNKNOWN;
        break;
    }
}

static void tag_aspect(struct sl_input *input, const AVFrame *picture, struct sl_frame *frame)
{
    AVRational sar = av_guess_sample_aspect_ratio(input->format, input->stream, (AVFrame *)picture);
    int is_known = sar.num > 0 && sar.den > 0;
    frame->sar_num = is_known ? sar.num : 1;
    frame->sar_den = is_known ? sar.den : 1;
}

static const int32_t *stream_matrix(const AVStream *stream)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)
    const AVPacketSideData *data = av_packet_side_data_get(
        stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    return data != NULL && data->size >= 9 * sizeof(int32_t) ? (const int32_t *)data->data : NULL;
#else
    size_t size = 0;
    const uint8_t *data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    return data != NULL && size >= 9 * sizeof(int32_t) ? (const int32_t *)data : NULL;
#endif
}

void sl_surface_rotation(const AVStream *stream, const AVFrame *picture, int *rotation, int *mirrored)
{
    const AVFrameSideData *own = picture != NULL ? av_frame_get_side_data(picture, AV_FRAME_DATA_DISPLAYMATRIX) : NULL;
    const int32_t *m = stream_matrix(stream);
    if (own != NULL && own->size >= 9 * sizeof(int32_t)) {
        m = (const int32_t *)own->data;
    }
    *rotation = 0;
    *mirrored = 0;
    if (m == NULL) {
        return;
    }
    // x' = a x + c y, y' = b x + d y, with y downwards. Clockwise by t: a = d = cos t, b = -c = sin t. A negative
    // determinant means flipped left-right after turning, which negates a and c.
    double a = m[0], b = m[1], c = m[3], d = m[4];
    if (a * d - b * c < 0) {
        *mirrored = 1;
        a = -a;
    }
    double x = a < 0 ? -a : a;
    double y = b < 0 ? -b : b;
    if (x >= y) {
        *rotation = a < 0 ? 180 : 0;
    } else {
        *rotation = b < 0 ? 270 : 90;
    }
}

static int is_interlaced(const AVFrame *picture, int *bottom_first)
{
#ifdef AV_FRAME_FLAG_INTERLACED // FFmpeg 6.1
    *bottom_first = (picture->flags & AV_FRAME_FLAG_TOP_FIELD_FIRST) == 0;
    return (picture->flags & AV_FRAME_FLAG_INTERLACED) != 0;
#else
    *bottom_first = !picture->top_field_first;
    return picture->interlaced_frame;
#endif
}

// Narrows the frame to the field shown first.
static void take_field(struct sl_frame *frame, int bottom)
{
    int chroma_lines = -((-frame->height) >> frame->chroma_shift_y);
    int lines = bottom ? frame->height / 2 : (frame->height + 1) / 2;
    int field_chroma_lines = bottom ? chroma_lines / 2 : (chroma_lines + 1) / 2;
    // An odd number of chroma lines may leave the bottom field one short: then its last luma line goes too.
    if (lines > field_chroma_lines << frame->chroma_shift_y) {
        lines = field_chroma_lines << frame->chroma_shift_y;
    }
    if (lines < 1) {
        return; // a single line has no fields
    }
    for (int i = 0; i < 3 && frame->plane[i] != NULL; i++) {
        frame->plane[i] += bottom ? frame->pitch[i] : 0;
        frame->pitch[i] *= 2;
    }
    av_reduce(&frame->sar_num, &frame->sar_den, frame->sar_num, 2 * (int64_t)frame->sar_den, INT32_MAX);
    frame->height = lines;
}

// FFmpeg cuts what is coded but not shown off the right and bottom only when the planes are not in host memory.
static void crop_on_gpu(const AVFrame *picture, struct sl_frame *frame)
{
    int left = (int)picture->crop_left, top = (int)picture->crop_top;
    int bytes = frame->bit_depth > 8 ? 2 : 1;
    for (int i = 0; i < 3 && frame->plane[i] != NULL; i++) {
        int interleaved = i > 0 && frame->layout == SL_LAYOUT_YUV_SEMIPLANAR ? 2 : 1;
        int x = i > 0 ? left >> frame->chroma_shift_x : left;
        int y = i > 0 ? top >> frame->chroma_shift_y : top;
        frame->plane[i] += y * frame->pitch[i] + (int64_t)x * interleaved * bytes;
    }
    frame->width -= left;
    frame->height -= top;
}

static void release_frame(struct sl_frame *frame)
{
    AVFrame *picture = frame->owner;
    av_frame_free(&picture);
    free(frame);
}

// `planes` is either the picture itself or its conversion, and becomes the frame's.
static int fill_frame(struct sl_surfaces *surfaces, AVFrame *planes, struct sl_frame *frame)
{
    int plane_of[3] = {0};
    if (!describe(sl_nvdec_format(planes), frame, plane_of)) {
        return 0;
    }
    for (int i = 0; i < 3 && plane_of[i] >= 0; i++) {
        frame->plane[i] = planes->data[plane_of[i]];
        frame->pitch[i] = planes->linesize[plane_of[i]];
    }
    frame->width = planes->width;
    frame->height = planes->height;
    frame->memory = SL_MEMORY_HOST;
    if (planes->format == AV_PIX_FMT_CUDA) {
        frame->memory = SL_MEMORY_CUDA;
        frame->device_index = surfaces->input->options->gpu.device_index;
        crop_on_gpu(planes, frame);
    }
    frame->wall_us = SL_NO_TIME;
    tag_colour(surfaces->input, planes, frame);
    tag_aspect(surfaces->input, planes, frame);
    sl_surface_rotation(surfaces->input->stream, planes, &frame->rotation, &frame->mirrored);
    int bottom_first = 0;
    if (is_interlaced(planes, &bottom_first)) {
        sl_input_note(surfaces->input, SL_NOTE_INTERLACED,
                      "pictures are interlaced: the field shown first is taken, at half the lines");
        take_field(frame, bottom_first);
    }
    return 1;
}

int sl_surface_make(struct sl_surfaces *surfaces, const AVFrame *picture, int64_t pts_us, struct sl_frame **frame,
                    struct sl_error *error)
{
    *frame = NULL;
    struct sl_frame probe = {0};
    int unused[3];
    int is_canonical = describe(sl_nvdec_format(picture), &probe, unused);
    int is_on_gpu = picture->format == AV_PIX_FMT_CUDA; // whose formats all fit
    AVFrame *planes = is_canonical ? av_frame_clone(picture) : av_frame_alloc();
    struct sl_frame *made = calloc(1, sizeof *made);
    int status = SL_OK;
    if (planes == NULL || made == NULL) {
        status = sl_fail(error, SL_ERR_MEMORY, "out of memory for a picture of %s", surfaces->input->path);
    } else if (!is_canonical && !is_on_gpu) {
        status = convert(surfaces, picture, planes, error);
    }
    if (status == SL_OK && !fill_frame(surfaces, planes, made)) {
        status = sl_fail(error, SL_ERR_INTERNAL, "%s: a converted picture fits no layout", surfaces->input->path);
    }
    if (status != SL_OK) {
        av_frame_free(&planes);
        free(made);
        return status;
    }
    made->pts_us = pts_us;
    made->owner = planes;
    made->release = release_frame;
    atomic_init(&made->references, 1);
    *frame = made;
    return SL_OK;
}

void sl_surfaces_close(struct sl_surfaces *surfaces)
{
    sws_freeContext(surfaces->scaler);
    surfaces->scaler = NULL;
}
