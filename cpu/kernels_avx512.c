// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KERNELS      cpu_kernels_avx512
#define NAME         "AVX-512"
#define FAST_BF16    0
#define TARGET       __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define LANES        16
#define TILE_VECTORS 4
#define TILE_ROWS_1  12
#define TILE_ROWS_2  12
#define TILE_ROWS_3  8
#define TILE_ROWS_4  6
#define FMA(a, b, c) ((vf)_mm512_fmadd_ps(a, b, c))
#define MAX(a, b)    ((vf)_mm512_max_ps(a, b))
#define MIN(a, b)    ((vf)_mm512_min_ps(a, b))
#define ROUND(x)     ((vf)_mm512_roundscale_ps(x, 0x08))
#define SCALE(x, n)  ((vf)_mm512_scalef_ps(x, n))
#define DOT(c, a, b) FMA(high_halves(a), high_halves(b), FMA(low_halves(a), low_halves(b), c))

#include "cpu/kernels_body.h"
#endif
