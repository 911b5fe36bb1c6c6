// SPDX-License-Identifier: Apache-2.0
// The Qwen3-VL vision tower: patch embedding, position embedding, blocks of attention and MLP, merger, DeepStack taps
// (reference: transformers, models/qwen3_vl). Letters in shapes: C hidden, I intermediate, O out_hidden, U = merge^2,
// the patches of one token. A [rows, C] buffer in merge order is also [rows / U, U * C]: merging is a view.
#include "vision/vision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vision/grid.h"

static const float norm_eps = 1e-6f; // from the reference's source; no config file states it

struct norm {
    struct sl_tensor weight, bias;
};

struct block {
    struct norm norm1, norm2;
    struct sl_linear *qkv, *proj, *fc1, *fc2;
};

struct merger {
    struct norm norm;
    struct sl_linear *fc1, *fc2;
};

struct table {
    void *host, *device;
};

// What depends on the grid of patches alone: on the host as it is computed, on the device as it is used.
struct grid_tables {
    int grid_h, grid_w;
    struct table position;    // [rows, 2] i32
    struct table corner;      // [rows, 4] i32
    struct table weight;      // [rows, 4] f32
    struct table group_start; // [groups + 1] i32
};

struct sl_vision {
    struct sl_device *device;
    struct sl_vision_config config;
    enum sl_dtype compute;
    int64_t max_patches;

    struct sl_linear *patch_embed;
    struct sl_tensor position_table; // [position_side^2, C]
    struct block *blocks;            // [depth]
    struct merger merger, deepstack[SL_MAX_DEEPSTACK];

    // Buffers on the device, of max_patches rows.
    void *x;      // [rows, C] the residual stream
    void *normed; // [rows, C] what a linear reads; attention's output
    void *wide;   // [rows, max(3C, I)] qkv, or the middle of an MLP or merger
    struct grid_tables grid;
};

// --- loading: the checkpoint's names and shapes ---

struct loader {
    struct sl_vision *vision;
    struct sl_weights *weights;
    char prefix[64]; // of the names, with its dot
    int status;      // the first failure; later steps do nothing
    struct sl_error *error;
};

// model.visual.<prefix><name>; 1 when it is there.
static int require(struct loader *load, const char *name, int rank, const int64_t *shape, struct sl_tensor *out)
{
    char full[160];
    snprintf(full, sizeof full, "model.visual.%s%s", load->prefix, name);
    if (load->status == SL_OK) {
        load->status = sl_weights_require(load->weights, full, rank, shape, out, load->error);
    }
    return load->status == SL_OK;
}

// <name>.weight, seen as [out, in] whatever its rank in the file, and <name>.bias.
static void load_linear(struct loader *load, const char *name, int rank, const int64_t *shape, struct sl_linear **out)
{
    char weight_name[64], bias_name[64];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    snprintf(bias_name, sizeof bias_name, "%s.bias", name);
    struct sl_tensor weight, bias;
    if (!require(load, weight_name, rank, shape, &weight) || !require(load, bias_name, 1, shape, &bias)) {
        return;
    }
    struct sl_device *device = load->vision->device;
    const struct sl_tensor *scale = weight.scale;
    weight = sl_tensor_2d(weight.data, weight.dtype, shape[0], sl_tensor_elements(&weight) / shape[0]);
    weight.scale = scale;
    load->status = device->ops->linear_create(device, &weight, 1, &bias, load->vision->compute, out, load->error);
}

static void load_matrix(struct loader *load, const char *name, int64_t out_columns, int64_t in_columns,
                        struct sl_linear **out)
{
    load_linear(load, name, 2, (int64_t[]){out_columns, in_columns}, out);
}

static void load_table(struct loader *load, const char *name, int rank, const int64_t *shape, struct sl_tensor *out)
{
    struct sl_device *device = load->vision->device;
    struct sl_tensor host;
    if (require(load, name, rank, shape, &host)) {
        load->status = device->ops->weight_create(device, &host, load->vision->compute, out, load->error);
    }
}

