// SPDX-License-Identifier: Apache-2.0
#include "cuda/experts.h"

#include <stdlib.h>

#include "cuda/ops.h"
#include "cuda/weights.h"

enum { MOST_ROWS = 16384 }; // at once: more would need too much scratch

// --- weights ---

// `n` tensors one behind the other.
static int load(struct sl_experts *x, const struct sl_tensor *from, int n, int turned, void *to, struct sl_error *error)
{
    int status = SL_OK;
    char *at = to;
    for (int i = 0; i < n && status == SL_OK; i++) {
        status = cuda_weights_load(x->device, &from[i], x->compute, turned, at, error);
        at += sl_tensor_elements(&from[i]) * sl_dtype_bytes(x->compute);
    }
    return status;
}

int cuda_experts_create(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                        struct sl_experts **out, struct sl_error *error)
{
    struct sl_experts *x = calloc(1, sizeof *x);
    *out = NULL;
    if (x == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: experts");
    }
    *x = (struct sl_experts){.device = (struct cuda_device *)device,
                             .compute = compute,
                             .count = source->experts,
                             .hidden = source->hidden,
                             .intermediate = source->intermediate};
    int64_t size = (int64_t)x->count * x->hidden * x->intermediate * sl_dtype_bytes(compute);
    int separate = source->layout == SL_EXPERTS_SEPARATE, turned = source->layout == SL_EXPERTS_INPUT_MAJOR;
    int status = device->ops->alloc(device, 2 * size, &x->gate_up, error);
    status = status == SL_OK ? device->ops->alloc(device, size, &x->down, error) : status;
    status =
        status == SL_OK ? load(x, source->gate_up, separate ? 2 * x->count : 1, turned, x->gate_up, error) : status;
    status = status == SL_OK ? load(x, source->down, separate ? x->count : 1, turned, x->down, error) : status;
    if (status != SL_OK) {
        cuda_experts_destroy(x);
        return status;
    }
    *out = x;
    return SL_OK;
}

void cuda_experts_destroy(struct sl_experts *experts)
{
    if (experts != NULL) {
        struct sl_device *device = &experts->device->base;
        device->ops->release(device, experts->gate_up);
        device->ops->release(device, experts->down);
        free(experts);
    }
}

// --- the operation ---

static int in_words(const struct experts_job *job)
{
    return job->experts->compute == SL_BF16 && job->experts->hidden % 8 == 0 && job->experts->intermediate % 8 == 0 &&
           job->x->stride[0] % 8 == 0 && (uintptr_t)job->x->data % 16 == 0;
}

static int make_room(struct sl_stream *stream, struct experts_job *job)
{
    int64_t pairs = (int64_t)job->rows * job->top_k, size = sl_dtype_bytes(job->experts->compute);
    job->order.pairs = (int)pairs;
    job->order.tile_rows = cuda_experts_few_takes(job) ? CUDA_EXPERTS_FEW_ROWS : CUDA_EXPERTS_MANY_ROWS;
    void *room = cuda_scratch(stream, CUDA_SLOT_A, cuda_experts_order_bytes(job));
    job->inner = cuda_scratch(stream, CUDA_SLOT_B, pairs * job->experts->intermediate * size);
    job->out = cuda_scratch(stream, CUDA_SLOT_C, pairs * job->experts->hidden * size);
    if (room != NULL) {
        cuda_experts_order_place(job, room);
    }
    return room != NULL && job->inner != NULL && job->out != NULL;
}

static void run(struct sl_stream *stream, struct experts_job *job)
{
    if (!make_room(stream, job)) {
        return;
    }
    if (!in_words(job)) {
        cuda_experts_any(stream, job);
    } else if (cuda_experts_few_takes(job)) {
        cuda_experts_few(stream, job);
    } else {
        cuda_experts_many(stream, job);
    }
    cuda_experts_mix(stream, job);
    cuda_launched(stream, "a mixture of experts");
}

static int fits(const struct sl_experts *experts, const struct sl_tensor *x, const struct sl_tensor *expert,
                const struct sl_tensor *weight, const struct sl_tensor *y)
{
    int64_t rows = x->shape[0], top_k = expert->shape[1];
    return experts->count <= SL_MAX_EXPERTS && top_k >= 1 && top_k <= SL_MAX_TOP_K && top_k <= experts->count &&
           x->dtype == experts->compute && x->shape[1] == experts->hidden && y->shape[0] == rows &&
           y->shape[1] == experts->hidden && expert->shape[0] == rows && weight->shape[0] == rows &&
           weight->shape[1] == top_k;
}

void cuda_experts(struct sl_stream *stream, const struct sl_experts *experts, const struct sl_tensor *x,
                  const struct sl_tensor *expert, const struct sl_tensor *weight, const struct sl_tensor *y)
{
    if (x->shape[0] == 0 || !cuda_begin(stream)) {
        return;
    }
    if (!fits(experts, x, expert, weight, y)) {
        cuda_fail(stream, SL_ERR_INTERNAL, "experts: shapes do not fit together");
        return;
    }
    for (int64_t first = 0; first < x->shape[0]; first += MOST_ROWS) {
        int64_t rows = x->shape[0] - first < MOST_ROWS ? x->shape[0] - first : MOST_ROWS;
        struct sl_tensor part[4] = {sl_tensor_rows(x, first, rows), sl_tensor_rows(expert, first, rows),
                                    sl_tensor_rows(weight, first, rows), sl_tensor_rows(y, first, rows)};
        struct experts_job job = {.experts = experts,
                                  .x = &part[0],
                                  .expert = &part[1],
                                  .weight = &part[2],
                                  .y = &part[3],
                                  .rows = (int)rows,
                                  .top_k = (int)expert->shape[1]};
        run(stream, &job);
    }
}

void cuda_rmsnorm_experts(struct sl_stream *stream, const struct sl_tensor *norm, float eps,
                          const struct sl_linear *router, int normalise, const struct sl_experts *experts,
                          const struct sl_experts_room *room, const struct sl_tensor *y)
{
    struct experts_one one = {
        .norm = norm, .y = y, .eps = eps, .normalise = normalise, .router = router, .experts = experts, .room = room};
    if (cuda_experts_one_takes(&one) && cuda_begin(stream)) {
        cuda_experts_one(stream, &one);
        return;
    }
    cuda_rmsnorm(stream, y, norm, eps, &room->normed); // by itself: the experts want its result too
    cuda_linear(stream, router, &room->normed, SL_EPILOGUE_NONE, NULL, &room->logits);
    cuda_route(stream, &room->logits, normalise, &room->expert, &room->weight);
    cuda_experts(stream, experts, &room->normed, &room->expert, &room->weight, y);
}
