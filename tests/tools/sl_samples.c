// SPDX-License-Identifier: Apache-2.0
// Prints what decode/ hands out: a line for each sample and hole, and what it took. For comparing lanes with one
// session and NVDEC with the CPU's decoder:
//
//     sl-samples --hash FILE >one; sl-samples --hash --lanes 8 --skip --cuda FILE >many; diff one many
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libavutil/log.h>

#include "config.h"
#include "core/device.h"
#include "decode/decode.h"
#if SL_HAVE_CUDA
#include "cuda/cuda.h"
#endif

struct tool {
    struct sl_source_options options;
    int wants_cuda, wants_hash, is_quiet;
    struct sl_device *device; // NULL without --cuda
    struct sl_stream *stream[SL_LANES_MAX + 1];
    void *native[SL_LANES_MAX];
    uint8_t *host; // a plane from the GPU
    size_t host_size;
    int64_t samples, on_gpu;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void note(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "note: %s\n", text);
}

#if SL_HAVE_CUDA

static int wait_for_lane(void *ctx, int lane, struct sl_error *error)
{
    struct tool *t = ctx;
    return t->device->ops->wait(t->stream[lane], error);
}

// The last stream is the tool's own.
static int open_gpu(struct tool *t, struct sl_error *error)
{
    int status = sl_cuda_create(0, 0, &t->device, error);
    int lanes = t->options.lanes > 1 ? t->options.lanes : 1;
    lanes = lanes < SL_LANES_MAX ? lanes : SL_LANES_MAX;
    for (int i = 0; i <= lanes && status == SL_OK; i++) {
        int place = i < lanes ? i : SL_LANES_MAX;
        status = t->device->ops->stream_create(t->device, &t->stream[place], error);
        if (status == SL_OK && i < lanes) {
            t->native[i] = t->device->ops->native_stream(t->stream[i]);
        }
    }
    if (status != SL_OK) {
        return status;
    }
    t->options.gpu = (struct sl_source_gpu){
        .context = t->device->ops->native_context(t->device), .streams = t->native, .wait = wait_for_lane, .ctx = t};
    return SL_OK;
}

#else

static int open_gpu(struct tool *t, struct sl_error *error)
{
    (void)t;
    return sl_fail(error, SL_ERR_DEVICE, "--cuda: built without CUDA");
}

#endif

static void close_gpu(struct tool *t)
{
    for (int i = 0; i <= SL_LANES_MAX; i++) {
        if (t->stream[i] != NULL) {
            t->device->ops->stream_destroy(t->stream[i]);
        }
    }
    if (t->device != NULL) {
        t->device->ops->destroy(t->device);
    }
    free(t->host);
}

// The plane in host memory; NULL if it cannot be had.
static const uint8_t *plane_on_host(struct tool *t, const struct sl_frame *f, int plane, int64_t bytes, int64_t lines)
{
    if (f->memory == SL_MEMORY_HOST) {
        return f->plane[plane];
    }
    size_t size = (size_t)(f->pitch[plane] * (lines - 1) + bytes);
    if (size > t->host_size) {
        free(t->host);
        t->host = malloc(size);
        t->host_size = t->host != NULL ? size : 0;
    }
    if (t->host == NULL) {
        return NULL;
    }
    struct sl_stream *stream = t->stream[SL_LANES_MAX];
    t->device->ops->download(stream, t->host, f->plane[plane], (int64_t)size);
    return t->device->ops->wait(stream, NULL) == SL_OK ? t->host : NULL;
}

// Of the values of every sample, component by component, however they are laid out: NV12 and planar 4:2:0 of one
// picture give one number.
static uint64_t hash_frame(struct tool *t, const struct sl_frame *f)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    int components = f->layout == SL_LAYOUT_GRAY ? 1 : 3;
    int bytes = f->bit_depth > 8 ? 2 : 1;
    for (int c = 0; c < components; c++) {
        int plane = f->layout == SL_LAYOUT_RGB_PACKED ? 0 : f->layout == SL_LAYOUT_YUV_SEMIPLANAR && c > 0 ? 1 : c;
        int step = f->layout == SL_LAYOUT_RGB_PACKED ? 3 : plane == 1 && f->layout == SL_LAYOUT_YUV_SEMIPLANAR ? 2 : 1;
        int offset = step == 3 ? c : step == 2 ? c - 1 : 0;
        int width = c > 0 ? -((-f->width) >> f->chroma_shift_x) : f->width;
        int lines = c > 0 ? -((-f->height) >> f->chroma_shift_y) : f->height;
        const uint8_t *from = plane_on_host(t, f, plane, (int64_t)width * step * bytes, lines);
        for (int64_t y = 0; from != NULL && y < lines; y++) {
            const uint8_t *line = from + y * f->pitch[plane];
            for (int64_t x = 0; x < width; x++) {
                const uint8_t *at = line + (x * step + offset) * bytes;
                unsigned value = bytes == 2 ? (unsigned)(at[0] | at[1] << 8) >> f->msb_shift : at[0];
                hash = (hash ^ value) * UINT64_C(1099511628211);
            }
        }
    }
    return hash;
}