static void load_norm(struct loader *load, const char *name, int64_t columns, struct norm *norm)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    load_table(load, full, 1, &columns, &norm->weight);
    snprintf(full, sizeof full, "%s.bias", name);
    load_table(load, full, 1, &columns, &norm->bias);
}

static void load_block(struct loader *load, int index, struct block *block)
{
    const struct sl_vision_config *c = &load->vision->config;
    snprintf(load->prefix, sizeof load->prefix, "blocks.%d.", index);
    load_norm(load, "norm1", c->hidden, &block->norm1);
    load_norm(load, "norm2", c->hidden, &block->norm2);
    load_matrix(load, "attn.qkv", 3 * (int64_t)c->hidden, c->hidden, &block->qkv);
    load_matrix(load, "attn.proj", c->hidden, c->hidden, &block->proj);
    load_matrix(load, "mlp.linear_fc1", c->intermediate, c->hidden, &block->fc1);
    load_matrix(load, "mlp.linear_fc2", c->hidden, c->intermediate, &block->fc2);
}

static int64_t merged_columns(const struct sl_vision_config *c)
{
    return (int64_t)c->merge * c->merge * c->hidden;
}

static void load_merger(struct loader *load, int64_t norm_columns, struct merger *merger)
{
    const struct sl_vision_config *c = &load->vision->config;
    load_norm(load, "norm", norm_columns, &merger->norm);
    load_matrix(load, "linear_fc1", merged_columns(c), merged_columns(c), &merger->fc1);
    load_matrix(load, "linear_fc2", c->out_hidden, merged_columns(c), &merger->fc2);
}

static int load_all(struct sl_vision *vision, struct sl_weights *weights, struct sl_error *error)
{
    const struct sl_vision_config *c = &vision->config;
    struct loader load = {.vision = vision, .weights = weights, .error = error};
    load_linear(&load, "patch_embed.proj", 5,
                (int64_t[]){c->hidden, c->channels, c->temporal_patch, c->patch, c->patch}, &vision->patch_embed);
    load_table(&load, "pos_embed.weight", 2, (int64_t[]){(int64_t)c->position_side * c->position_side, c->hidden},
               &vision->position_table);
    for (int i = 0; i < c->depth; i++) {
        load_block(&load, i, &vision->blocks[i]);
    }
    snprintf(load.prefix, sizeof load.prefix, "merger.");
    load_merger(&load, c->hidden, &vision->merger);
    for (int i = 0; i < c->deepstack_count; i++) {
        snprintf(load.prefix, sizeof load.prefix, "deepstack_merger_list.%d.", i);
        load_merger(&load, merged_columns(c), &vision->deepstack[i]);
    }
    return load.status;
}

// --- life ---

static int alloc_activations(struct sl_vision *v, struct sl_error *error)
{
    const struct sl_vision_config *c = &v->config;
    int64_t bytes = sl_dtype_bytes(v->compute) * v->max_patches;
    int64_t wide = 3 * (int64_t)c->hidden > c->intermediate ? 3 * (int64_t)c->hidden : c->intermediate;
    int status = v->device->ops->alloc(v->device, bytes * c->hidden, &v->x, error);
    status = status ? status : v->device->ops->alloc(v->device, bytes * c->hidden, &v->normed, error);
    return status ? status : v->device->ops->alloc(v->device, bytes * wide, &v->wide, error);
}

static int alloc_table(struct sl_vision *v, int64_t elements, struct table *table, struct sl_error *error)
{
    int64_t bytes = elements * (int64_t)sizeof(int32_t);
    table->host = malloc((size_t)bytes);
    if (table->host == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: the vision tower's tables");
    }
    return v->device->ops->alloc(v->device, bytes, &table->device, error);
}

