// SPDX-License-Identifier: Apache-2.0
// The bodies of struct cpu_kernels, included by one file for each instruction set, which defines before:
//   KERNELS         name of the table          NAME, FAST_BF16  its entries
//   TARGET          function attribute         LANES            floats in a vector
//   FMA(a, b, c)    a * b + c                  MAX(a, b), MIN(a, b)
//   DOT(c, a, b)    c + products of the bf16 pairs of a and b
//   ROUND(x), SCALE(x, n)  to the nearest integers; x * 2^n: both or neither
//   ROWS_OF_TILE    rows of w in one register tile, for panels of 1 to 4 vectors; TILE_VECTORS: the widest that fits
// No include guard and no OpenMP here: an outlined parallel region would lose the target attribute.
#include <math.h>
#include <string.h>

#include "core/half.h"

#define INLINE static inline __attribute__((always_inline, unused)) TARGET
#define KERNEL static TARGET
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

#if LANES == 16
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

// --- vectors ---

INLINE vf load(const void *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(void *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

INLINE vf splat(float x)
{
    return x - (vf){0};
}

INLINE vf splat_step(const char *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return (vf)(x - (vi){0});
}

INLINE vf pick(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

INLINE vf low_halves(vf x) // of bf16 pairs
{
    return (vf)((vu)x << 16);
}

INLINE vf high_halves(vf x)
{
    return (vf)((vu)x & 0xffff0000u);
}

INLINE vu round_bf16(vf x) // to nearest even, in the low halves
{
    vu u = (vu)x;
    return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

INLINE vf load_as(int bf16, const void *p, int64_t i)
{
    if (!bf16) {
        return load((const float *)p + i);
    }
    vh h;
    memcpy(&h, (const uint16_t *)p + i, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

INLINE void store_as(int bf16, void *p, int64_t i, vf v)
{
    if (!bf16) {
        store((float *)p + i, v);
        return;
    }
    vh h = __builtin_convertvector(round_bf16(v), vh);
    memcpy((uint16_t *)p + i, &h, sizeof h);
}

// The first `count` lanes; zeros behind.
INLINE vf load_part(int bf16, const void *p, int64_t i, int64_t count)
{
    char buffer[sizeof(vf)] = {0};
    size_t size = bf16 ? 2 : 4;
    memcpy(buffer, (const char *)p + i * (int64_t)size, (size_t)count * size);
    return load_as(bf16, buffer, 0);
}

INLINE void store_part(int bf16, void *p, int64_t i, int64_t count, vf v)
{
    char buffer[sizeof(vf)];
    size_t size = bf16 ? 2 : 4;
    store_as(bf16, buffer, 0, v);
    memcpy((char *)p + i * (int64_t)size, buffer, (size_t)count * size);
}

INLINE vf load_up_to(int bf16, const void *p, int64_t i, int64_t count)
{
    return count >= LANES ? load_as(bf16, p, i) : load_part(bf16, p, i, count);
}

INLINE void store_up_to(int bf16, void *p, int64_t i, int64_t count, vf v)
{
    if (count >= LANES) {
        store_as(bf16, p, i, v);
    } else {
        store_part(bf16, p, i, count, v);
    }
}

// Adds each vector's upper half to its lower; the results alternate.
INLINE vf fold(vf a, vf b)
{
    return ZIP_LOW(a, b) + ZIP_HIGH(a, b);
}

INLINE float add_lanes(vf v)
{
    UNROLL
    for (int half = LANES / 2; half > 0; half /= 2) {
        v = fold(v, v);
    }
    return v[0];
}

// The sums of four vectors, each added in the order of add_lanes.
INLINE void add_lanes_of_four(const vf v[4], float sum[4])
{
    vf all = fold(fold(v[0], v[2]), fold(v[1], v[3]));
    UNROLL
    for (int half = LANES / 8; half > 0; half /= 2) {
        all = fold(all, all);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        sum[i] = all[i * (LANES / 4)];
    }
}

INLINE float max_lanes(vf v)
{
    float m = v[0];
    for (int i = 1; i < LANES; i++) {
        m = v[i] > m ? v[i] : m;
    }
    return m;
}

// Interleaving row i with row i + LANES/2, log2(LANES) times, rotates the bits of (row, lane) until they have changed
// places.
INLINE void transpose(vf t[LANES])
{
    UNROLL
    for (int round = 1; round < LANES; round *= 2) {
        vf u[LANES];
        UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            u[2 * i] = ZIP_LOW(t[i], t[i + LANES / 2]);
            u[2 * i + 1] = ZIP_HIGH(t[i], t[i + LANES / 2]);
        }
        UNROLL
        for (int i = 0; i < LANES; i++) {
            t[i] = u[i];
        }
    }
}

// --- functions ---

// 2^x = 2^n * e^(r ln 2), |r| <= 1/2, by its Taylor series: `exact` to 2 ulp, otherwise to 5e-5, for what becomes bf16.
INLINE vf exp2_lanes(vf x, int exact)
{
#ifdef SCALE
    vf n = ROUND(x), r = x - n;
#else
    const float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    x = MIN(MAX(x, splat(-126.0f)), splat(127.0f));
    vf shifted = x + magic, r = x - (shifted - magic);
#endif
    vf p = splat(0.00961812911f);
    if (exact) {
        p = splat(0.000154035304f);
        p = FMA(p, r, splat(0.00133335581f));
        p = FMA(p, r, splat(0.00961812911f));
    }
    p = FMA(p, r, splat(0.0555041087f));
    p = FMA(p, r, splat(0.240226507f));
    p = FMA(p, r, splat(0.693147181f));
    p = FMA(p, r, splat(1.0f));
#ifdef SCALE
    return SCALE(p, n);
#else
    return (vf)((vi)p + ((vi)shifted << 23));
#endif
}

INLINE vf exp_lanes(vf x)
{
    return exp2_lanes(x * 1.44269504f, 1);
}

INLINE vf silu(vf x)
{
    return x / (1.0f + exp_lanes(-x));
}

// x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)
INLINE vf gelu_tanh(vf x)
{
    vf u = x * FMA(x * x, splat(0.044715f), splat(1.0f));
    return x / (1.0f + exp_lanes(u * -1.59576912f));
}

// x (1 + erf(x / sqrt 2)) / 2; erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
INLINE vf gelu_erf(vf x)
{
    vf z = x * 0.70710678f;
    vf size = MAX(z, -z);
    vf t = 1.0f / FMA(size, splat(0.3275911f), splat(1.0f));
    vf p = splat(1.061405429f);
    p = FMA(p, t, splat(-1.453152027f));
    p = FMA(p, t, splat(1.421413741f));
    p = FMA(p, t, splat(-0.284496736f));
    p = FMA(p, t, splat(0.254829592f));
    vf tail = 0.5f * p * t * exp_lanes(-size * size); // (1 - erf|z|) / 2
    return x * pick(x < 0.0f, tail, 1.0f - tail);
}

// --- products ---

INLINE void pack_vector(const char *x, int64_t stride_bytes, int rows, int64_t steps, float *to, int64_t step_floats)
{
    for (int64_t s = 0; s < steps; s += LANES) {
        int64_t count = steps - s < LANES ? steps - s : LANES;
        vf t[LANES];
        UNROLL
        for (int r = 0; r < LANES; r++) {
            t[r] = r < rows ? load_up_to(0, x + r * stride_bytes, s, count) : (vf){0};
        }
        transpose(t);
        for (int i = 0; i < count; i++) {
            store(to + (s + i) * step_floats, t[i]);
        }
    }
}

KERNEL void pack(const void *x, int64_t stride_bytes, int rows, int64_t steps, int vectors, void *panel)
{
    for (int v = 0; v < vectors; v++) {
        int left = rows - v * LANES;
        pack_vector((const char *)x + v * LANES * stride_bytes, stride_bytes, left < 0 ? 0 : left, steps,
                    (float *)panel + v * LANES, (int64_t)vectors * LANES);
    }
}

// A tile of `rows` rows of w against one panel, all of it in registers. rows, vectors and bf16 are constants.
INLINE void tile(int bf16, int rows, int vectors, const char *const *w, int64_t offset_bytes, int64_t step_bytes,
                 const float *panel, int64_t steps, float *c, int64_t ldc, int accumulate)
{
    vf sum[12][CPU_VECTORS];
    const char *row[12];
    UNROLL
    for (int r = 0; r < rows; r++) {
        row[r] = w[r] + offset_bytes;
        UNROLL
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = accumulate ? load(c + r * ldc + v * LANES) : (vf){0};
        }
    }
    for (int64_t s = 0; s < steps; s++) {
        vf x[CPU_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; v++) {
            x[v] = load(panel + (s * vectors + v) * LANES);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            vf a = splat_step(row[r] + s * step_bytes);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = bf16 ? DOT(sum[r][v], a, x[v]) : FMA(a, x[v], sum[r][v]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            store(c + r * ldc + v * LANES, sum[r][v]);
        }
    }
}

// The last rows, fewer than a tile: the missing ones are doubles of the last, their results are dropped.
INLINE void tile_part(int bf16, int tile_rows, int rows, int vectors, const char *const *w, int64_t offset_bytes,
                      int64_t step_bytes, const float *panel, int64_t steps, float *c, int64_t ldc, int accumulate)
{
    const char *row[12];
    float part[12 * CPU_VECTORS * LANES] __attribute__((aligned(64)));
    int64_t width = vectors * LANES;
    for (int r = 0; r < tile_rows; r++) {
        int real = r < rows ? r : rows - 1;
        row[r] = w[real];
        memcpy(part + r * width, c + real * ldc, accumulate ? (size_t)width * sizeof *c : 0);
    }
    tile(bf16, tile_rows, vectors, row, offset_bytes, step_bytes, panel, steps, part, width, accumulate);
    for (int r = 0; r < rows; r++) {
        memcpy(c + r * ldc, part + r * width, (size_t)width * sizeof *c);
    }
}

#define DEFINE_PRODUCT(type, bf16, vectors, tile_rows)                                                                 \
    KERNEL void product_##type##_##vectors(int64_t n, const char *const *w, int64_t offset, int64_t step,              \
                                           const float *panel, int64_t steps, float *c, int64_t ldc, int accumulate)   \
    {                                                                                                                  \
        int64_t i = 0;                                                                                                 \
        for (; i + tile_rows <= n; i += tile_rows) {                                                                   \
            tile(bf16, tile_rows, vectors, w + i, offset, step, panel, steps, c + i * ldc, ldc, accumulate);           \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            tile_part(bf16, tile_rows, (int)(n - i), vectors, w + i, offset, step, panel, steps, c + i * ldc, ldc,     \
                      accumulate);                                                                                     \
        }                                                                                                              \
    }
#define DEFINE_PRODUCTS(vectors, tile_rows)                                                                            \
    DEFINE_PRODUCT(f32, 0, vectors, tile_rows)                                                                         \
    DEFINE_PRODUCT(bf16, 1, vectors, tile_rows)

DEFINE_PRODUCTS(1, TILE_ROWS_1)
DEFINE_PRODUCTS(2, TILE_ROWS_2)
DEFINE_PRODUCTS(3, TILE_ROWS_3)
DEFINE_PRODUCTS(4, TILE_ROWS_4)

KERNEL void product(int bf16, int64_t n, const char *const *w, int64_t offset_bytes, int64_t step_bytes,
                    const void *panel, int vectors, int64_t steps, float *c, int64_t ldc, int accumulate)
{
    void (*const with[2][CPU_VECTORS])(int64_t, const char *const *, int64_t, int64_t, const float *, int64_t, float *,
                                       int64_t, int) = {
        {product_f32_1, product_f32_2, product_f32_3, product_f32_4},
        {product_bf16_1, product_bf16_2, product_bf16_3, product_bf16_4},
    };
    with[bf16][vectors - 1](n, w, offset_bytes, step_bytes, panel, steps, c, ldc, accumulate);
}

// One vector's worth of the inner dimension, or its last `floats`, of `rows` rows of w against m rows of x.
INLINE void dot_step(int bf16, int rows, int m, const char *const *w, const char *x, int64_t x_stride_bytes, int64_t b,
                     int64_t floats, vf sum[4][CPU_DOTS])
{
    vf a[4];
    UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = load_up_to(0, w[r] + b, 0, floats);
    }
    UNROLL
    for (int j = 0; j < m; j++) {
        vf xj = load_up_to(0, x + j * x_stride_bytes + b, 0, floats);
        UNROLL
        for (int r = 0; r < rows; r++) {
            sum[r][j] = bf16 ? DOT(sum[r][j], a[r], xj) : FMA(a[r], xj, sum[r][j]);
        }
    }
}

INLINE void fetch(const char *p, int64_t offset, int far)
{
    const char *at = (const char *)((uintptr_t)p + (uintptr_t)offset); // may lie beyond the last row
    if (far) {
        __builtin_prefetch(at, 0, 2);
    } else {
        __builtin_prefetch(at);
    }
}

// rows <= 4, m and far are constants, small enough for the registers. `next` is what to fetch on the way, since the
// hardware foresees no farther than the end of a page; into the first-level cache, or the second when it is far.
INLINE void dot_tile(int bf16, int rows, int m, int far, const char *const *w, const char *const *next, int64_t offset,
                     const char *x, int64_t x_stride_bytes, int64_t k, float *c, int64_t ldc, int accumulate)
{
    const char *row[4], *from = x + offset;
    vf sum[4][CPU_DOTS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        row[r] = w[r] + offset;
        UNROLL
        for (int j = 0; j < m; j++) {
            sum[r][j] = (vf){0};
        }
    }
    int64_t bytes = k * (bf16 ? 2 : 4), whole = bytes - bytes % (4 * LANES);
    for (int64_t b = 0; b < whole; b += 4 * LANES) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            fetch(next[r], offset + b, far);
        }
        dot_step(bf16, rows, m, row, from, x_stride_bytes, b, LANES, sum);
    }
    if (whole < bytes) {
        dot_step(bf16, rows, m, row, from, x_stride_bytes, whole, (bytes - whole) / 4, sum);
    }
    UNROLL
    for (int j = 0; j < m; j++) {
        vf tile_sums[4] = {{0}};
        float sums[4];
        UNROLL
        for (int r = 0; r < rows; r++) {
            tile_sums[r] = sum[r][j];
        }
        add_lanes_of_four(tile_sums, sums);
        UNROLL
        for (int r = 0; r < rows; r++) {
            c[j * ldc + r] = sums[r] + (accumulate ? c[j * ldc + r] : 0);
        }
    }
}

// One or two rows of x: every row of w in one go, so that the memory sees one long stream.
INLINE void dots_in_line(int bf16, int m, int64_t n, const char *const *w, const char *x, int64_t x_stride, int64_t k,
                         float *c, int64_t ldc)
{
    int64_t size = bf16 ? 2 : 4, stretch = CPU_STRETCH / size;
    for (int64_t i = 0; i < n; i++) {
        const char *ahead = (const char *)((uintptr_t)w[i] + 2 * CPU_STRETCH);
        for (int64_t first = 0; first < k; first += stretch) {
            int64_t count = k - first < stretch ? k - first : stretch;
            dot_tile(bf16, 1, m, 1, w + i, &ahead, first * size, x, x_stride, count, c + i, ldc, first > 0);
        }
    }
}

// More of them: a stretch of every row of w before the next stretch, so that the same of x stays in the cache.
INLINE void dots_in_stretches(int bf16, int m, int64_t n, const char *const *w, const char *x, int64_t x_stride,
                              int64_t k, float *c, int64_t ldc)
{
    int64_t size = bf16 ? 2 : 4, stretch = CPU_STRETCH / size;
    for (int64_t first = 0; first < k; first += stretch) {
        int64_t count = k - first < stretch ? k - first : stretch, i = 0;
        for (; i + 2 <= n; i += 2) {
            const char *const *next = i + 4 <= n ? w + i + 2 : w + i;
            dot_tile(bf16, 2, m, 0, w + i, next, first * size, x, x_stride, count, c + i, ldc, first > 0);
        }
        if (i < n) {
            dot_tile(bf16, 1, m, 0, w + i, w + i, first * size, x, x_stride, count, c + i, ldc, first > 0);
        }
    }
}

#define DOTS_PARAMETERS                                                                                                \
    int64_t n, const char *const *w, const char *x, int64_t x_stride, int64_t k, float *c, int64_t ldc
#define DEFINE_DOTS(how, m)                                                                                            \
    KERNEL void dots_f32_##m(DOTS_PARAMETERS)                                                                          \
    {                                                                                                                  \
        dots_in_##how(0, m, n, w, x, x_stride, k, c, ldc);                                                             \
    }                                                                                                                  \
    KERNEL void dots_bf16_##m(DOTS_PARAMETERS)                                                                         \
    {                                                                                                                  \
        dots_in_##how(1, m, n, w, x, x_stride, k, c, ldc);                                                             \
    }

DEFINE_DOTS(line, 1)
DEFINE_DOTS(line, 2)
DEFINE_DOTS(stretches, 3)
DEFINE_DOTS(stretches, 4)
DEFINE_DOTS(stretches, 5)
DEFINE_DOTS(stretches, 6)
DEFINE_DOTS(stretches, 7)
DEFINE_DOTS(stretches, 8)

KERNEL void dots(int bf16, int64_t n, const char *const *w, const void *x, int64_t x_stride_bytes, int m, int64_t k,
                 float *c, int64_t ldc)
{
    void (*const with[2][CPU_DOTS])(DOTS_PARAMETERS) = {
        {dots_f32_1, dots_f32_2, dots_f32_3, dots_f32_4, dots_f32_5, dots_f32_6, dots_f32_7, dots_f32_8},
        {dots_bf16_1, dots_bf16_2, dots_bf16_3, dots_bf16_4, dots_bf16_5, dots_bf16_6, dots_bf16_7, dots_bf16_8},
    };
    with[bf16][m - 1](n, w, x, x_stride_bytes, k, c, ldc);
}

// `vectors` of columns from `column` on; m and vectors are constants, small enough for the registers. `part`: the last
// vector has but `last` columns.
INLINE void add_rows_tile(int bf16, int64_t n, const char *const *w, const float *x, int64_t ldx, int m, int vectors,
                          int64_t column, int part, int64_t last, float *c, int64_t ldc)
{
    vf sum[4][4];
    UNROLL
    for (int j = 0; j < m; j++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            const float *from = c + j * ldc + column + v * LANES;
            sum[j][v] = part ? load_part(0, from, 0, last) : load(from);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        vf row[4];
        UNROLL
        for (int v = 0; v < vectors; v++) {
            row[v] = part ? load_part(bf16, w[i], column, last) : load_as(bf16, w[i], column + v * LANES);
        }
        UNROLL
        for (int j = 0; j < m; j++) {
            vf by = splat(x[j * ldx + i]);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                sum[j][v] = FMA(row[v], by, sum[j][v]);
            }
        }
    }
    UNROLL
    for (int j = 0; j < m; j++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            store_up_to(0, c + j * ldc, column + v * LANES, part ? last : LANES, sum[j][v]);
        }
    }
}

