// SPDX-License-Identifier: Apache-2.0
#include "src/decoding.h"

#include <string.h>

enum { NVDEC_LANES = 12 }; // Hopper has seven decoding engines; more sessions keep them busy

static int wait_for_lane(void *context, int lane, struct sl_error *error)
{
    struct sl_decoding *decoding = context;
    return decoding->ops->wait(decoding->stream[lane], error);
}

int sl_decoding_open(const struct sl_pipeline *job, struct sl_decoding *decoding, struct sl_source_options *options,
                     struct sl_error *error)
{
    struct sl_device *device = job->model->device;
    void *context = job->decoder != SL_DECODER_CPU ? device->ops->native_context(device) : NULL;
    *decoding = (struct sl_decoding){.ops = device->ops};
    sl_source_defaults(options);
    options->fps_num = job->rules->fps_num;
    options->fps_den = job->rules->fps_den;
    options->threads = job->threads;
    options->lanes = job->decode_lanes > 0 ? job->decode_lanes : context != NULL ? NVDEC_LANES : 1;
    options->cpu_lanes = job->decode_cpu_lanes;
    options->skip_unneeded = options->lanes + options->cpu_lanes > 1 && !job->decode_all;
    if (context == NULL) {
        return SL_OK;
    }
    while (decoding->count < options->lanes) {
        struct sl_stream **stream = &decoding->stream[decoding->count];
        int status = device->ops->stream_create_urgent(device, stream, error);
        if (status != SL_OK) {
            return status;
        }
        decoding->native[decoding->count++] = device->ops->native_stream(*stream);
    }
    options->gpu = (struct sl_source_gpu){.context = context,
                                          .streams = decoding->native,
                                          .device_index = job->gpu_index,
                                          .wait = wait_for_lane,
                                          .ctx = decoding};
    return SL_OK;
}

int sl_decoding_read_decoder(const char *text, enum sl_decoder *out, struct sl_error *error)
{
    static const char *const names[] = {"auto", "cpu", "nvdec"}; // by enum sl_decoder
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum sl_decoder)i;
            return SL_OK;
        }
    }
    return sl_fail(error, SL_ERR_USAGE, "--decoder %s: must be auto, cpu or nvdec", text);
}

void sl_decoding_close(struct sl_decoding *decoding)
{
    for (int i = 0; i < decoding->count; i++) {
        decoding->ops->stream_destroy(decoding->stream[i]);
    }
    decoding->count = 0;
}
