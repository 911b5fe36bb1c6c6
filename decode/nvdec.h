// SPDX-License-Identifier: Apache-2.0
// Decoding on an NVIDIA GPU through FFmpeg's CUDA hwaccel, in the caller's context and on the caller's stream. Private
// to decode/; one thread at a time.
//
// The hardware decoder has few surfaces. A picture that is handed out is copied into one of our own, so that those go
// back at once; how many of ours are alive is up to those who hold frames. They outlive this and keep what they need
// of FFmpeg alive, but the CUDA context is the caller's to keep.
#ifndef SL_DECODE_NVDEC_H
#define SL_DECODE_NVDEC_H

#include <libavcodec/avcodec.h>

#include "decode/decode.h"

struct sl_nvdec {
    const struct sl_source_gpu *gpu; // the options'
    int lane;
    AVBufferRef *device;   // NULL: pictures are decoded on the CPU
    AVBufferRef *surfaces; // where copies lie; remade when size or format change
    const char *refusal;   // why it is the CPU although the GPU was asked for; a constant, else NULL
};

// Without gpu->context, or where this build or this FFmpeg cannot, pictures are decoded on the CPU.
void sl_nvdec_open(struct sl_nvdec *nvdec, const struct sl_source_gpu *gpu, int lane);
void sl_nvdec_close(struct sl_nvdec *nvdec);

// Asks a codec context for `decoder` that is not open yet to decode on the GPU. 1 if it may; FFmpeg still turns to its
// software decoder for streams that the hardware does not take, now or in mid-stream.
int sl_nvdec_attach(struct sl_nvdec *nvdec, const AVCodec *decoder, AVCodecContext *codec);

// Replaces a decoder's surface by a copy of it that is complete; a picture in host memory stays as it is.
int sl_nvdec_keep(struct sl_nvdec *nvdec, AVFrame *picture, const char *path, struct sl_error *error);

// The format of the samples: that of the picture itself, or of the surface on the GPU.
enum AVPixelFormat sl_nvdec_format(const AVFrame *picture);

#endif