// All columns for m rows of x.
INLINE void add_rows_of(int bf16, int64_t n, const char *const *w, const float *x, int64_t ldx, int m, int vectors,
                        int64_t columns, float *c, int64_t ldc)
{
    int64_t i = 0;
    for (; i + vectors * LANES <= columns; i += vectors * LANES) {
        add_rows_tile(bf16, n, w, x, ldx, m, vectors, i, 0, 0, c, ldc);
    }
    for (; i + LANES <= columns; i += LANES) {
        add_rows_tile(bf16, n, w, x, ldx, m, 1, i, 0, 0, c, ldc);
    }
    if (i < columns) {
        add_rows_tile(bf16, n, w, x, ldx, m, 1, i, 1, columns - i, c, ldc);
    }
}

INLINE void add_rows_as(int bf16, int64_t n, const char *const *w, const float *x, int64_t ldx, int m, int64_t columns,
                        float *c, int64_t ldc)
{
    int j = 0;
    for (; j + 4 <= m; j += 4) {
        add_rows_of(bf16, n, w, x + j * ldx, ldx, 4, 2, columns, c + j * ldc, ldc);
    }
    for (; j + 2 <= m; j += 2) {
        add_rows_of(bf16, n, w, x + j * ldx, ldx, 2, 4, columns, c + j * ldc, ldc);
    }
    if (j < m) {
        add_rows_of(bf16, n, w, x + j * ldx, ldx, 1, 4, columns, c + j * ldc, ldc);
    }
}