static int alloc_grid(struct sl_vision *v, struct sl_error *error)
{
    int status = alloc_table(v, v->max_patches * 2, &v->grid.position, error);
    status = status ? status : alloc_table(v, v->max_patches * 4, &v->grid.corner, error);
    status = status ? status : alloc_table(v, v->max_patches * 4, &v->grid.weight, error);
    return status ? status : alloc_table(v, v->max_patches + 1, &v->grid.group_start, error);
}

static void release_table(struct sl_device *device, struct table *table)
{
    free(table->host);
    device->ops->release(device, table->device);
}

int sl_vision_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                     enum sl_dtype compute, int64_t max_patches, struct sl_vision **out, struct sl_error *error)
{
    struct sl_vision *vision = calloc(1, sizeof *vision);
    struct block *blocks = calloc((size_t)config->vision.depth, sizeof *blocks);
    if (vision == NULL || (blocks == NULL && config->vision.depth > 0)) {
        free(vision);
        free(blocks);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: the vision tower");
    }
    vision->device = device;
    vision->config = config->vision;
    vision->compute = compute;
    vision->max_patches = max_patches;
    vision->blocks = blocks;
    int status = load_all(vision, weights, error);
    status = status ? status : alloc_activations(vision, error);
    status = status ? status : alloc_grid(vision, error);
    if (status != SL_OK) {
        sl_vision_destroy(vision);
        return status;
    }
    *out = vision;
    return SL_OK;
}

static void release_norm(struct sl_device *device, struct norm *norm)
{
    device->ops->weight_release(device, &norm->weight);
    device->ops->weight_release(device, &norm->bias);
}

static void release_merger(struct sl_device *device, struct merger *merger)
{
    release_norm(device, &merger->norm);
    device->ops->linear_destroy(merger->fc1);
    device->ops->linear_destroy(merger->fc2);
}

static void release_block(struct sl_device *device, struct block *block)
{
    release_norm(device, &block->norm1);
    release_norm(device, &block->norm2);
    device->ops->linear_destroy(block->qkv);
    device->ops->linear_destroy(block->proj);
    device->ops->linear_destroy(block->fc1);
    device->ops->linear_destroy(block->fc2);
}

void sl_vision_destroy(struct sl_vision *vision)
{
    if (vision == NULL) {
        return;
    }
    struct sl_device *device = vision->device;
    device->ops->linear_destroy(vision->patch_embed);
    device->ops->weight_release(device, &vision->position_table);
    for (int i = 0; i < vision->config.depth; i++) {
        release_block(device, &vision->blocks[i]);
    }
    release_merger(device, &vision->merger);
    for (int i = 0; i < vision->config.deepstack_count; i++) {
        release_merger(device, &vision->deepstack[i]);
    }
    device->ops->release(device, vision->x);
    device->ops->release(device, vision->normed);
    device->ops->release(device, vision->wide);
    release_table(device, &vision->grid.position);
    release_table(device, &vision->grid.corner);
    release_table(device, &vision->grid.weight);
    release_table(device, &vision->grid.group_start);
    free(vision->blocks);
    free(vision);
}

// --- grid ---

static void upload_table(struct sl_vision *vision, struct sl_stream *stream, const struct table *table,
                         int64_t elements)
{
    vision->device->ops->upload(stream, table->device, table->host, elements * (int64_t)sizeof(int32_t));
}

