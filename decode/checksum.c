// SPDX-License-Identifier: Apache-2.0
#include "decode/checksum.h"

#include <stdlib.h>

#include <libavutil/adler32.h>
#include <libavutil/hwcontext.h>
#include <libavutil/pixdesc.h>

// One component's samples of one line, without those of others between them, and without padding bits below.
static void gather(const uint8_t *line, const AVComponentDescriptor *c, int width, uint8_t *out)
{
    const uint8_t *in = line + c->offset;
    if (c->depth <= 8) {
        for (int x = 0; x < width; x++) {
            out[x] = in[x * c->step];
        }
        return;
    }
    for (int x = 0; x < width; x++) {
        const uint8_t *s = in + x * c->step;
        unsigned value = (unsigned)(s[0] | s[1] << 8) >> c->shift;
        out[2 * x] = (uint8_t)value;
        out[2 * x + 1] = (uint8_t)(value >> 8);
    }
}

// Chroma lines and columns rounded down, as copies from a GPU are.
static uint32_t sum_planes(const AVFrame *planes, const AVPixFmtDescriptor *d, uint8_t *line)
{
    uint32_t what[5] = {(uint32_t)planes->width, (uint32_t)planes->height, (uint32_t)d->comp[0].depth,
                        (uint32_t)(d->log2_chroma_w << 8 | d->log2_chroma_h), d->nb_components};
    AVAdler sum = av_adler32_update(1, (const uint8_t *)what, sizeof what);
    for (int i = 0; i < d->nb_components; i++) {
        const AVComponentDescriptor *c = &d->comp[i];
        int is_chroma = i == 1 || i == 2;
        int width = is_chroma ? planes->width >> d->log2_chroma_w : planes->width;
        int height = is_chroma ? planes->height >> d->log2_chroma_h : planes->height;
        for (int y = 0; y < height; y++) {
            gather(planes->data[c->plane] + (int64_t)y * planes->linesize[c->plane], c, width, line);
            sum = av_adler32_update(sum, line, (size_t)width * (c->depth <= 8 ? 1 : 2));
        }
    }
    return (uint32_t)sum;
}

int sl_checksum(const AVFrame *picture, uint32_t *sum)
{
    const AVFrame *planes = picture;
    AVFrame *host = NULL;
    if (picture->hw_frames_ctx != NULL) {
        planes = host = av_frame_alloc();
        if (host == NULL || av_hwframe_transfer_data(host, picture, 0) < 0) {
            av_frame_free(&host);
            return 0;
        }
    }
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(planes->format);
    const uint64_t unreadable = AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BE;
    uint8_t *line = d != NULL && (d->flags & unreadable) == 0 ? malloc(2 * (size_t)planes->width) : NULL;
    if (line != NULL) {
        *sum = sum_planes(planes, d, line);
    }
    free(line);
    av_frame_free(&host);
    return line != NULL;
}