KERNEL void add_rows(int bf16, int64_t n, const char *const *w, const float *x, int64_t ldx, int m, int64_t columns,
                     float *c, int64_t ldc)
{
    if (bf16) {
        add_rows_as(1, n, w, x, ldx, m, columns, c, ldc);
    } else {
        add_rows_as(0, n, w, x, ldx, m, columns, c, ldc);
    }
}

INLINE void finish_lanes(const struct cpu_finish *f, vf c, vf up, int64_t row, int64_t column, int64_t count)
{
    if (f->bias) {
        c += load_up_to(0, f->bias, column, count);
    }
    if (f->epilogue == SL_EPILOGUE_SILU_GATE) {
        if (f->bias_up) {
            up += load_up_to(0, f->bias_up, column, count);
        }
        c = silu(c) * up;
    } else if (f->epilogue == SL_EPILOGUE_GELU_TANH) {
        c = gelu_tanh(c);
    } else if (f->epilogue == SL_EPILOGUE_GELU_ERF) {
        c = gelu_erf(c);
    }
    if (f->residual) {
        c += load_up_to(f->residual_bf16, f->residual, row * f->residual_stride + column, count);
    }
    store_up_to(f->y_bf16, f->y, row * f->y_stride + column, count, c);
}

INLINE void turn(const float *c, int64_t ldc, int64_t columns, vf t[LANES])
{
    UNROLL
    for (int i = 0; i < LANES; i++) {
        t[i] = i < columns ? load(c + i * ldc) : (vf){0};
    }
    transpose(t);
}

