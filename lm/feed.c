// SPDX-License-Identifier: Apache-2.0
#include "lm/feed.h"

#include <stdio.h>
#include <stdlib.h>

// What it takes to load one layer.
struct load {
    struct sl_device *device;
    struct sl_weights *weights;
    const struct sl_text_config *config;
    int layer;
    enum sl_dtype compute;
    struct sl_error *error;
};

struct name {
    char text[160];
};

static struct name name_of(const struct load *load, const char *part)
{
    struct name name;
    snprintf(name.text, sizeof name.text, "model.language_model.layers.%d.mlp.%s", load->layer, part);
    return name;
}

static struct name name_of_expert(const struct load *load, int expert, const char *part)
{
    char in_layer[64];
    snprintf(in_layer, sizeof in_layer, "experts.%d.%s.weight", expert, part);
    return name_of(load, in_layer);
}

static int matrix(const struct load *load, struct name name, int64_t out_size, int64_t in_size, struct sl_tensor *out)
{
    int64_t shape[2] = {out_size, in_size};
    return sl_weights_require(load->weights, name.text, 2, shape, out, load->error);
}

static int linear(const struct load *load, const struct sl_tensor *parts, int n, struct sl_linear **out)
{
    return load->device->ops->linear_create(load->device, parts, n, NULL, load->compute, out, load->error);
}

// ---- Dense

static int load_dense(const struct load *load, struct sl_feed *feed)
{
    int64_t hidden = load->config->hidden, inner = load->config->intermediate;
    struct sl_tensor gate_up[2], down;
    int rc = matrix(load, name_of(load, "gate_proj.weight"), inner, hidden, &gate_up[0]);
    if (!rc) {
        rc = matrix(load, name_of(load, "up_proj.weight"), inner, hidden, &gate_up[1]);
    }
    if (!rc) {
        rc = matrix(load, name_of(load, "down_proj.weight"), hidden, inner, &down);
    }
    if (!rc) {
        rc = linear(load, gate_up, 2, &feed->gate_up);
    }
    return rc ? rc : linear(load, &down, 1, &feed->down);
}

// ---- Sparse

static int create_experts(const struct load *load, enum sl_experts_layout layout, const struct sl_tensor *gate_up,
                          const struct sl_tensor *down, struct sl_feed *feed)
{
    struct sl_experts_source source = {.layout = layout,
                                       .experts = load->config->experts,
                                       .hidden = load->config->hidden,
                                       .intermediate = load->config->expert_intermediate,
                                       .gate_up = gate_up,
                                       .down = down};
    return load->device->ops->experts_create(load->device, &source, load->compute, &feed->experts, load->error);
}

static int require_separate(const struct load *load, struct sl_tensor *gate_up, struct sl_tensor *down)
{
    int64_t hidden = load->config->hidden, inner = load->config->expert_intermediate;
    int rc = SL_OK;
    for (int e = 0; e < load->config->experts && !rc; e++) {
        rc = matrix(load, name_of_expert(load, e, "gate_proj"), inner, hidden, &gate_up[2 * e]);
        if (!rc) {
            rc = matrix(load, name_of_expert(load, e, "up_proj"), inner, hidden, &gate_up[2 * e + 1]);
        }
        if (!rc) {
            rc = matrix(load, name_of_expert(load, e, "down_proj"), hidden, inner, &down[e]);
        }
    }
    return rc;
}

// Three matrices for each expert, as some write them who quantise or fine-tune.
static int load_separate(const struct load *load, struct sl_feed *feed)
{
    int count = load->config->experts;
    struct sl_tensor beyond, *tensors = calloc((size_t)count, 3 * sizeof *tensors);
    struct name name = name_of_expert(load, count, "gate_proj");
    if (!tensors) {
        return sl_fail(load->error, SL_ERR_MEMORY, "out of memory: experts");
    }
    int rc = SL_OK;
    if (sl_weights_find(load->weights, name.text, &beyond)) {
        rc = sl_fail(load->error, SL_ERR_MODEL_SHAPE, "tensor %s is one expert more than the %d of config.json",
                     name.text, count);
    }
    if (!rc) {
        rc = require_separate(load, tensors, tensors + 2 * count);
    }
    if (!rc) {
        rc = create_experts(load, SL_EXPERTS_SEPARATE, tensors, tensors + 2 * count, feed);
    }
    free(tensors);
    return rc;
}

static int has_sides(const struct sl_tensor *t, int64_t rows, int64_t columns)
{
    return t->rank == 3 && t->shape[1] == rows && t->shape[2] == columns;
}

// The shapes tell the layouts apart. One tensor's may look the same either way (2 intermediate = hidden, or
// intermediate = hidden), but never both tensors'. What fits neither layout is asked for as the published one.
static enum sl_experts_layout layout_of(const struct sl_text_config *config, const struct sl_tensor *gate_up,
                                        const struct sl_tensor *down)
{
    int64_t hidden = config->hidden, inner = config->expert_intermediate;
    return has_sides(gate_up, 2 * inner, hidden) && has_sides(down, hidden, inner) ? SL_EXPERTS_OUTPUT_MAJOR
                                                                                   : SL_EXPERTS_INPUT_MAJOR;
}

