// SPDX-License-Identifier: Apache-2.0
// The picture is resampled as stored and turned when its pixels are written: across while its colours are converted,
// then down. One that lies on its side is resampled down first, since that is across once it is upright, and values are
// rounded in between. image_math.h has what happens to a pixel.
#include <cuda_bf16.h>

#include <stdlib.h>

#include "cuda/copy.h"
#include "cuda/image_math.h"
#include "cuda/ops.h"

enum { THREADS = 256, ROWS = 2 /* of a frame for each block */, MAX_SHARED_BYTES = 227 << 10 };

static int blocks_for(int64_t items)
{
    return (int)((items + THREADS - 1) / THREADS);
}

// --- tables ---

// Bytes from the slot's beginning.
struct table_layout {
    int64_t first[2], weights[2], light, encoded, size;
};

static int64_t take(int64_t *size, int64_t bytes)
{
    int64_t at = *size;
    *size += (bytes + 255) / 256 * 256;
    return at;
}

static struct table_layout layout_of(const struct cuda_picture_tables *t)
{
    struct table_layout l = {};
    for (int i = 0; i < 2; i++) {
        l.first[i] = take(&l.size, t->out[i] * (int64_t)sizeof(int32_t));
        l.weights[i] = take(&l.size, (int64_t)t->out[i] * sl_resample_taps(t->in[i], t->out[i]) * 2);
    }
    int64_t steps = t->transfer == SL_TRANSFER_SDR ? 0 : SL_HDR_STEPS;
    l.light = take(&l.size, steps * (int64_t)sizeof(float));
    l.encoded = take(&l.size, steps);
    return l;
}

// One axis in the host's copy of the tables; its fractional bits, or -1 when there is no memory.
static int fill_axis(int in, int out, int32_t *first, int16_t *weights)
{
    int taps = sl_resample_taps(in, out), precision = -1;
    int32_t *by_sample = (int32_t *)malloc(sizeof *by_sample * (size_t)out * (size_t)taps);
    double *value = (double *)malloc(sizeof *value * (size_t)taps);
    if (by_sample != NULL && value != NULL) {
        precision = sl_resample_weights(in, out, value, first, by_sample);
        for (int i = 0; i < out; i++) {
            for (int k = 0; k < taps; k++) {
                weights[(int64_t)k * out + i] = (int16_t)by_sample[(int64_t)i * taps + k];
            }
        }
    }
    free(by_sample);
    free(value);
    return precision;
}

static int fill_tables(struct cuda_picture_tables *t, const struct table_layout *l, char *host)
{
    for (int i = 0; i < 2; i++) {
        t->precision[i] =
            fill_axis(t->in[i], t->out[i], (int32_t *)(host + l->first[i]), (int16_t *)(host + l->weights[i]));
        if (t->precision[i] < 0) {
            return 0;
        }
    }
    if (t->transfer != SL_TRANSFER_SDR) {
        sl_hdr_tables(t->transfer, (float *)(host + l->light), (uint8_t *)(host + l->encoded));
    }
    return 1;
}

// The stream's tables are those for `t` afterwards; 0 after marking it.
static int make_tables(struct sl_stream *stream, struct cuda_picture_tables t)
{
    struct table_layout l = layout_of(&t);
    char *host = (char *)calloc(1, (size_t)l.size), *device = (char *)cuda_scratch(stream, CUDA_SLOT_PICTURE, l.size);
    stream->picture = (struct cuda_picture_tables){};
    if (host == NULL || (device != NULL && !fill_tables(&t, &l, host))) {
        cuda_fail(stream, SL_ERR_MEMORY, "out of memory: the tables of a picture");
    } else if (device != NULL) {
        cuda_upload(stream, device, host, l.size);
        stream->picture = t;
    }
    free(host);
    return stream->error.status == SL_OK;
}

static int same_tables(const struct cuda_picture_tables *a, const struct cuda_picture_tables *b)
{
    return a->in[0] == b->in[0] && a->in[1] == b->in[1] && a->out[0] == b->out[0] && a->out[1] == b->out[1] &&
           a->transfer == b->transfer;
}

struct resize {
    struct image_source source;
    struct image_axis axis[2]; // across, down
    struct sl_placement place;
    uint8_t *out;
    uint32_t *middle; // RGBx: [frame height, middle_width]
    int middle_width;
};

