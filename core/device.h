// SPDX-License-Identifier: Apache-2.0
// The table of operations that a device fills in: cpu/ with plain C and oneDNN, cuda/ with kernels and cuBLASLt.
// Model code (vision/, lm/) is written once, above this table.
//
// - Every operation is enqueued on a stream and returns. The host waits only in `wait` and `fence_wait`; on a GPU also
//   in uploads too large to be staged, and where a product's size is new and algorithms are tried.
//   An operation that fails marks its stream; `wait` and `fence_wait` report the first failure and keep reporting it.
// - A stream is used by one thread at a time; different streams by different threads at once. Other calls: any thread.
// - Tensors are views and own nothing. `data` is a device address: only the device follows it.
// - Activations are f32 or bf16 (the model's compute type, one for all activations of a model); products and norms
//   accumulate in f32. Positions, lengths, page tables and ids are i32 tensors on the device. Sizes are 64-bit.
// - Scratch memory of an operation belongs to its stream, grows to its high-water mark and stays.
#ifndef SL_CORE_DEVICE_H
#define SL_CORE_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/frame.h"

// SL_F8E4M3 (1 sign, 4 exponent, 3 fraction bits, no infinity) is a type of weights in files alone: a device computes
// with value x scale in its own type.
enum sl_dtype { SL_F32, SL_BF16, SL_F16, SL_I32, SL_U8, SL_F8E4M3 };

enum {
    SL_SCALE_BLOCK = 128,  // rows and columns of a matrix that share a scale
    SL_MAX_EXPERTS = 1024, // of one layer
    SL_MAX_TOP_K = 32      // experts that one row may be sent to
};

struct sl_tensor {
    void *data;
    enum sl_dtype dtype;
    int rank;          // 1..4
    int64_t shape[4];  // elements
    int64_t stride[4]; // elements; the last is always 1
    // SL_F8E4M3 only, else NULL: what the values are multiplied by, f32, bf16 or f16, contiguous, one for each
    // SL_SCALE_BLOCK x SL_SCALE_BLOCK block of the last two axes: [..., ceil(rows / 128), ceil(columns / 128)].
    const struct sl_tensor *scale;
};

struct sl_device;
struct sl_stream;
struct sl_fence;
struct sl_graph;
struct sl_linear;  // weights of a linear layer in the device's own form
struct sl_experts; // weights of a layer's experts in the device's own form

enum sl_epilogue {
    SL_EPILOGUE_NONE,
    SL_EPILOGUE_GELU_TANH, // the vision tower's blocks
    SL_EPILOGUE_GELU_ERF,  // its mergers
    SL_EPILOGUE_SILU_GATE, // two parts of equal size, gate and up: y = silu(gate) * up; y has half the columns
};

struct sl_device_info {
    char name[96];
    enum sl_dtype compute; // the type that is fastest here: bf16 or f32
    int64_t memory_bytes;  // total memory of the device,
    int64_t free_bytes;    //   and what is free of it now; 0: not known
    int threads;           // CPU threads used; 0 on a GPU
};

// Rotary embedding of the decoder: angle_j = position[axis[j]] * inv_freq[j], pairs (j, j + head_dim / 2).
struct sl_rope {
    struct sl_tensor inv_freq; // [head_dim / 2] f32
    struct sl_tensor axis;     // [head_dim / 2] i32: 0 T, 1 H, 2 W
    float scale;               // multiplies cos and sin (YaRN's attention factor; 1 without)
};

// One decoder layer's share of the paged KV cache. Page p, head h, slot s holds one token's vector.
struct sl_kv_layer {
    struct sl_tensor k, v; // [pages, kv_heads, page_tokens, head_dim], compute type
};

// The rows of one decoder step: several sequences, each with one or more new tokens, one after another.
// Row r of sequence b, counted from row_start[b], has cache index kv_length[b] - (row_start[b+1] - row_start[b]) + r.
struct sl_ragged {
    int sequences, rows;
    struct sl_tensor row_start;  // [sequences + 1] i32
    struct sl_tensor kv_length;  // [sequences] i32: tokens in the cache after this step
    struct sl_tensor page_table; // [sequences, max_pages] i32
    struct sl_tensor position;   // [3, rows] i32: T, H, W
    int max_rows;                // the most rows of one sequence, known to the host
    int max_kv_length;           // the longest sequence, known to the host
};

