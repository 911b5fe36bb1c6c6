// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings. Pairs are (j, j + d / 2); both halves of a head turn by the same angles.
#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/rope.cuh"

enum { WARPS = 8, MOST_PAIRS = 512, MANY_ROWS = 1024 };

// --- the tower: by row and column of the patch ---

// A block for each row: all heads of q and k turn alike. Half of a head's pairs turn by the row, the others by the
// column, each with d / 4 frequencies of base 10000.
template <typename T> static __global__ void rope_2d(T *qkv, int64_t stride, int heads, int d, const int32_t *position)
{
    __shared__ float cosine[MOST_PAIRS], sine[MOST_PAIRS];
    int pairs = d / 2, quarter = pairs / 2;
    int64_t row = blockIdx.x;
    for (int j = threadIdx.x; j < pairs; j += blockDim.x) {
        int axis = j < quarter ? 0 : 1, k = axis ? j - quarter : j;
        float frequency = powf(10000.0f, -(float)(2 * k) / (float)pairs);
        sincosf((float)position[2 * row + axis] * frequency, &sine[j], &cosine[j]);
    }
    __syncthreads();
    T *x = qkv + row * stride;
    for (int i = threadIdx.x; i < 2 * heads * pairs; i += blockDim.x) {
        int head = i / pairs, j = i % pairs;
        T *a = x + head * d + j, *b = a + pairs;
        float u = to_float(*a), v = to_float(*b);
        *a = T(u * cosine[j] - v * sine[j]);
        *b = T(v * cosine[j] + u * sine[j]);
    }
}

// bf16, four values of each half at once.
static __global__ void rope_2d_words(bf16 *qkv, int64_t stride, int heads, int d, const int32_t *position)
{
    __shared__ __align__(16) float cosine[MOST_PAIRS], sine[MOST_PAIRS];
    int pairs = d / 2, quarter = pairs / 2, words = pairs / 4; // of 8 bytes
    int64_t row = blockIdx.x;
    for (int j = threadIdx.x; j < pairs; j += blockDim.x) {
        int axis = j < quarter ? 0 : 1, k = axis ? j - quarter : j;
        float frequency = powf(10000.0f, -(float)(2 * k) / (float)pairs);
        sincosf((float)position[2 * row + axis] * frequency, &sine[j], &cosine[j]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * heads * words; i += blockDim.x) {
        int head = i / words, w = i % words;
        uint2 *a = (uint2 *)(qkv + row * stride + head * d) + w, *b = a + words;
        union {
            uint2 word;
            bf16 value[4];
        } u, v;
        u.word = *a;
        v.word = *b;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float x = __bfloat162float(u.value[k]), y = __bfloat162float(v.value[k]);
            float c = cosine[4 * w + k], s = sine[4 * w + k];
            u.value[k] = __float2bfloat16(x * c - y * s);
            v.value[k] = __float2bfloat16(y * c + x * s);
        }
        *a = u.word;
        *b = v.word;
    }
}

void cuda_rope_2d(struct sl_stream *stream, const struct sl_tensor *qkv, int heads, const struct sl_tensor *position)
{
    unsigned rows = (unsigned)qkv->shape[0];
    int d = (int)(qkv->shape[1] / 3 / heads);
    if (rows == 0 || !cuda_begin(stream)) {
        return;
    }
    if (d > 2 * MOST_PAIRS || d % 4 != 0) {
        cuda_fail(stream, SL_ERR_INTERNAL, "rope_2d: heads of %d", d);
        return;
    }
    const int32_t *at = (const int32_t *)position->data;
    if (qkv->dtype == SL_F32) {
        rope_2d<<<rows, 256, 0, stream->native>>>((float *)qkv->data, qkv->stride[0], heads, d, at);
    } else if (d % 8 == 0 && qkv->stride[0] % 4 == 0 && (uintptr_t)qkv->data % 8 == 0) {
        rope_2d_words<<<rows, 256, 0, stream->native>>>((bf16 *)qkv->data, qkv->stride[0], heads, d, at);
    } else {
        rope_2d<<<rows, 256, 0, stream->native>>>((bf16 *)qkv->data, qkv->stride[0], heads, d, at);
    }
    cuda_launched(stream, "a rotary embedding");
}

// --- the decoder: norm of each head, rotation by T, H, W, keys and values to their pages ---