KERNEL void finish_columns(const struct cpu_finish *finish, const float *c, const float *up, int64_t ldc, int64_t row,
                           int64_t rows, int64_t column, int64_t columns)
{
    struct cpu_finish f = *finish;
    vf t[LANES], u[LANES];
    for (int64_t i = 0; i < columns; i += LANES) {
        int64_t count = columns - i < LANES ? columns - i : LANES;
        for (int64_t j = 0; j < rows; j += LANES) {
            turn(c + i * ldc + j, ldc, count, t);
            if (f.epilogue == SL_EPILOGUE_SILU_GATE) {
                turn(up + i * ldc + j, ldc, count, u);
            }
            for (int64_t r = 0; r < LANES && j + r < rows; r++) {
                finish_lanes(&f, t[r], f.epilogue == SL_EPILOGUE_SILU_GATE ? u[r] : t[r], row + j + r, column + i,
                             count);
            }
        }
    }
}

KERNEL void finish_rows(const struct cpu_finish *finish, const float *c, const float *up, int64_t ldc, int64_t row,
                        int64_t rows, int64_t column, int64_t columns)
{
    struct cpu_finish f = *finish;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < columns; i += LANES) {
            int64_t count = columns - i < LANES ? columns - i : LANES;
            vf value = load_up_to(0, c, r * ldc + i, count);
            vf gated = f.epilogue == SL_EPILOGUE_SILU_GATE ? load_up_to(0, up, r * ldc + i, count) : value;
            finish_lanes(&f, value, gated, row + r, column + i, count);
        }
    }
}