// How the matrices of a layer's experts lie in a checkpoint. E experts, H hidden, M the size inside an expert. Gate
// comes before up, half and half.
enum sl_experts_layout {
    SL_EXPERTS_INPUT_MAJOR,  // one gate_up [E, H, 2M], one down [E, M, H]: y = x W, as published
    SL_EXPERTS_OUTPUT_MAJOR, // one gate_up [E, 2M, H], one down [E, H, M]: y = x W^T, as transformers 5 writes them
    SL_EXPERTS_SEPARATE, // gate_up is 2E matrices [M, H]: gate and up of expert 0, of expert 1, ...; down E of [H, M]
};

// Host tensors as for linear_create.
struct sl_experts_source {
    enum sl_experts_layout layout;
    int experts, hidden, intermediate; // E, H, M
    const struct sl_tensor *gate_up, *down;
};

// What routing leaves behind, for as many rows as are routed.
struct sl_experts_room {
    struct sl_tensor normed;         // [rows, H], compute type
    struct sl_tensor logits;         // [rows, experts] f32
    struct sl_tensor expert, weight; // [rows, top_k] i32, f32
};

// How to draw one token. Copied at enqueue.
struct sl_sample_row {
    float temperature; // 0: greedy
    float top_p;       // 1: off
    int top_k;         // 0: off
    float presence;    // subtracted from the logits of tokens whose `seen` bit is set; 0: off
    float uniform;     // [0, 1): the random number of this draw
};

enum { SL_STILL_BLOCK = 16 }; // pixels either way: small enough that a small thing that moves is much of a block

struct sl_device_ops {
    void (*destroy)(struct sl_device *device);
    void (*info)(struct sl_device *device, struct sl_device_info *out);
    void *(*native_context)(struct sl_device *device); // CUcontext; NULL on the CPU
    void *(*native_stream)(struct sl_stream *stream);  // CUstream; NULL on the CPU

    // Memory: 64-byte aligned at least.
    int (*alloc)(struct sl_device *device, int64_t size_bytes, void **out, struct sl_error *error);
    void (*release)(struct sl_device *device, void *data); // accepts NULL

    // Streams, fences, captured graphs. On the CPU everything has happened when the call returns.
    int (*stream_create)(struct sl_device *device, struct sl_stream **out, struct sl_error *error);
    // Its work goes before that of other streams, where the device can: for short work that others wait for.
    int (*stream_create_urgent)(struct sl_device *device, struct sl_stream **out, struct sl_error *error);
    void (*stream_destroy)(struct sl_stream *stream);
    int (*wait)(struct sl_stream *stream, struct sl_error *error);
    int (*fence_create)(struct sl_device *device, struct sl_fence **out, struct sl_error *error);
    void (*fence_destroy)(struct sl_fence *fence);
    void (*fence_record)(struct sl_fence *fence, struct sl_stream *stream);
    void (*fence_enqueue_wait)(struct sl_fence *fence, struct sl_stream *stream); // stream waits, host does not
    int (*fence_wait)(struct sl_fence *fence, struct sl_error *error);
    int (*graph_begin)(struct sl_stream *stream);                      // 1: capturing; 0: not supported, call on
    int (*graph_end)(struct sl_stream *stream, struct sl_graph **out); // 1: captured; 0: nothing has happened
    void (*graph_launch)(struct sl_graph *graph, struct sl_stream *stream);
    void (*graph_destroy)(struct sl_graph *graph);

    // Copies. upload has read the host bytes when it returns; what download writes is valid after a wait.
    void (*upload)(struct sl_stream *stream, void *to, const void *host, int64_t size_bytes);
    void (*download)(struct sl_stream *stream, void *host, const void *from, int64_t size_bytes);
    void (*copy)(struct sl_stream *stream, void *to, const void *from, int64_t size_bytes);
    void (*zero)(struct sl_stream *stream, void *to, int64_t size_bytes);

    // Weights. Host tensors (f32, bf16, f16, f8 with its scale; contiguous) stay mapped as long as the result lives: a
    // device may alias them. Only the data: what a `scale` points to is read before the call returns. A linear is the
    // rows of `parts` one under the other: y = x W^T + bias. `bias` may be NULL.
    int (*linear_create)(struct sl_device *device, const struct sl_tensor *parts /* each [out_i, in] */, int n,
                         const struct sl_tensor *bias /* [sum of out_i] */, enum sl_dtype compute,
                         struct sl_linear **out, struct sl_error *error);
    void (*linear_destroy)(struct sl_linear *linear); // accepts NULL
    // The experts of one layer. A device that aliases touches an expert's weights only when a row is sent to it.
    int (*experts_create)(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                          struct sl_experts **out, struct sl_error *error);
    void (*experts_destroy)(struct sl_experts *experts); // accepts NULL
    // A table or vector, converted to `dtype`. Free with weight_release.
    int (*weight_create)(struct sl_device *device, const struct sl_tensor *host, enum sl_dtype dtype,
                         struct sl_tensor *out, struct sl_error *error);
    void (*weight_release)(struct sl_device *device, struct sl_tensor *weight);

