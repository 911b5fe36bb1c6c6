// SPDX-License-Identifier: Apache-2.0
// Blocks of one cluster, which run at the same time and reach each other's shared memory (PTX ISA, "barrier.cluster",
// "mapa").
#ifndef SL_CUDA_CLUSTER_CUH
#define SL_CUDA_CLUSTER_CUH

#include "cuda/barrier.cuh"

// This block's number in its cluster.
static __device__ __forceinline__ int cluster_rank(void)
{
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Of all threads of the cluster's blocks.
static __device__ __forceinline__ void cluster_meet(void)
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// What stands at this place of shared memory in the block of this rank.
template <typename T> static __device__ __forceinline__ T *place_in(T *here, int rank)
{
    return (T *)__cluster_map_shared_rank((void *)here, (unsigned)rank);
}

// After barrier_create, by the thread that called it, before cluster_meet: other blocks may use the barriers.
static __device__ __forceinline__ void publish_barriers_to_cluster(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// At the barrier that stands at this one's address in the block of this rank. It orders what the others overwrite
// behind products that were waited for, which needs no more than its default scope; that of the cluster made prefill of
// 30B-A3B a fourth slower.
static __device__ __forceinline__ void barrier_arrive_in(uint64_t *barrier, int rank)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(shared_address(barrier)),
                 "r"(rank)
                 : "memory");
}

#endif