// Tables of the grid for as many groups as fit; kept until the grid changes, since all frames of a video share it.
static void set_grid(struct sl_vision *vision, struct sl_stream *stream, int grid_h, int grid_w)
{
    struct grid_tables *grid = &vision->grid;
    if (grid->grid_h == grid_h && grid->grid_w == grid_w) {
        return;
    }
    int64_t rows = (int64_t)grid_h * grid_w, groups = vision->max_patches / rows, all = rows * groups;
    int32_t *position = grid->position.host, *corner = grid->corner.host, *group_start = grid->group_start.host;
    float *weight = grid->weight.host;
    for (int64_t i = 0; i < all; i++) {
        struct sl_grid_row row =
            sl_grid_row(grid_h, grid_w, vision->config.merge, vision->config.position_side, i % rows);
        memcpy(position + 2 * i, row.position, sizeof row.position);
        memcpy(corner + 4 * i, row.corner, sizeof row.corner);
        memcpy(weight + 4 * i, row.weight, sizeof row.weight);
    }
    for (int64_t g = 0; g <= groups; g++) {
        group_start[g] = (int32_t)(g * rows);
    }
    upload_table(vision, stream, &grid->position, 2 * all);
    upload_table(vision, stream, &grid->corner, 4 * all);
    upload_table(vision, stream, &grid->weight, 4 * all);
    upload_table(vision, stream, &grid->group_start, groups + 1);
    grid->grid_h = grid_h;
    grid->grid_w = grid_w;
}

// --- encoding ---

// One call's views of the buffers.
struct pass {
    struct sl_vision *vision;
    struct sl_stream *stream;
    int groups;
    int64_t group_rows, rows;
    struct sl_tensor x, normed; // [rows, C]
    struct sl_tensor position, corner, weight, group_start;
};

static struct pass begin_pass(struct sl_vision *vision, struct sl_stream *stream, int groups, int grid_h, int grid_w)
{
    int64_t group_rows = (int64_t)grid_h * grid_w, rows = group_rows * groups;
    const struct grid_tables *grid = &vision->grid;
    return (struct pass){
        .vision = vision,
        .stream = stream,
        .groups = groups,
        .group_rows = group_rows,
        .rows = rows,
        .x = sl_tensor_2d(vision->x, vision->compute, rows, vision->config.hidden),
        .normed = sl_tensor_2d(vision->normed, vision->compute, rows, vision->config.hidden),
        .position = sl_tensor_2d(grid->position.device, SL_I32, rows, 2),
        .corner = sl_tensor_2d(grid->corner.device, SL_I32, rows, 4),
        .weight = sl_tensor_2d(grid->weight.device, SL_F32, rows, 4),
        .group_start = sl_tensor_1d(grid->group_start.device, SL_I32, groups + 1),
    };
}

static void linear(const struct pass *p, const struct sl_linear *weights, const struct sl_tensor *from,
                   enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *to)
{
    p->vision->device->ops->linear(p->stream, weights, from, epilogue, residual, to);
}

static void layernorm(const struct pass *p, const struct norm *norm, const struct sl_tensor *from,
                      const struct sl_tensor *to)
{
    p->vision->device->ops->layernorm(p->stream, from, &norm->weight, &norm->bias, norm_eps, to);
}

static void encode_block(const struct pass *p, const struct block *block)
{
    const struct sl_vision *v = p->vision;
    const struct sl_device_ops *ops = v->device->ops;
    struct sl_tensor qkv = sl_tensor_2d(v->wide, v->compute, p->rows, 3 * (int64_t)v->config.hidden);
    struct sl_tensor middle = sl_tensor_2d(v->wide, v->compute, p->rows, v->config.intermediate);

    layernorm(p, &block->norm1, &p->x, &p->normed);
    linear(p, block->qkv, &p->normed, SL_EPILOGUE_NONE, NULL, &qkv);
    ops->rope_2d(p->stream, &qkv, v->config.heads, &p->position);
    ops->attention_groups(p->stream, &qkv, v->config.heads, &p->group_start, p->groups, (int)p->group_rows, &p->normed);
    linear(p, block->proj, &p->normed, SL_EPILOGUE_NONE, &p->x, &p->x);

    layernorm(p, &block->norm2, &p->x, &p->normed);
    linear(p, block->fc1, &p->normed, SL_EPILOGUE_GELU_TANH, NULL, &middle);
    linear(p, block->fc2, &middle, SL_EPILOGUE_NONE, &p->x, &p->x);
}

