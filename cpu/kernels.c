// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

const struct cpu_kernels *cpu_kernels_at(int level)
{
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    int bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    switch (level) {
    case 1:
        return avx2 ? &cpu_kernels_avx2 : NULL;
    case 2:
        return avx512 ? &cpu_kernels_avx512 : NULL;
    case 3:
        return bf16 ? &cpu_kernels_avx512_bf16 : NULL;
    }
#endif
    return level == 0 ? &cpu_kernels_plain : NULL;
}

const struct cpu_kernels *cpu_kernels_best(void)
{
    int level = CPU_LEVELS - 1;
    while (!cpu_kernels_at(level)) {
        level--;
    }
    return cpu_kernels_at(level);
}