    // Pictures (rules: "Pictures" in ARCHITECTURE.md).
    // Colour conversion, square pixels, rotation, antialiased bicubic (a = -0.5) to out's size, rounded to u8.
    void (*image_resize)(struct sl_stream *stream, struct sl_frame *frame,
                         const struct sl_tensor *out /* [H, W, 3] u8 */);
    // How far each pair of pictures is from what was shown last, in levels of 0..255: the largest mean absolute
    // difference of a block of SL_STILL_BLOCK^2 pixels, of either picture and the second one of the last pair before
    // that was more than `level` away. The first pair of all is infinitely far.
    void (*pair_differences)(struct sl_stream *stream, const struct sl_tensor *pictures /* [n, H, W, 3] u8 */,
                             const struct sl_tensor *pair /* [pairs, 2] i32: which pictures */, float level,
                             const struct sl_tensor *difference /* [pairs] f32 */);
    // `n` pictures (the temporal patch) to rows in merge order; columns are channel, time, y, x; (u8/255 - mean)/std.
    void (*patchify)(struct sl_stream *stream, const struct sl_tensor *rgb /* n x [H, W, 3] u8 */, int n, int patch,
                     int merge, const float mean[3], const float std[3],
                     const struct sl_tensor *out /* [H/patch * W/patch, 3*n*patch*patch] */);

    // y = epilogue(x W^T + bias) + residual. residual may be NULL or alias y; y may be f32 whatever the compute type.
    void (*linear)(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x /* [rows, in] */,
                   enum sl_epilogue epilogue, const struct sl_tensor *residual /* [rows, out] */,
                   const struct sl_tensor *y /* [rows, out] */);
    // y = epilogue(rmsnorm(x) W^T + bias). `normed` may be used for the norm's result, or be left as it is.
    void (*rmsnorm_linear)(struct sl_stream *stream, const struct sl_tensor *x /* [rows, in] */,
                           const struct sl_tensor *norm /* [in] */, float eps,
                           const struct sl_tensor *normed /* [rows, in] */, const struct sl_linear *linear,
                           enum sl_epilogue epilogue, const struct sl_tensor *y /* [rows, out] */);
    // Each row's top_k experts, most probable first (of equals, the lower index), and their weights: the softmax over
    // all experts, in f32; with `normalise`, divided by the sum of those chosen.
    void (*route)(struct sl_stream *stream, const struct sl_tensor *logits /* [rows, experts] f32 */, int normalise,
                  const struct sl_tensor *expert /* [rows, top_k] i32 */,
                  const struct sl_tensor *weight /* [rows, top_k] f32 */);
    // y += sum over k of weight[k] * down_e(silu(gate_e x) * up_e x), e = expert[k], distinct in a row. Summed in f32,
    // rounded once.
    void (*experts)(struct sl_stream *stream, const struct sl_experts *experts,
                    const struct sl_tensor *x /* [rows, H] */, const struct sl_tensor *expert /* [rows, top_k] i32 */,
                    const struct sl_tensor *weight /* [rows, top_k] f32 */, const struct sl_tensor *y /* [rows, H] */);
    // y += the experts of rmsnorm(y), each row's chosen by `router`: rmsnorm, linear, route and experts in one. `room`
    // may be used, or be left as it is.
    void (*rmsnorm_experts)(struct sl_stream *stream, const struct sl_tensor *norm /* [H] */, float eps,
                            const struct sl_linear *router /* [experts, H] */, int normalise,
                            const struct sl_experts *experts, const struct sl_experts_room *room,
                            const struct sl_tensor *y /* [rows, H] */);
    void (*layernorm)(struct sl_stream *stream, const struct sl_tensor *x /* [rows, n] */,
                      const struct sl_tensor *weight, const struct sl_tensor *bias, float eps,
                      const struct sl_tensor *y);
    void (*rmsnorm)(struct sl_stream *stream, const struct sl_tensor *x /* [rows, n] */, const struct sl_tensor *weight,
                    float eps, const struct sl_tensor *y);
    void (*gather_rows)(struct sl_stream *stream, const struct sl_tensor *table /* [n, c] */,
                        const struct sl_tensor *index /* [rows] i32 */, const struct sl_tensor *y /* [rows, c] */);
    // y[index[i]] = x[i], or += when `add`. Indices are distinct.
    void (*scatter_rows)(struct sl_stream *stream, const struct sl_tensor *x /* [rows, c] */,
                         const struct sl_tensor *index /* [rows] i32 */, int add,
                         const struct sl_tensor *y /* [n, c] */);
    // y[i] += sum over 4 of weight[i][k] * table[index[i][k]]: the tower's bilinear position embedding.
    void (*interpolate_rows)(struct sl_stream *stream, const struct sl_tensor *table /* [n, c] */,
                             const struct sl_tensor *index /* [rows, 4] i32 */,
                             const struct sl_tensor *weight /* [rows, 4] f32 */,
                             const struct sl_tensor *y /* [rows, c] */);

