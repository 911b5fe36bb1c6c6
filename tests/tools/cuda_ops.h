// SPDX-License-Identifier: Apache-2.0
// What the files of cuda-ops share: two devices side by side, tensors that both have, and the verdict on a case.
//
// The device under test works in `type` (bf16 or f32). The reference is cpu/ in f32, on the same values after their
// rounding to `type`; so what is measured is the device's own error and the last rounding. Whatever a case allocates
// lives until bench_clear().
#ifndef SL_TESTS_TOOLS_CUDA_OPS_H
#define SL_TESTS_TOOLS_CUDA_OPS_H

#include <stdint.h>

#include "core/device.h"

struct bench {
    struct sl_device *dut, *reference;
    struct sl_stream *stream, *reference_stream;
    enum sl_dtype type;
    const char *only; // run the groups whose name has this in it; NULL: all
    int device_index; // of frames in a GPU's memory
    int no_reference; // operands for timing: the reference gets no values
    int passed, failed;
    double worst; // error of the group so far, in parts of its limit
    uint64_t random;
    float *pool; // random numbers, used over and over
    struct bench_memory *memory;
};

// A tensor on both devices.
struct operand {
    struct sl_tensor dut;  // memory of the device under test, with a guard behind it
    struct sl_tensor ref;  // the same in f32 (i32, u8) in host memory, which the reference device can use
    struct sl_tensor host; // what was uploaded, or fetched last
};

int bench_is_wanted(const struct bench *b, const char *name);                 // --only
double bench_uniform(struct bench *b);                                        // [0, 1)
int64_t bench_below(struct bench *b, int64_t n);                              // [0, n)
void *bench_host(struct bench *b, int64_t size_bytes);                        // zeroed host memory
void *bench_device(struct bench *b, int64_t size_bytes);                      // of the device under test
void bench_clear(struct bench *b);                                            // frees what the case allocated
void bench_fill(struct bench *b, const struct sl_tensor *host, double scale); // random values, f32 or bf16

// About normally distributed, with `scale` as the deviation.
struct operand operand_random(struct bench *b, enum sl_dtype dtype, int64_t rows, int64_t columns, double scale);
struct operand operand_vector(struct bench *b, enum sl_dtype dtype, int64_t n, double middle, double scale);
// To be written by an operation: NaN everywhere until then.
struct operand operand_output(struct bench *b, enum sl_dtype dtype, int64_t rows, int64_t columns);
// Begins 4 bytes after an aligned address, as integers packed one after another do.
struct operand operand_ints(struct bench *b, const int32_t *values, int64_t rows, int64_t columns);
struct operand operand_floats(struct bench *b, const float *values, int64_t rows, int64_t columns);
struct operand operand_bytes(struct bench *b, const uint8_t *values, int64_t rows, int64_t columns);
struct operand operand_reshaped(const struct operand *from, int rank, const int64_t *shape);
void operand_fetch(struct bench *b, struct operand *o);     // device to host
void operand_take_over(struct bench *b, struct operand *o); // fetches, and gives the reference the same values
struct sl_tensor operand_reference_rows(struct bench *b, const struct operand *o, const int64_t *row, int64_t count);

// The outputs of `type` may differ by about their last rounding.
double bench_limit(enum sl_dtype output, enum sl_dtype compute);

// Fetches `o` and holds it against o->ref: relative error of the whole, of each row, of each value. Prints one line.
void judge(struct bench *b, struct operand *o, double limit, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
// Likewise where only `count` rows are known to the reference: `ref` [count, columns] f32; the others must be numbers.
void judge_rows(struct bench *b, struct operand *o, const struct sl_tensor *ref, const int64_t *row, int64_t count,
                double limit, const char *what);
// Likewise, with `o` seen as rows of `columns` values; only the listed ones are looked at.
void judge_some_rows(struct bench *b, struct operand *o, int64_t columns, const int64_t *row, int64_t count,
                     double limit, const char *what);
// A case of another kind. `why` is printed when it failed.
void judge_plain(struct bench *b, int good, const char *what, const char *why);
int bench_failed_stream(struct bench *b, const char *what); // 1, with a line printed: the stream has failed

const char *short_type(enum sl_dtype dtype);

// A linear layer on both devices, made of `n` parts of equal size.
struct layer {
    struct sl_linear *dut, *reference; // reference: NULL if it was not asked for
    int64_t out, in;
};
struct layer layer_create(struct bench *b, int64_t out, int64_t in, int parts, int bias, int with_reference);
void layer_destroy(struct bench *b, struct layer *layer);

// The experts of a layer on both devices.
struct mixture_shape {
    enum sl_experts_layout layout;
    int f8; // the weights are f8 with scales
    int experts, hidden, inner, top_k;
};
struct mixture {
    struct mixture_shape shape;
    struct sl_experts *dut, *reference; // reference: NULL if it was not asked for
};
struct mixture mixture_create(struct bench *b, const struct mixture_shape *shape, int with_reference);
void mixture_destroy(struct bench *b, struct mixture *mixture);
// Rows sent to experts at random, by the reference's routing. `evenly` 0: all to the same.
struct sent_rows {
    struct operand expert, weight; // [rows, top_k]
};
struct sent_rows sent_rows_create(struct bench *b, const struct mixture_shape *shape, int64_t rows, int evenly);

// Several sequences in the paged cache.
struct batch_sequence {
    int rows, length; // new rows; tokens in the cache after them
};
struct paged_shape {
    int heads, kv_heads, head_dim, page_tokens;
};
struct paged {
    struct paged_shape shape;
    struct sl_ragged dut, ref;
    struct operand row_start, kv_length, page_table, position, inv_freq, axis;
    struct operand k, v, qkv, q_norm, k_norm, y;
    struct sl_kv_layer dut_kv, ref_kv;
    struct sl_rope dut_rope, ref_rope;
};
struct paged paged_create(struct bench *b, struct paged_shape shape, const struct batch_sequence *sequence, int count);

// NV12 in the memory of the device under test; lives until bench_clear().
struct sl_frame *bench_frame(struct bench *b, int width, int height);

// The groups of cases; each runs in b->type.
void check_linear(struct bench *b);
void check_rmsnorm_linear(struct bench *b);
void check_f8(struct bench *b);
void check_route(struct bench *b);
void check_experts(struct bench *b);
void check_rmsnorm_experts(struct bench *b);
void check_norms(struct bench *b);
void check_rows(struct bench *b);
void check_rope_2d(struct bench *b);
void check_attention_groups(struct bench *b);
void check_paged(struct bench *b); // qk_norm_rope_store, attention_paged, turn_and_attend
void check_sample(struct bench *b);
void check_image_resize(struct bench *b);
void check_pair_differences(struct bench *b);
void check_patchify(struct bench *b);
void check_copies(struct bench *b);
void check_fences(struct bench *b);
void check_graphs(struct bench *b);
void check_errors(struct bench *b);

void time_all(struct bench *b);

#endif