static int prepare_tables(struct sl_stream *stream, const struct sl_frame *frame, int width, int height,
                          struct resize *r)
{
    struct cuda_picture_tables wanted = {};
    wanted.in[0] = frame->width;
    wanted.in[1] = frame->height;
    wanted.out[0] = width;
    wanted.out[1] = height;
    wanted.transfer = frame->transfer;
    if (!same_tables(&stream->picture, &wanted) && !make_tables(stream, wanted)) {
        return 0;
    }
    struct table_layout l = layout_of(&stream->picture);
    char *device = (char *)stream->scratch[CUDA_SLOT_PICTURE];
    for (int i = 0; i < 2; i++) {
        struct image_axis *axis = &r->axis[i];
        axis->in = wanted.in[i];
        axis->out = wanted.out[i];
        axis->taps = sl_resample_taps(axis->in, axis->out);
        axis->precision = stream->picture.precision[i];
        axis->first = (const int32_t *)(device + l.first[i]);
        axis->weights = (const int16_t *)(device + l.weights[i]);
    }
    if (frame->transfer != SL_TRANSFER_SDR) {
        r->source.light = (const float *)(device + l.light);
        r->source.encoded = (const uint8_t *)(device + l.encoded);
    }
    return 1;
}

// --- frames in the host's memory ---

// A plane is uploaded as it lies, from its lowest line to its highest, with whatever is between them.
struct plane_bytes {
    const uint8_t *lowest;
    int64_t size, first_line; // bytes; where line 0 is
};

static struct plane_bytes plane_bytes_of(const struct image_source *s, int component)
{
    const struct sl_component *at = &s->component[component];
    int64_t rows = component > 0 ? s->chroma_height : s->height, columns = component > 0 ? s->chroma_width : s->width;
    int64_t pitch = s->pitch[at->plane], span = pitch * (rows - 1), line = columns * at->step << s->wide;
    struct plane_bytes b;
    b.first_line = pitch < 0 ? -span : 0;
    b.lowest = s->plane[at->plane] - b.first_line;
    b.size = (pitch < 0 ? -span : span) + line;
    return b;
}

static void upload_planes(struct sl_stream *stream, struct image_source *s)
{
    const int64_t piece = 1 << 20; // small enough to be staged while the piece before is copied
    struct plane_bytes plane[3] = {};
    int64_t offset[3] = {}, size = 0;
    for (int i = 0; i < (s->has_chroma ? 3 : 1); i++) { // components that share a plane say the same of it
        int at = s->component[i].plane;
        if (plane[at].size == 0) {
            plane[at] = plane_bytes_of(s, i);
            offset[at] = take(&size, plane[at].size);
        }
    }
    char *device = (char *)cuda_scratch(stream, CUDA_SLOT_A, size);
    for (int i = 0; i < 3 && device != NULL; i++) {
        for (int64_t done = 0; done < plane[i].size; done += piece) {
            int64_t left = plane[i].size - done;
            cuda_upload(stream, device + offset[i] + done, plane[i].lowest + done, left < piece ? left : piece);
        }
        s->plane[i] = (const uint8_t *)device + offset[i] + plane[i].first_line;
    }
}

// The planes are where kernels can read them; 0 after marking the stream.
static int prepare_planes(struct sl_stream *stream, const struct sl_frame *frame, struct image_source *s)
{
    if (frame->memory == SL_MEMORY_HOST) {
        upload_planes(stream, s);
    } else if (frame->device_index != stream->device->index) {
        cuda_fail(stream, SL_ERR_INTERNAL, "resize: the frame is on GPU %d, not %d", frame->device_index,
                  stream->device->index);
    } else if (frame->ready != NULL) {
        cuda_check(stream, cudaStreamWaitEvent(stream->native, (cudaEvent_t)frame->ready, 0), "waiting for a frame");
    }
    return stream->error.status == SL_OK;
}

// --- resizing ---

static __device__ void put_pixel(const struct resize *r, int x, int y, uint32_t rgbx)
{
    uint8_t *to = r->out + r->place.origin + x * r->place.along + y * r->place.below;
    to[0] = (uint8_t)rgbx;
    to[1] = (uint8_t)(rgbx >> 8);
    to[2] = (uint8_t)(rgbx >> 16);
}