    // Vision: rotates q and k of every head in place by patch coordinates (row, column), 10000 as the base.
    void (*rope_2d)(struct sl_stream *stream, const struct sl_tensor *qkv /* [rows, 3*heads*d] */, int heads,
                    const struct sl_tensor *position /* [rows, 2] i32 */);
    // Full attention inside each group of rows; scale d^-0.5.
    void (*attention_groups)(struct sl_stream *stream, const struct sl_tensor *qkv /* [rows, 3*heads*d] */, int heads,
                             const struct sl_tensor *group_start /* [groups + 1] i32 */, int groups, int max_group_rows,
                             const struct sl_tensor *y /* [rows, heads*d] */);

    // Decoder: q and k are RMS-normalised per head and rotated, q in place; k and v go to their pages.
    void (*qk_norm_rope_store)(struct sl_stream *stream, const struct sl_ragged *ragged,
                               const struct sl_tensor *qkv /* [rows, (heads + 2*kv_heads)*d] */, int heads,
                               const struct sl_tensor *q_norm /* [d] */, const struct sl_tensor *k_norm /* [d] */,
                               float eps, const struct sl_rope *rope, const struct sl_kv_layer *kv);
    // Causal by cache index, grouped query heads, scale d^-0.5.
    void (*attention_paged)(struct sl_stream *stream, const struct sl_ragged *ragged,
                            const struct sl_tensor *qkv /* as above; q columns are read */, int heads,
                            const struct sl_kv_layer *kv, const struct sl_tensor *y /* [rows, heads*d] */);
    // Both in one, where every sequence has one row; q need not be written. 0: not for these, nothing has happened.
    // NULL: for none.
    int (*turn_and_attend)(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                           int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                           const struct sl_rope *rope, const struct sl_kv_layer *kv, const struct sl_tensor *y);

    // Draws one token a row. logprob is the token's log probability at temperature 1 before mask and penalty. Where
    // nothing is allowed the token is -1. A captured graph draws again as `rows` said when it was captured.
    void (*sample)(struct sl_stream *stream, const struct sl_tensor *logits /* [rows, vocab] f32 */,
                   const struct sl_sample_row *rows,
                   const struct sl_tensor *allowed /* [rows, ceil(vocab/32)] i32 bits, or NULL */,
                   const struct sl_tensor *seen /* likewise, or NULL */, const struct sl_tensor *token /* [rows] i32 */,
                   const struct sl_tensor *logprob /* [rows] f32 */);
};

// An implementation's object begins with this.
struct sl_device {
    const struct sl_device_ops *ops;
};

int64_t sl_dtype_bytes(enum sl_dtype dtype);
const char *sl_dtype_name(enum sl_dtype dtype);
// Contiguous tensors; unused shape entries are 1.
struct sl_tensor sl_tensor_1d(void *data, enum sl_dtype dtype, int64_t a);
struct sl_tensor sl_tensor_2d(void *data, enum sl_dtype dtype, int64_t a, int64_t b);
struct sl_tensor sl_tensor_3d(void *data, enum sl_dtype dtype, int64_t a, int64_t b, int64_t c);
struct sl_tensor sl_tensor_4d(void *data, enum sl_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d);
// `count` rows of `t` beginning at `first` (axis 0).
struct sl_tensor sl_tensor_rows(const struct sl_tensor *t, int64_t first, int64_t count);
// `count` columns of a 2-D `t` beginning at `first`; keeps the row stride.
struct sl_tensor sl_tensor_columns(const struct sl_tensor *t, int64_t first, int64_t count);
int64_t sl_tensor_elements(const struct sl_tensor *t);
int64_t sl_tensor_bytes(const struct sl_tensor *t); // of a contiguous tensor

#endif