// --- attention ---

// One vector of queries. bf16 is a constant.
INLINE void softmax_vector(float *s, int64_t n, int64_t width, const int32_t *limit, float scale, float *max,
                           float *sum, float *correction, int bf16, char *panel)
{
    vf old = load(max), top = old, total = {0};
    vi last = {0};
    if (limit) {
        memcpy(&last, limit, sizeof last);
    }
    for (int64_t i = 0; i < n; i++) {
        vf x = load(s + i * width);
        if (limit) {
            x = pick((int32_t)i < last, x, splat(-1e30f));
            store(s + i * width, x);
        }
        top = MAX(top, x);
    }
    vf by = splat(scale * 1.44269504f), shift = -top * by;
    if (bf16) {
        for (int64_t i = 0; i < n; i += 2) {
            vf a = exp2_lanes(FMA(load(s + i * width), by, shift), 0), b = {0};
            if (i + 1 < n) {
                b = exp2_lanes(FMA(load(s + (i + 1) * width), by, shift), 0);
            }
            vu low = ((vu)a + 0x8000u) >> 16, high = ((vu)b + 0x8000u) & 0xffff0000u;
            store(panel + i / 2 * width * 4, (vf)(low | high));
            total += a + b;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            vf a = exp2_lanes(FMA(load(s + i * width), by, shift), 1);
            store(panel + i * width * 4, a);
            total += a;
        }
    }
    vf fix = exp2_lanes((old - top) * by, 1);
    store(correction, fix);
    store(sum, FMA(load(sum), fix, total));
    store(max, top);
}

