// SPDX-License-Identifier: Apache-2.0
// What the operations of cpu/ share: the device, its streams, their scratch memory and their sticky error.
//
// Every operation begins with `cpu_begin` and ends with `cpu_end`: between them it has the device's threads for itself
// and may use its stream's scratch. Loops go through `cpu_loop`, with the threads that `cpu_threads` finds worth it.
#ifndef SL_CPU_INTERNAL_H
#define SL_CPU_INTERNAL_H

#include <pthread.h>
#include <stddef.h>

#include "core/device.h"
#include "cpu/pool.h"

struct cpu_kernels;
struct cpu_onednn;
struct cpu_pool;

// A weight that was converted. A view does not say whether its memory is ours or the mapped file's; this list does.
struct cpu_owned {
    struct cpu_owned *next;
    void *data;
};

// First come, first served: a plain mutex would let a thread with one operation after another shut out the others.
struct cpu_turn {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t next, now; // the ticket to be drawn next, the one whose turn it is
};

struct cpu_device {
    struct sl_device base;
    int threads;
    const struct cpu_kernels *kernels; // chosen for this processor
    struct cpu_onednn *onednn;         // NULL: products by our own kernels
    struct cpu_pool *pool;             // its threads
    struct cpu_turn turn;              // held from cpu_begin to cpu_end
    struct cpu_owned *owned;           // guarded by turn
};

// Buffers of a stream that may be in use at the same time.
enum cpu_slot { CPU_SLOT_A, CPU_SLOT_B, CPU_SLOT_C, CPU_SLOT_D, CPU_SLOT_EXPERTS, CPU_SLOT_ROPE, CPU_SLOTS };

struct sl_stream {
    struct cpu_device *device;
    struct sl_error error; // the first failure; status SL_OK as long as there is none
    void *scratch[CPU_SLOTS];
    int64_t scratch_bytes[CPU_SLOTS];
    int64_t rope_rows, rope_half; // the table that CPU_SLOT_ROPE holds, 0: none; see rope.c
};

void cpu_turn_take(struct cpu_device *device);
void cpu_turn_give(struct cpu_device *device);

// Waits for the device's turn. 0, and no turn taken, when the stream has failed before: the operation does nothing.
int cpu_begin(struct sl_stream *stream);
void cpu_end(struct sl_stream *stream);

// Marks the stream as failed, unless it is already. Between cpu_begin and cpu_end, from one thread.
void cpu_fail(struct sl_stream *stream, enum sl_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The stream's buffer `slot`, at least that long, 64-byte aligned; contents are lost when it grows. NULL, and the
// stream marked, when there is no memory.
void *cpu_scratch(struct sl_stream *stream, enum cpu_slot slot, int64_t size_bytes);

// Threads for a loop of `work` elementary steps (about a nanosecond each): 1 when a team would cost more than it
// brings.
int cpu_threads(const struct sl_stream *stream, int64_t work);

// task(job, i, worker) for every i in [0, count) on that many of the device's threads. Between cpu_begin and cpu_end.
void cpu_loop(struct sl_stream *stream, int threads, int64_t count, cpu_task *task, void *job);

#endif
