// SPDX-License-Identifier: Apache-2.0
// For any processor: vectors of four, which every compiler can spell out in what it has.
#include "cpu/kernels.h"

#define KERNELS   cpu_kernels_plain
#define NAME      "plain C"
#define FAST_BF16 0
#define TARGET
#define LANES        4
#define TILE_VECTORS 2
#define TILE_ROWS_1  6
#define TILE_ROWS_2  4
#define TILE_ROWS_3  4
#define TILE_ROWS_4  2
#define FMA(a, b, c) ((a) * (b) + (c))
#define MAX(a, b)    larger(a, b)
#define MIN(a, b)    smaller(a, b)
#define DOT(c, a, b) ((c) + low_halves(a) * low_halves(b) + high_halves(a) * high_halves(b))

typedef float four __attribute__((vector_size(16)));
typedef int32_t four_bits __attribute__((vector_size(16)));

static inline four larger(four a, four b)
{
    four_bits greater = a > b;
    return (four)((greater & (four_bits)a) | (~greater & (four_bits)b));
}

static inline four smaller(four a, four b)
{
    return -larger(-a, -b);
}

#include "cpu/kernels_body.h"