// Some rows of the frame, converted and resampled across.
static __global__ void __launch_bounds__(THREADS) convert_across(const __grid_constant__ struct resize r)
{
    extern __shared__ uint32_t pixels[]; // [ROWS, width]
    int width = r.source.width, y0 = (int)blockIdx.x * ROWS;
    int rows = r.source.height - y0 < ROWS ? r.source.height - y0 : ROWS;
    for (int row = 0; row < rows; row++) {
        for (int x = (int)threadIdx.x; x < width; x += THREADS) {
            pixels[row * width + x] = image_pixel(&r.source, x, y0 + row);
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rows * r.middle_width; i += THREADS) {
        int row = i / r.middle_width, x = i % r.middle_width;
        r.middle[(int64_t)(y0 + row) * r.middle_width + x] = image_resampled(&r.axis[0], x, pixels + row * width, 1);
    }
}

// One column of pixels for each thread's x.
static __global__ void __launch_bounds__(THREADS) down(const __grid_constant__ struct resize r)
{
    int x = (int)(blockIdx.x * THREADS + threadIdx.x), y = (int)blockIdx.y;
    if (x < r.axis[0].out) {
        put_pixel(&r, x, y, image_resampled(&r.axis[1], y, r.middle + x, r.middle_width));
    }
}

static __global__ void __launch_bounds__(THREADS) convert(const __grid_constant__ struct resize r)
{
    int x = (int)(blockIdx.x * THREADS + threadIdx.x), y = (int)blockIdx.y;
    if (x < r.source.width) {
        r.middle[(int64_t)y * r.middle_width + x] = image_pixel(&r.source, x, y);
    }
}

// One row as stored: resampled down, then across.
static __global__ void __launch_bounds__(THREADS) down_across(const __grid_constant__ struct resize r)
{
    extern __shared__ uint32_t pixels[]; // [width]
    int y = (int)blockIdx.x;
    for (int x = (int)threadIdx.x; x < r.source.width; x += THREADS) {
        pixels[x] = image_resampled(&r.axis[1], y, r.middle + x, r.middle_width);
    }
    __syncthreads();
    for (int x = (int)threadIdx.x; x < r.axis[0].out; x += THREADS) {
        put_pixel(&r, x, y, image_resampled(&r.axis[0], x, pixels, 1));
    }
}

// `bytes` of shared memory for a kernel that may need more than the usual 48 KiB; 0 after marking the stream.
static int allow_shared(struct sl_stream *stream, const void *kernel, int64_t bytes)
{
    if (bytes > MAX_SHARED_BYTES) {
        cuda_fail(stream, SL_ERR_DEVICE, "%s: a frame is wider than it can take: use --device cpu",
                  stream->device->name);
        return 0;
    }
    return cuda_check(stream,
                      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MAX_SHARED_BYTES),
                      "resizing");
}

static void resize_upright(struct sl_stream *stream, const struct resize *r)
{
    int64_t shared = (int64_t)ROWS * r->source.width * (int64_t)sizeof(uint32_t);
    if (allow_shared(stream, (const void *)convert_across, shared)) {
        convert_across<<<(r->source.height + ROWS - 1) / ROWS, THREADS, (size_t)shared, stream->native>>>(*r);
        down<<<dim3(blocks_for(r->axis[0].out), r->axis[1].out), THREADS, 0, stream->native>>>(*r);
    }
}

static void resize_on_its_side(struct sl_stream *stream, const struct resize *r)
{
    int64_t shared = r->source.width * (int64_t)sizeof(uint32_t);
    if (allow_shared(stream, (const void *)down_across, shared)) {
        convert<<<dim3(blocks_for(r->source.width), r->source.height), THREADS, 0, stream->native>>>(*r);
        down_across<<<r->axis[1].out, THREADS, (size_t)shared, stream->native>>>(*r);
    }
}

