// SPDX-License-Identifier: Apache-2.0
// Plain C loops compiled twice, for any x86 and for AVX2, and chosen at each call (of a whole row, so that costs
// nothing). Not by the loader: its way (ifunc) does not bear sanitizers.
//
//     CPU_BODY void f_body(int n, float *x) { ... }
//     CPU_SIMD(f, (int n, float *x), (n, x))
//
// defines the static function f.
#ifndef SL_CPU_SIMD_H
#define SL_CPU_SIMD_H

#define CPU_BODY static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define CPU_SIMD(name, parameters, arguments)                                                                          \
    __attribute__((target("avx2"))) static void name##_avx2 parameters                                                 \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }                                                                                                                  \
    static void name parameters                                                                                        \
    {                                                                                                                  \
        if (__builtin_cpu_supports("avx2")) {                                                                          \
            name##_avx2 arguments;                                                                                     \
        } else {                                                                                                       \
            name##_body arguments;                                                                                     \
        }                                                                                                              \
    }
#else
#define CPU_SIMD(name, parameters, arguments)                                                                          \
    static void name parameters                                                                                        \
    {                                                                                                                  \
        name##_body arguments;                                                                                         \
    }
#endif

#endif