// [rows, C] to [rows / U, O]. The main merger normalises patches, then joins them; a DeepStack merger joins first.
static void merge(const struct pass *p, const struct merger *merger, int join_first, const struct sl_tensor *out)
{
    const struct sl_vision *v = p->vision;
    int64_t columns = merged_columns(&v->config), tokens = p->rows * v->config.hidden / columns;
    struct sl_tensor x = sl_tensor_2d(v->x, v->compute, tokens, columns);
    struct sl_tensor normed = sl_tensor_2d(v->normed, v->compute, tokens, columns);
    struct sl_tensor middle = sl_tensor_2d(v->wide, v->compute, tokens, columns);
    if (join_first) {
        layernorm(p, &merger->norm, &x, &normed);
    } else {
        layernorm(p, &merger->norm, &p->x, &p->normed);
    }
    linear(p, merger->fc1, &normed, SL_EPILOGUE_GELU_ERF, NULL, &middle);
    linear(p, merger->fc2, &middle, SL_EPILOGUE_NONE, NULL, out);
}

static int has_shape(const struct sl_tensor *t, enum sl_dtype dtype, int64_t rows, int64_t columns)
{
    return t->dtype == dtype && t->rank == 2 && t->shape[0] == rows && t->shape[1] == columns;
}

static int check(const struct sl_vision *v, const struct sl_tensor *patches, int groups, int grid_h, int grid_w,
                 const struct sl_tensor *features, const struct sl_tensor *deepstack, struct sl_error *error)
{
    const struct sl_vision_config *c = &v->config;
    int64_t rows = (int64_t)groups * grid_h * grid_w, tokens = rows / (c->merge * c->merge);
    if (groups < 1 || grid_h < 1 || grid_w < 1 || grid_h % c->merge || grid_w % c->merge || rows > v->max_patches) {
        return sl_fail(error, SL_ERR_INTERNAL,
                       "vision: %d groups of %dx%d patches, but at most %lld patches in blocks of %d", groups, grid_h,
                       grid_w, (long long)v->max_patches, c->merge);
    }
    int right = has_shape(patches, v->compute, rows, (int64_t)c->channels * c->temporal_patch * c->patch * c->patch) &&
                has_shape(features, v->compute, tokens, c->out_hidden);
    for (int i = 0; i < c->deepstack_count; i++) {
        right = right && has_shape(&deepstack[i], v->compute, tokens, c->out_hidden);
    }
    return right ? SL_OK : sl_fail(error, SL_ERR_INTERNAL, "vision: a tensor of the wrong shape or type");
}

int sl_vision_encode(struct sl_vision *vision, struct sl_stream *stream, const struct sl_tensor *patches, int groups,
                     int grid_h, int grid_w, const struct sl_tensor *features, const struct sl_tensor *deepstack,
                     struct sl_error *error)
{
    int status = check(vision, patches, groups, grid_h, grid_w, features, deepstack, error);
    if (status != SL_OK) {
        return status;
    }
    const struct sl_vision_config *c = &vision->config;
    set_grid(vision, stream, grid_h, grid_w);
    struct pass p = begin_pass(vision, stream, groups, grid_h, grid_w);
    linear(&p, vision->patch_embed, patches, SL_EPILOGUE_NONE, NULL, &p.x);
    vision->device->ops->interpolate_rows(stream, &vision->position_table, &p.corner, &p.weight, &p.x);
    for (int layer = 0, tap = 0; layer < c->depth; layer++) {
        encode_block(&p, &vision->blocks[layer]);
        if (tap < c->deepstack_count && c->deepstack_layer[tap] == layer) {
            merge(&p, &vision->deepstack[tap], 1, &deepstack[tap]);
            tap++;
        }
    }
    merge(&p, &vision->merger, 0, features);
    return SL_OK;
}
