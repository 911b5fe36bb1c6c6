// SPDX-License-Identifier: Apache-2.0
// The inner loops of cpu/, compiled once for each instruction set from kernels_body.h. One thread runs each; they
// allocate nothing and know nothing of streams. `bf16` says of which type the 16-or-32-bit operands are.
//
// Products come in two shapes. Many rows: x is packed into panels of `vectors * lanes` rows, one row a lane, and each
// value of w is broadcast against them, so w is read as it lies in the file. The result stands on its side: C[w row][x
// row]. Few rows: dot products along w's rows. A "step" is what one instruction takes of the inner dimension: four
// bytes, so one f32 or a pair of bf16.
#ifndef SL_CPU_KERNELS_H
#define SL_CPU_KERNELS_H

#include "core/device.h"

enum {
    CPU_LANES = 16,     // the widest vector, in floats
    CPU_VECTORS = 4,    // the widest panel, in vectors
    CPU_DOTS = 8,       // the most rows of x that `dots` takes
    CPU_STRETCH = 4096, // bytes of a row that `dots` sums before it adds them to the rest
};

// Where a product goes: y[row][column] = epilogue(c + bias) + residual.
struct cpu_finish {
    enum sl_epilogue epilogue;
    const float *bias, *bias_up; // by column, or NULL; bias_up: of the gate's other half
    const void *residual;        // or NULL
    int64_t residual_stride;     // elements
    int residual_bf16;
    void *y;
    int64_t y_stride;
    int y_bf16;
};

struct cpu_kernels {
    const char *name;
    int lanes;
    int vectors;   // of the panel that runs fastest
    int fast_bf16; // bf16 products are faster than those of f32

    void (*pack)(const void *x, int64_t stride_bytes, int rows, int64_t steps, int vectors, void *panel);
    // c[i][lane] (+)= sum over steps s of w[i][s] * panel[s][lane]; w[i][s] lies at w[i] + offset + s * step_bytes.
    void (*product)(int bf16, int64_t n, const char *const *w, int64_t offset_bytes, int64_t step_bytes,
                    const void *panel, int vectors, int64_t steps, float *c, int64_t ldc, int accumulate);
    // c[j][i] = w[i] . x[j], m <= CPU_DOTS rows of x; the same bits whatever m and n are.
    void (*dots)(int bf16, int64_t n, const char *const *w, const void *x, int64_t x_stride_bytes, int m, int64_t k,
                 float *c, int64_t ldc);
    // c[j][i] += sum over the n rows of w of x[j][row] * w[row][i]; the same bits whatever m and columns are.
    void (*add_rows)(int bf16, int64_t n, const char *const *w, const float *x, int64_t ldx, int m, int64_t columns,
                     float *c, int64_t ldc);
    // Rows [row, row + rows) and columns [column, column + columns) of y. `up` is read with SL_EPILOGUE_SILU_GATE.
    // finish_columns takes c[column][row], finish_rows takes c[row][column], both from the first one on.
    void (*finish_columns)(const struct cpu_finish *finish, const float *c, const float *up, int64_t ldc, int64_t row,
                           int64_t rows, int64_t column, int64_t columns);
    void (*finish_rows)(const struct cpu_finish *finish, const float *c, const float *up, int64_t ldc, int64_t row,
                        int64_t rows, int64_t column, int64_t columns);

    // One step of a running softmax over s[n][lanes], a lane a query: updates max and sum, writes by what earlier
    // results must be multiplied, and the exponentials as a panel for `product`. Lane l sees the first limit[l] rows
    // (NULL: all).
    void (*softmax_panel)(float *s, int64_t n, int vectors, const int32_t *limit, float scale, float *max, float *sum,
                          float *correction, int bf16, void *panel);
    // The same for one query whose scores are s[n]: in place, returns the correction.
    float (*softmax_row)(float *s, int64_t n, float scale, float *max, float *sum);
    void (*scale_panel)(float *c, int64_t n, int vectors, const float *by);
    // out[j] = out[j] * correction[j] + sum over i of p[j][i] * v[i]; m <= CPU_DOTS.
    void (*combine)(int bf16, int64_t n, const char *const *v, const float *p, int64_t ldp, int m,
                    const float *correction, int64_t d, float *out);
    // pairs[i][c] = (v[2i][c], v[2i+1][c]), a missing last row as 0: what `product` takes as w.
    void (*pair_rows)(int64_t n, const char *const *v, int64_t d, uint32_t *pairs);

    void (*to_f32)(const void *from, enum sl_dtype type, int64_t n, float *to); // from f32, bf16, f16, f8
    void (*from_f32)(const float *from, int64_t n, int bf16, void *to);
    void (*add_scaled)(const float *x, float by, int64_t n, float *y); // y += x * by
    void (*layernorm)(const float *x, const float *weight, const float *bias, float eps, int64_t n, float *y);
    void (*rmsnorm)(const float *x, const float *weight, float eps, int64_t n, float *y);
    // Pairs (j, j + half) of x turned by (cosine[j], sine[j]), in place.
    void (*rotate)(float *x, const float *cosine, const float *sine, int64_t half);
    double (*sum_exp)(const float *x, int64_t n, float minus); // sum of exp(x - minus)
    float (*maximum)(const float *x, int64_t n);
};

// Level 0: plain C, 1: AVX2, 2: AVX-512, 3: AVX-512 with bf16. NULL: this processor does not have that.
enum { CPU_LEVELS = 4 };
const struct cpu_kernels *cpu_kernels_at(int level);
const struct cpu_kernels *cpu_kernels_best(void);

extern const struct cpu_kernels cpu_kernels_plain;
#if defined(__x86_64__)
extern const struct cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512, cpu_kernels_avx512_bf16;
#endif

#endif