struct store_job {
    void *qkv, *k, *v;
    const void *q_norm, *k_norm;
    rope_angles angles;
    const int32_t *row_start, *kv_length, *page_table;
    int64_t stride, page_stride; // of qkv's rows, of a sequence's page list
    int rows, sequences, heads, kv_heads, d, page_tokens;
    float eps;
};

static __device__ int sequence_of(const store_job &job, int row)
{
    int low = 0, high = job.sequences; // row_start[low] <= row < row_start[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (job.row_start[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Where the row's key or value of a head goes.
template <typename T> static __device__ T *slot_of(const store_job &job, T *base, int row, int head)
{
    int b = sequence_of(job, row), end = job.row_start[b + 1];
    int index = job.kv_length[b] - (end - row);
    int64_t page = job.page_table[b * job.page_stride + index / job.page_tokens];
    return base + ((page * job.kv_heads + head) * job.page_tokens + index % job.page_tokens) * job.d;
}

// One head of a row, by a warp; d a multiple of 4, up to 256.
template <typename T>
static __device__ __forceinline__ void store_head(const store_job &job, int row, int head, const float *cosine,
                                                  const float *sine)
{
    typedef typename two_of<T>::type two;
    int lane = threadIdx.x % 32, pairs = job.d / 2;
    T *x = (T *)job.qkv + row * job.stride + (int64_t)head * job.d;
    if (head >= job.heads + job.kv_heads) {
        two *to = (two *)slot_of(job, (T *)job.v, row, head - job.heads - job.kv_heads);
        for (int i = lane; i < pairs; i += 32) {
            to[i] = ((const two *)x)[i];
        }
        return;
    }
    const T *weight = (const T *)(head < job.heads ? job.q_norm : job.k_norm);
    T *to = head < job.heads ? x : slot_of(job, (T *)job.k, row, head - job.heads);
    norm_and_turn<2>(x, weight, pairs, job.eps, cosine, sine, to);
}

// A warp for each head of a row, or for several.
template <typename T> static __global__ void norm_rope_store(const store_job job)
{
    __shared__ __align__(16) float cosine[128], sine[128];
    int row = blockIdx.x;
    let_next_begin();
    for (int j = threadIdx.x; j < job.d / 2; j += blockDim.x) {
        angle_of(job.angles, row, j, &cosine[j], &sine[j]); // no kernel writes positions
    }
    wait_for_previous();
    __syncthreads();
    int first = (int)(blockIdx.y * WARPS + threadIdx.x / 32), apart = (int)gridDim.y * WARPS;
    for (int head = first; head < job.heads + 2 * job.kv_heads; head += apart) {
        store_head<T>(job, row, head, cosine, sine);
    }
}

void cuda_qk_norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                             int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                             const struct sl_rope *rope, const struct sl_kv_layer *kv)
{
    if (ragged->rows == 0 || !cuda_begin(stream)) {
        return;
    }
    store_job job = {};
    job.qkv = qkv->data;
    job.k = kv->k.data;
    job.v = kv->v.data;
    job.q_norm = q_norm->data;
    job.k_norm = k_norm->data;
    job.angles = angles_of(rope, ragged);
    job.row_start = (const int32_t *)ragged->row_start.data;
    job.kv_length = (const int32_t *)ragged->kv_length.data;
    job.page_table = (const int32_t *)ragged->page_table.data;
    job.stride = qkv->stride[0];
    job.page_stride = ragged->page_table.stride[0];
    job.rows = ragged->rows;
    job.sequences = ragged->sequences;
    job.heads = heads;
    job.kv_heads = (int)kv->k.shape[1];
    job.page_tokens = (int)kv->k.shape[2];
    job.d = (int)kv->k.shape[3];
    job.eps = eps;
    if (job.d > 256 || job.d % 4 != 0 || job.stride % 2 != 0) {
        cuda_fail(stream, SL_ERR_MODEL_CONFIG, "heads of %d: the GPU's kernels take multiples of 4 up to 256", job.d);
        return;
    }
    // Of many rows each is one block's, so that angles are computed once.
    int blocks = ragged->rows >= MANY_ROWS ? 1 : (heads + 2 * job.kv_heads + WARPS - 1) / WARPS;
    dim3 grid((unsigned)ragged->rows, (unsigned)blocks);
    void (*kernel)(store_job) = qkv->dtype == SL_F32 ? norm_rope_store<float> : norm_rope_store<bf16>;
    if (share_multiprocessor(stream, kernel)) {
        launch_overlapping(stream, kernel, grid, 32 * WARPS, 0, job);
    }
    cuda_launched(stream, "keys and values");
}
