// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KERNELS      cpu_kernels_avx512_bf16
#define NAME         "AVX-512 with bf16"
#define FAST_BF16    1
#define TARGET       __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
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
#define DOT(c, a, b) ((vf)_mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b)))

#include "cpu/kernels_body.h"
#endif