KERNEL void softmax_panel(float *s, int64_t n, int vectors, const int32_t *limit, float scale, float *max, float *sum,
                          float *correction, int bf16, void *panel)
{
    for (int v = 0; v < vectors; v++) {
        int64_t at = (int64_t)v * LANES, width = (int64_t)vectors * LANES;
        const int32_t *last = limit ? limit + at : NULL;
        char *to = (char *)panel + at * 4;
        if (bf16) {
            softmax_vector(s + at, n, width, last, scale, max + at, sum + at, correction + at, 1, to);
        } else {
            softmax_vector(s + at, n, width, last, scale, max + at, sum + at, correction + at, 0, to);
        }
    }
}

KERNEL float maximum(const float *x, int64_t n)
{
    vf top = splat(x[0]);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        top = MAX(top, load(x + i));
    }
    float m = max_lanes(top);
    for (; i < n; i++) {
        m = x[i] > m ? x[i] : m;
    }
    return m;
}

KERNEL float softmax_row(float *s, int64_t n, float scale, float *max, float *sum)
{
    float old = *max, top = maximum(s, n);
    top = top > old ? top : old;
    vf total = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t count = n - i < LANES ? n - i : LANES;
        vf x = exp_lanes((load_up_to(0, s, i, count) - top) * scale);
        store_up_to(0, s, i, count, x);
        total += load_up_to(0, s, i, count);
    }
    float correction = expf((old - top) * scale);
    *max = top;
    *sum = *sum * correction + add_lanes(total);
    return correction;
}