static void print_sample(struct tool *t, const struct sl_sample *sample)
{
    int is_on_gpu = sample->frame->memory == SL_MEMORY_CUDA;
    t->samples++;
    t->on_gpu += is_on_gpu;
    if (t->is_quiet) {
        return;
    }
    printf("%" PRId64 " %" PRId64 " %" PRId64, sample->index, sample->sample_us, sample->frame->pts_us);
    if (t->wants_hash) { // what is to be compared; the memory is not
        printf(" %016" PRIx64 "\n", hash_frame(t, sample->frame));
    } else {
        printf(" %s\n", is_on_gpu ? "cuda" : "host");
    }
}

static int read_file(struct tool *t, const char *path, struct sl_error *error)
{
    double start_s = now_s();
    struct sl_source *source = NULL;
    int status = sl_source_open(path, &t->options, &source, error);
    double opened_s = now_s();
    while (status == SL_OK) {
        struct sl_sample sample;
        struct sl_hole hole;
        status = sl_source_next(source, &sample, error);
        while (sl_source_next_hole(source, &hole)) {
            printf("hole %" PRId64 " %" PRId64 " %s\n", hole.start_us, hole.end_us, hole.cause);
        }
        if (status == SL_OK) {
            print_sample(t, &sample);
            sl_frame_unref(sample.frame);
        }
    }
    if (source != NULL) {
        struct sl_source_counts counts = sl_source_counts(source);
        double read_s = now_s() - opened_s;
        printf("end %" PRId64 "\n", sl_source_end_us(source));
        fprintf(stderr,
                "%" PRId64 " samples (%" PRId64 " on the GPU); %" PRId64 " pictures decoded (%" PRId64
                " on the GPU), %" PRId64 " skipped, undated %" PRId64 ", backward %" PRId64 ", damaged %" PRId64
                "; opened in %.3f s, read in %.3f s, %.1f pictures/s\n",
                t->samples, t->on_gpu, counts.decoded, counts.on_gpu, counts.skipped, counts.undated, counts.backward,
                counts.damaged, opened_s - start_s, read_s, (double)counts.decoded / read_s);
    }
    sl_source_close(source);
    return status == SL_END ? SL_OK : status;
}

static int parse(int argc, char **argv, struct tool *t)
{
    static const struct option long_options[] = {
        {"fps", required_argument, NULL, 'f'},
        {"lanes", required_argument, NULL, 'l'},
        {"from", required_argument, NULL, 'a'},
        {"threads", required_argument, NULL, 't'},
        {"to", required_argument, NULL, 'b'},
        {"cuda", no_argument, NULL, 'c'},
        {"skip", no_argument, NULL, 's'},
        {"hash", no_argument, NULL, 'h'},
        {"quiet", no_argument, NULL, 'q'},
        {"cpu-lanes", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int option = 0;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'f':
            t->options.fps_num = atoll(optarg);
            break;
        case 'l':
            t->options.lanes = atoi(optarg); // too many are refused by the source
            break;
        case 'm':
            t->options.cpu_lanes = atoi(optarg);
            break;
        case 't':
            t->options.threads = atoi(optarg);
            break;
        case 'a':
            t->options.from_us = (int64_t)(atof(optarg) * 1e6);
            break;
        case 'b':
            t->options.to_us = (int64_t)(atof(optarg) * 1e6);
            break;
        case 's':
            t->options.skip_unneeded = 1;
            break;
        case 'c':
            t->wants_cuda = 1;
            break;
        case 'h':
            t->wants_hash = 1;
            break;
        case 'q':
            t->is_quiet = 1;
            break;
        default:
            return 0;
        }
    }
    return optind == argc - 1;
}

int main(int argc, char **argv)
{
    struct tool tool = {0};
    struct sl_error error = {0};
    sl_source_defaults(&tool.options);
    tool.options.note = note;
    if (!parse(argc, argv, &tool)) {
        fprintf(stderr, "usage: sl-samples [--fps N] [--lanes N] [--cpu-lanes N] [--threads N] [--from S] [--to S] "
                        "[--skip] [--cuda] [--hash]"
                        " [--quiet] FILE\n");
        return 2;
    }
    av_log_set_level(AV_LOG_QUIET);
    int status = tool.wants_cuda ? open_gpu(&tool, &error) : SL_OK;
    if (status == SL_OK) {
        status = read_file(&tool, argv[optind], &error);
    }
    close_gpu(&tool);
    if (status != SL_OK) {
        fprintf(stderr, "sl-samples: %s\n", error.text);
    }
    return sl_exit_code(status);
}
