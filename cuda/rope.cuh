// SPDX-License-Identifier: Apache-2.0
// Norm and rotation of one head of the decoder. Pairs are (j, j + d / 2).
#ifndef SL_CUDA_ROPE_CUH
#define SL_CUDA_ROPE_CUH

#include "cuda/launch.cuh"

// Two neighbours of a head, so that a lane's loads and stores are words.
template <typename T> struct two_of;
template <> struct two_of<float> {
    typedef float2 type;
};
template <> struct two_of<bf16> {
    typedef __nv_bfloat162 type;
};

static __device__ __forceinline__ float2 to_float2(float2 x)
{
    return x;
}

static __device__ __forceinline__ float2 to_float2(__nv_bfloat162 x)
{
    return __bfloat1622float2(x);
}

static __device__ __forceinline__ void put_two(float2 *to, float x, float y)
{
    *to = make_float2(x, y);
}

static __device__ __forceinline__ void put_two(__nv_bfloat162 *to, float x, float y)
{
    *to = __floats2bfloat162_rn(x, y);
}

// How far the pairs of a row turn.
struct rope_angles {
    const float *inv_freq;
    const int32_t *axis, *position;
    int64_t position_stride; // of the three axes
    float scale;             // of cosine and sine
};

static inline rope_angles angles_of(const struct sl_rope *rope, const struct sl_ragged *ragged)
{
    rope_angles r = {};
    r.inv_freq = (const float *)rope->inv_freq.data;
    r.axis = (const int32_t *)rope->axis.data;
    r.position = (const int32_t *)ragged->position.data;
    r.position_stride = ragged->position.stride[0];
    r.scale = rope->scale;
    return r;
}

static __device__ __forceinline__ void angle_of(const rope_angles &r, int row, int j, float *cosine, float *sine)
{
    float s, c;
    sincosf((float)r.position[r.axis[j] * r.position_stride + row] * r.inv_freq[j], &s, &c);
    *cosine = c * r.scale;
    *sine = s * r.scale;
}

// By one warp. MOST: pairs of neighbours of one lane; 64 * MOST pairs at most. T: of the head, W: of the norm's
// weights. `to` may be `x`.
template <int MOST, typename T, typename W>
static __device__ __forceinline__ void norm_and_turn(const T *x, const W *weight, int pairs, float eps,
                                                     const float *cosine, const float *sine, T *to)
{
    typedef typename two_of<T>::type two;
    typedef typename two_of<W>::type two_weights;
    int lane = threadIdx.x % 32;
    float2 a[MOST], b[MOST];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int j = lane + 32 * k;
        a[k] = b[k] = make_float2(0, 0);
        if (2 * j < pairs) {
            a[k] = to_float2(((const two *)x)[j]);
            b[k] = to_float2(((const two *)(x + pairs))[j]);
        }
        sum += a[k].x * a[k].x + a[k].y * a[k].y + b[k].x * b[k].x + b[k].y * b[k].y;
    }
    float scale = rsqrtf(sum_of_warp(sum) / (float)(2 * pairs) + eps);
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int j = lane + 32 * k;
        if (2 * j < pairs) {
            float2 p = to_float2(((const two_weights *)weight)[j]);
            float2 q = to_float2(((const two_weights *)(weight + pairs))[j]);
            float2 c = ((const float2 *)cosine)[j], s = ((const float2 *)sine)[j];
            float ux = a[k].x * scale * p.x, uy = a[k].y * scale * p.y;
            float vx = b[k].x * scale * q.x, vy = b[k].y * scale * q.y;
            put_two((two *)to + j, ux * c.x - vx * s.x, uy * c.y - vy * s.y);
            put_two((two *)(to + pairs) + j, vx * c.x + ux * s.x, vy * c.y + uy * s.y);
        }
    }
}

#endif
