// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KERNELS      cpu_kernels_avx2
#define NAME         "AVX2"
#define FAST_BF16    0
#define TARGET       __attribute__((target("avx2,fma")))
#define LANES        8
#define TILE_VECTORS 2
#define TILE_ROWS_1  10
#define TILE_ROWS_2  6
#define TILE_ROWS_3  4
#define TILE_ROWS_4  3
#define FMA(a, b, c) ((vf)_mm256_fmadd_ps(a, b, c))
#define MAX(a, b)    ((vf)_mm256_max_ps(a, b))
#define MIN(a, b)    ((vf)_mm256_min_ps(a, b))
#define DOT(c, a, b) FMA(high_halves(a), high_halves(b), FMA(low_halves(a), low_halves(b), c))

#include "cpu/kernels_body.h"
#endif