KERNEL void scale_panel(float *c, int64_t n, int vectors, const float *by)
{
    for (int64_t i = 0; i < n; i++) {
        for (int v = 0; v < vectors; v++) {
            float *at = c + (i * vectors + v) * LANES;
            store(at, load(at) * load(by + v * LANES));
        }
    }
}

// Lanes [column, column + count) of the outputs; m is a constant.
INLINE void combine_lanes(int bf16, int64_t n, const char *const *v, const float *p, int64_t ldp, int m,
                          const float *correction, int64_t d, int64_t column, int64_t count, float *out)
{
    vf sum[CPU_DOTS];
    UNROLL
    for (int j = 0; j < m; j++) {
        sum[j] = load_up_to(0, out, j * d + column, count) * correction[j];
    }
    for (int64_t i = 0; i < n; i++) {
        vf row = load_up_to(bf16, v[i], column, count);
        UNROLL
        for (int j = 0; j < m; j++) {
            sum[j] = FMA(row, splat(p[j * ldp + i]), sum[j]);
        }
    }
    UNROLL
    for (int j = 0; j < m; j++) {
        store_up_to(0, out, j * d + column, count, sum[j]);
    }
}

KERNEL void combine(int bf16, int64_t n, const char *const *v, const float *p, int64_t ldp, int m,
                    const float *correction, int64_t d, float *out)
{
    for (int64_t column = 0; column < d; column += LANES) {
        int64_t count = d - column < LANES ? d - column : LANES;
        int j = 0;
        for (; j + 4 <= m; j += 4) {
            combine_lanes(bf16, n, v, p + j * ldp, ldp, 4, correction + j, d, column, count, out + j * d);
        }
        for (; j + 2 <= m; j += 2) {
            combine_lanes(bf16, n, v, p + j * ldp, ldp, 2, correction + j, d, column, count, out + j * d);
        }
        if (j < m) {
            combine_lanes(bf16, n, v, p + j * ldp, ldp, 1, correction + j, d, column, count, out + j * d);
        }
    }
}

KERNEL void pair_rows(int64_t n, const char *const *v, int64_t d, uint32_t *pairs)
{
    for (int64_t i = 0; i < n; i += 2) {
        for (int64_t column = 0; column < d; column += LANES) {
            int64_t count = d - column < LANES ? d - column : LANES;
            vu low = (vu)load_up_to(1, v[i], column, count) >> 16, high = {0};
            if (i + 1 < n) {
                high = (vu)load_up_to(1, v[i + 1], column, count);
            }
            store_up_to(0, pairs + i / 2 * d, column, count, (vf)(low | high));
        }
    }
}

// --- rows ---

INLINE float half_to_float(uint16_t h) // exact, subnormals and all
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, body = (uint32_t)(h & 0x7fff) << 13;
    float magnitude;
    if (body >= 0x0f800000u) { // infinity, NaN
        body |= 0x7f800000u;
        memcpy(&magnitude, &body, sizeof magnitude);
    } else {
        memcpy(&magnitude, &body, sizeof magnitude);
        magnitude *= 0x1p112f; // from f16's exponent bias to f32's
    }
    return sign ? -magnitude : magnitude;
}