// One tensor for all experts' gate and up, one for down.
static int load_fused(const struct load *load, struct sl_feed *feed)
{
    const struct sl_text_config *c = load->config;
    struct name gate_up_name = name_of(load, "experts.gate_up_proj"), down_name = name_of(load, "experts.down_proj");
    struct sl_tensor gate_up, down;
    enum sl_experts_layout layout = SL_EXPERTS_INPUT_MAJOR; // of random weights
    if (sl_weights_find(load->weights, gate_up_name.text, &gate_up) &&
        sl_weights_find(load->weights, down_name.text, &down)) {
        layout = layout_of(c, &gate_up, &down);
        if (gate_up.shape[0] != c->experts || down.shape[0] != c->experts) {
            return sl_fail(load->error, SL_ERR_MODEL_SHAPE,
                           "tensors %s and down_proj hold %lld and %lld experts, config.json says %d",
                           gate_up_name.text, (long long)gate_up.shape[0], (long long)down.shape[0], c->experts);
        }
    }
    int64_t hidden = c->hidden, inner = c->expert_intermediate;
    int turned = layout == SL_EXPERTS_OUTPUT_MAJOR;
    int64_t gate_up_shape[3] = {c->experts, turned ? 2 * inner : hidden, turned ? hidden : 2 * inner};
    int64_t down_shape[3] = {c->experts, turned ? hidden : inner, turned ? inner : hidden};
    int rc = sl_weights_require(load->weights, gate_up_name.text, 3, gate_up_shape, &gate_up, load->error);
    if (!rc) {
        rc = sl_weights_require(load->weights, down_name.text, 3, down_shape, &down, load->error);
    }
    return rc ? rc : create_experts(load, layout, &gate_up, &down, feed);
}

static int load_sparse(const struct load *load, struct sl_feed *feed)
{
    struct sl_tensor first, router;
    int separate = sl_weights_find(load->weights, name_of_expert(load, 0, "gate_proj").text, &first);
    int rc = separate ? load_separate(load, feed) : load_fused(load, feed);
    if (!rc) {
        rc = matrix(load, name_of(load, "gate.weight"), load->config->experts, load->config->hidden, &router);
    }
    return rc ? rc : linear(load, &router, 1, &feed->router);
}

// ---- Life

int sl_feed_create(struct sl_device *device, struct sl_weights *weights, const struct sl_text_config *config, int layer,
                   enum sl_dtype compute, struct sl_feed *out, struct sl_error *error)
{
    struct load load = {device, weights, config, layer, compute, error};
    return config->sparse[layer] ? load_sparse(&load, out) : load_dense(&load, out);
}

void sl_feed_destroy(struct sl_device *device, struct sl_feed *feed)
{
    device->ops->linear_destroy(feed->gate_up);
    device->ops->linear_destroy(feed->down);
    device->ops->linear_destroy(feed->router);
    if (feed->experts) {
        device->ops->experts_destroy(feed->experts);
    }
}

int sl_feed_room_create(struct sl_device *device, const struct sl_text_config *config, enum sl_dtype compute,
                        const struct sl_tensor *normed, struct sl_feed_room *out, struct sl_error *error)
{
    int64_t rows = normed->shape[0];
    *out = (struct sl_feed_room){.ops = device->ops,
                                 .eps = config->rms_eps,
                                 .normalise = config->normalise_routing,
                                 .normed = *normed,
                                 .mlp = sl_tensor_2d(NULL, compute, rows, config->intermediate),
                                 .logits = sl_tensor_2d(NULL, SL_F32, rows, config->experts),
                                 .expert = sl_tensor_2d(NULL, SL_I32, rows, config->experts_per_token),
                                 .weight = sl_tensor_2d(NULL, SL_F32, rows, config->experts_per_token)};
    struct sl_tensor *tensors[] = {&out->mlp, &out->logits, &out->expert, &out->weight};
    int rc = SL_OK;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors && !rc; i++) {
        if (tensors[i]->shape[1] > 0) { // a model may have only layers of the other kind
            rc = device->ops->alloc(device, sl_tensor_bytes(tensors[i]), &tensors[i]->data, error);
        }
    }
    return rc;
}

void sl_feed_room_destroy(struct sl_device *device, struct sl_feed_room *room)
{
    void *memory[] = {room->mlp.data, room->logits.data, room->expert.data, room->weight.data};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        device->ops->release(device, memory[i]);
    }
}

// ---- A step

void sl_feed_run(const struct sl_feed_room *room, struct sl_stream *stream, const struct sl_feed *feed,
                 const struct sl_tensor *norm, const struct sl_tensor *hidden)
{
    int64_t rows = hidden->shape[0];
    struct sl_tensor normed = sl_tensor_rows(&room->normed, 0, rows);
    if (!feed->experts) {
        struct sl_tensor mlp = sl_tensor_rows(&room->mlp, 0, rows);
        room->ops->rmsnorm_linear(stream, hidden, norm, room->eps, &normed, feed->gate_up, SL_EPILOGUE_SILU_GATE, &mlp);
        room->ops->linear(stream, feed->down, &mlp, SL_EPILOGUE_NONE, hidden, hidden);
        return;
    }
    struct sl_experts_room routing = {.normed = normed,
                                      .logits = sl_tensor_rows(&room->logits, 0, rows),
                                      .expert = sl_tensor_rows(&room->expert, 0, rows),
                                      .weight = sl_tensor_rows(&room->weight, 0, rows)};
    room->ops->rmsnorm_experts(stream, norm, room->eps, feed->router, room->normalise, feed->experts, &routing, hidden);
}