void cuda_image_resize(struct sl_stream *stream, struct sl_frame *frame, const struct sl_tensor *out)
{
    if (!cuda_begin(stream)) {
        return;
    }
    int turned = sl_frame_lies_on_its_side(frame);
    int width = (int)out->shape[turned ? 0 : 1], height = (int)out->shape[turned ? 1 : 0];
    struct resize r = {};
    r.source = image_source_of(frame);
    r.place = sl_frame_place(frame, out->shape[1], out->shape[0], out->stride[0], out->stride[1]);
    r.out = (uint8_t *)out->data;
    r.middle_width = turned ? frame->width : width;
    int64_t middle_bytes = (int64_t)r.middle_width * frame->height * (int64_t)sizeof *r.middle;
    r.middle = (uint32_t *)cuda_scratch(stream, CUDA_SLOT_B, middle_bytes);
    if (r.middle == NULL || !prepare_planes(stream, frame, &r.source) ||
        !prepare_tables(stream, frame, width, height, &r)) {
        return;
    }
    (turned ? resize_on_its_side : resize_upright)(stream, &r);
    cuda_launched(stream, "resizing");
    if (frame->memory == SL_MEMORY_CUDA) {
        cuda_borrow(stream, frame);
    }
}

// --- patches ---

enum { MAX_PICTURES = 8 }; // of a temporal patch

struct patchify {
    struct image_patches patches;
    const uint8_t *rgb[MAX_PICTURES];
    int64_t line, pixel; // bytes
    int width, height;
    void *out;
    int64_t out_stride; // elements
};

static __device__ void store(float *to, float value)
{
    *to = value;
}

static __device__ void store(__nv_bfloat16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

template <typename T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) run {
    T value[N];
};

// Each thread: N pixels of a line, their three channels.
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) cut_patches(const __grid_constant__ patchify p)
{
    int runs = p.width / N, i = (int)(blockIdx.x * THREADS + threadIdx.x), picture = (int)blockIdx.y;
    int y = i / runs, x = i % runs * N, patch = p.patches.patch;
    if (y >= p.height) {
        return;
    }
    const uint8_t *rgb = p.rgb[picture] + y * p.line + x * p.pixel;
    T *row = (T *)p.out + image_patch_row(&p.patches, x / patch, y / patch) * p.out_stride;
    for (int channel = 0; channel < 3; channel++) {
        run<T, N> values;
#pragma unroll
        for (int k = 0; k < N; k++) {
            store(&values.value[k], image_normalised(&p.patches, channel, rgb[k * p.pixel + channel]));
        }
        *(run<T, N> *)(row + image_patch_column(&p.patches, channel, picture, y % patch, x % patch)) = values;
    }
}

template <typename T> static void launch_patchify(struct sl_stream *stream, const struct patchify *p)
{
    int aligned = p->patches.patch % 8 == 0 && (uintptr_t)p->out % 16 == 0 && p->out_stride * sizeof(T) % 16 == 0;
    if (aligned) {
        dim3 blocks(blocks_for((int64_t)p->width / 8 * p->height), p->patches.pictures);
        cut_patches<T, 8><<<blocks, THREADS, 0, stream->native>>>(*p);
    } else {
        dim3 blocks(blocks_for((int64_t)p->width * p->height), p->patches.pictures);
        cut_patches<T, 1><<<blocks, THREADS, 0, stream->native>>>(*p);
    }
}

void cuda_patchify(struct sl_stream *stream, const struct sl_tensor *rgb, int n, int patch, int merge,
                   const float mean[3], const float std[3], const struct sl_tensor *out)
{
    if (!cuda_begin(stream)) {
        return;
    }
    if (n > MAX_PICTURES) {
        cuda_fail(stream, SL_ERR_INTERNAL, "patchify: %d pictures in a patch, at most %d are possible", n,
                  MAX_PICTURES);
        return;
    }
    struct patchify p = {};
    p.patches = image_patches_of((int)rgb[0].shape[1], n, patch, merge, mean, std);
    for (int i = 0; i < n; i++) {
        p.rgb[i] = (const uint8_t *)rgb[i].data;
    }
    p.line = rgb[0].stride[0];
    p.pixel = rgb[0].stride[1];
    p.height = (int)rgb[0].shape[0];
    p.width = (int)rgb[0].shape[1];
    p.out = out->data;
    p.out_stride = out->stride[0];
    if (out->dtype == SL_BF16) {
        launch_patchify<__nv_bfloat16>(stream, &p);
    } else {
        launch_patchify<float>(stream, &p);
    }
    cuda_launched(stream, "cutting patches");
}
