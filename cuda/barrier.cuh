// SPDX-License-Identifier: Apache-2.0
// Barriers in shared memory between those who fill a tile and those who read it (PTX ISA, "mbarrier"). Each phase ends
// when as many have arrived as it was created for; phases are told apart by their parity, the first one's is 0.
#ifndef SL_CUDA_BARRIER_CUH
#define SL_CUDA_BARRIER_CUH

#include "cuda/tensor.cuh"

// By one thread, before a __syncthreads.
static __device__ __forceinline__ void barrier_create(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives for this thread as soon as all copies that it has begun are done; does not wait for them.
static __device__ __forceinline__ void barrier_arrive_with_copies(uint64_t *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Until the phase of this parity is over. The phase before the first counts as over.
static __device__ __forceinline__ void barrier_wait(uint64_t *barrier, int parity)
{
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 over, [%0], %1;\n"
                 "@!over bra again;\n}\n" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// Of the phase in which stage `use` % STAGES of a ring is used for the `use`-th time in all.
template <int STAGES> static __device__ __forceinline__ int parity_of(uint32_t use)
{
    return (int)(use / STAGES % 2);
}

// Of the `count` threads that call it, whole warps; `number` is 1 to 15.
static __device__ __forceinline__ void meet(int number, int count)
{
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(count) : "memory");
}

// Counts this thread's warp among those of a meeting, and goes on.
static __device__ __forceinline__ void announce(int number, int count)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(count) : "memory");
}

// How many registers a thread of this warpgroup has from here on; all of the block together no more than it began with.
template <int N> static __device__ __forceinline__ void give_registers_up(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void take_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

#endif
