// SPDX-License-Identifier: Apache-2.0
// Boxes of a matrix (boxes.h) to shared memory (PTX ISA, "cp.async.bulk.tensor"). One thread asks; a barrier of
// barrier.cuh counts the bytes: its phase ends when all have arrived that were announced, and all who must arrive have.
#ifndef SL_CUDA_BOXES_CUH
#define SL_CUDA_BOXES_CUH

#include "cuda/barrier.cuh"
#include "cuda/boxes.h"

// Arrives, and announces bytes of this phase.
static __device__ __forceinline__ void barrier_expect(uint64_t *barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// After barrier_create, by the thread that called it: copies may count on the barriers.
static __device__ __forceinline__ void publish_barriers(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The box whose first element is this one, to a multiple of 1024 bytes.
static __device__ __forceinline__ void bring_box(void *to, const CUtensorMap *boxes, int column, int row,
                                                 uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
                 "[%4];" ::"r"(shared_address(to)),
                 "l"(boxes), "r"(column), "r"(row), "r"(shared_address(barrier))
                 : "memory");
}

// Likewise to the same address in every block of the cluster that has a bit in `blocks`, each one's barrier counting
// what arrives there.
static __device__ __forceinline__ void bring_box_to(int blocks, void *to, const CUtensorMap *boxes, int column, int row,
                                                    uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
                 "[%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
                 "l"(boxes), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"((uint16_t)blocks)
                 : "memory");
}

// Asks for the description itself.
static __device__ __forceinline__ void prepare_boxes(const CUtensorMap *boxes)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(boxes) : "memory");
}

#endif