KERNEL void to_f32(const void *from, enum sl_dtype type, int64_t n, float *to)
{
    if (type == SL_F16) {
        const uint16_t *h = from;
        for (int64_t i = 0; i < n; i++) {
            to[i] = half_to_float(h[i]);
        }
        return;
    }
    if (type == SL_F8E4M3) {
        const uint8_t *byte = from;
        for (int64_t i = 0; i < n; i++) {
            to[i] = sl_f8e4m3_to_f32(byte[i]);
        }
        return;
    }
    int bf16 = type == SL_BF16;
    for (int64_t i = 0; i < n; i += LANES) {
        store_up_to(0, to, i, n - i, load_up_to(bf16, from, i, n - i));
    }
}

KERNEL void from_f32(const float *from, int64_t n, int bf16, void *to)
{
    for (int64_t i = 0; i < n; i += LANES) {
        store_up_to(bf16, to, i, n - i, load_up_to(0, from, i, n - i));
    }
}

KERNEL void add_scaled(const float *x, float by, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i += LANES) {
        store_up_to(0, y, i, n - i, FMA(load_up_to(0, x, i, n - i), splat(by), load_up_to(0, y, i, n - i)));
    }
}

KERNEL void layernorm(const float *x, const float *weight, const float *bias, float eps, int64_t n, float *y)
{
    vf total = {0}, squares = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        total += load_up_to(0, x, i, n - i);
    }
    float mean = add_lanes(total) / (float)n;
    for (int64_t i = 0; i < n; i += LANES) {
        vf from_mean = load_up_to(0, x, i, n - i) - mean;
        if (n - i < LANES) { // the lanes beyond the row are at 0, not at the mean
            from_mean = load_up_to(0, &from_mean, 0, n - i);
        }
        squares = FMA(from_mean, from_mean, squares);
    }
    float scale = 1.0f / sqrtf(add_lanes(squares) / (float)n + eps);
    for (int64_t i = 0; i < n; i += LANES) {
        vf value = (load_up_to(0, x, i, n - i) - mean) * scale;
        store_up_to(0, y, i, n - i, FMA(value, load_up_to(0, weight, i, n - i), load_up_to(0, bias, i, n - i)));
    }
}

KERNEL void rmsnorm(const float *x, const float *weight, float eps, int64_t n, float *y)
{
    vf squares = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf value = load_up_to(0, x, i, n - i);
        squares = FMA(value, value, squares);
    }
    float scale = 1.0f / sqrtf(add_lanes(squares) / (float)n + eps);
    for (int64_t i = 0; i < n; i += LANES) {
        store_up_to(0, y, i, n - i, load_up_to(0, x, i, n - i) * scale * load_up_to(0, weight, i, n - i));
    }
}

KERNEL void rotate(float *x, const float *cosine, const float *sine, int64_t half)
{
    for (int64_t i = 0; i < half; i += LANES) {
        vf a = load_up_to(0, x, i, half - i), b = load_up_to(0, x + half, i, half - i);
        vf c = load_up_to(0, cosine, i, half - i), s = load_up_to(0, sine, i, half - i);
        store_up_to(0, x, i, half - i, a * c - b * s);
        store_up_to(0, x + half, i, half - i, FMA(b, c, a * s));
    }
}

KERNEL double sum_exp(const float *x, int64_t n, float minus)
{
    double sum = 0;
    for (int64_t block = 0; block < n; block += 1024) {
        int64_t end = n - block < 1024 ? n : block + 1024;
        vf total = {0};
        for (int64_t i = block; i < end; i += LANES) {
            vf e = exp_lanes(load_up_to(0, x, i, end - i) - minus);
            total += load_up_to(0, &e, 0, end - i);
        }
        sum += (double)add_lanes(total);
    }
    return sum;
}

const struct cpu_kernels KERNELS = {
    .name = NAME,
    .lanes = LANES,
    .vectors = TILE_VECTORS,
    .fast_bf16 = FAST_BF16,
    .pack = pack,
    .product = product,
    .dots = dots,
    .add_rows = add_rows,
    .finish_columns = finish_columns,
    .finish_rows = finish_rows,
    .softmax_panel = softmax_panel,
    .softmax_row = softmax_row,
    .scale_panel = scale_panel,
    .combine = combine,
    .pair_rows = pair_rows,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .add_scaled = add_scaled,
    .layernorm = layernorm,
    .rmsnorm = rmsnorm,
    .rotate = rotate,
    .sum_exp = sum_exp,
    .maximum = maximum,
};
