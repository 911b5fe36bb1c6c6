// SPDX-License-Identifier: Apache-2.0
// Plain C loops compiled once for every generation of x86 vectors; the loader picks at start. Elsewhere: as they are.
#ifndef SL_CPU_SIMD_H
#define SL_CPU_SIMD_H

#if defined(__x86_64__) && defined(__gnu_linux__)
#define CPU_SIMD __attribute__((target_clones("avx2", "default")))
#else
#define CPU_SIMD
#endif

#endif
