// SPDX-License-Identifier: Apache-2.0
#include "lm/decoder.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lm/feed.h"
#include "lm/graphs.h"
#include "lm/rope.h"

#define PREFIX "model.language_model."

struct layer {
    struct sl_tensor input_norm, post_norm; // [hidden]
    struct sl_tensor q_norm, k_norm;        // [head_dim]
    struct sl_linear *qkv, *o;
    struct sl_feed feed;
};

struct sl_decoder {
    struct sl_device *device;
    const struct sl_device_ops *ops;
    struct sl_text_config config;
    struct sl_decoder_limits limits;
    enum sl_dtype compute;
    int deepstack_count;

    struct sl_tensor embedding; // [vocab, hidden]
    struct layer *layers;
    struct sl_tensor final_norm;
    struct sl_linear *head;
    struct sl_rope rope;

    // Activations, [limits.rows, ...].
    struct sl_tensor hidden, normed, qkv, attention;
    struct sl_feed_room feed_room;
    struct sl_tensor features, deepstack[SL_MAX_DEEPSTACK]; // [rows, hidden] of the visual rows
    struct sl_tensor last, last_attention, logits;          // [limits.logit_rows, ...]

    // A step's integers go to the device as one block.
    struct sl_step step;
    int32_t *host;
    void *device_ints;
    int64_t int_capacity;
    struct sl_graphs graphs; // of steps that only decode
};

// What one step's integers are on the device.
struct step_inputs {
    struct sl_ragged ragged;
    struct sl_tensor ids, visual_row, logit_row;
};

// ---- Weights

static int vector(struct sl_decoder *d, struct sl_weights *weights, const char *name, int64_t n, struct sl_tensor *out,
                  struct sl_error *error)
{
    struct sl_tensor host;
    int rc = sl_weights_require(weights, name, 1, &n, &host, error);
    return rc ? rc : d->ops->weight_create(d->device, &host, d->compute, out, error);
}

static int matrix(struct sl_weights *weights, const char *name, int64_t out_size, int64_t in_size,
                  struct sl_tensor *out, struct sl_error *error)
{
    int64_t shape[2] = {out_size, in_size};
    return sl_weights_require(weights, name, 2, shape, out, error);
}

// A linear layer of one to three matrices one under the other.
struct part {
    const char *name;
    int64_t rows;
};

static int linear(struct sl_decoder *d, struct sl_weights *weights, int layer, const struct part *parts, int n,
                  int64_t in_size, struct sl_linear **out, struct sl_error *error)
{
    struct sl_tensor host[3];
    for (int i = 0; i < n; i++) {
        char name[160];
        snprintf(name, sizeof name, PREFIX "layers.%d.%s.weight", layer, parts[i].name);
        int rc = matrix(weights, name, parts[i].rows, in_size, &host[i], error);
        if (rc) {
            return rc;
        }
    }
    return d->ops->linear_create(d->device, host, n, NULL, d->compute, out, error);
}

static int load_norms(struct sl_decoder *d, struct sl_weights *weights, int index, struct sl_error *error)
{
    struct layer *l = &d->layers[index];
    const struct {
        const char *name;
        int64_t n;
        struct sl_tensor *out;
    } norms[] = {
        {"input_layernorm", d->config.hidden, &l->input_norm},
        {"post_attention_layernorm", d->config.hidden, &l->post_norm},
        {"self_attn.q_norm", d->config.head_dim, &l->q_norm},
        {"self_attn.k_norm", d->config.head_dim, &l->k_norm},
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        char name[160];
        snprintf(name, sizeof name, PREFIX "layers.%d.%s.weight", index, norms[i].name);
        int rc = vector(d, weights, name, norms[i].n, norms[i].out, error);
        if (rc) {
            return rc;
        }
    }
    return SL_OK;
}

static int load_layer(struct sl_decoder *d, struct sl_weights *weights, int index, struct sl_error *error)
{
    const struct sl_text_config *c = &d->config;
    struct layer *l = &d->layers[index];
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    const struct part qkv[] = {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}};
    const struct part o[] = {{"self_attn.o_proj", c->hidden}};
    int rc = load_norms(d, weights, index, error);
    if (!rc) {
        rc = linear(d, weights, index, qkv, 3, c->hidden, &l->qkv, error);
    }
    if (!rc) {
        rc = linear(d, weights, index, o, 1, q, &l->o, error);
    }
    return rc ? rc : sl_feed_create(d->device, weights, c, index, d->compute, &l->feed, error);
}

// The head is lm_head.weight where there is one, whatever the config says, else the embedding again.
static int load_ends(struct sl_decoder *d, struct sl_weights *weights, struct sl_error *error)
{
    const struct sl_text_config *c = &d->config;
    struct sl_tensor embedding, head;
    int rc = matrix(weights, PREFIX "embed_tokens.weight", c->vocab, c->hidden, &embedding, error);
    if (rc) {
        return rc;
    }
    if (!c->tied || sl_weights_find(weights, "lm_head.weight", &head)) {
        rc = matrix(weights, "lm_head.weight", c->vocab, c->hidden, &head, error);
    } else {
        head = embedding;
    }
    if (!rc) {
        rc = d->ops->weight_create(d->device, &embedding, d->compute, &d->embedding, error);
    }
    if (!rc) {
        rc = d->ops->linear_create(d->device, &head, 1, NULL, d->compute, &d->head, error);
    }
    if (!rc) {
        rc = vector(d, weights, PREFIX "norm.weight", c->hidden, &d->final_norm, error);
    }
    return rc;
}

static int load_rope(struct sl_decoder *d, struct sl_error *error)
{
    int pairs = d->config.head_dim / 2;
    float inv_freq[512];
    int32_t axis[512];
    if (pairs > 512) {
        return sl_fail(error, SL_ERR_MODEL_CONFIG, "head_dim %d is larger than 1024", d->config.head_dim);
    }
    d->rope.scale = sl_rope_fill(&d->config, inv_freq, axis);
    struct sl_tensor *table[2] = {&d->rope.inv_freq, &d->rope.axis};
    const void *host[2] = {inv_freq, axis};
    struct sl_stream *stream;
    int rc = d->ops->stream_create(d->device, &stream, error);
    if (rc) {
        return rc;
    }
    for (int i = 0; i < 2 && !rc; i++) {
        *table[i] = sl_tensor_1d(NULL, i ? SL_I32 : SL_F32, pairs);
        rc = d->ops->alloc(d->device, sl_tensor_bytes(table[i]), &table[i]->data, error);
        if (!rc) {
            d->ops->upload(stream, table[i]->data, host[i], sl_tensor_bytes(table[i]));
        }
    }
    if (!rc) {
        rc = d->ops->wait(stream, error);
    }
    d->ops->stream_destroy(stream);
    return rc;
}

// ---- Buffers

static int buffer(struct sl_decoder *d, struct sl_tensor *out, enum sl_dtype dtype, int64_t rows, int64_t columns,
                  struct sl_error *error)
{
    *out = sl_tensor_2d(NULL, dtype, rows, columns);
    return d->ops->alloc(d->device, sl_tensor_bytes(out), &out->data, error);
}

static int allocate_activations(struct sl_decoder *d, struct sl_error *error)
{
    const struct sl_text_config *c = &d->config;
    int64_t rows = d->limits.rows, last = d->limits.logit_rows, q = (int64_t)c->heads * c->head_dim;
    struct {
        struct sl_tensor *out;
        enum sl_dtype dtype;
        int64_t rows, columns;
    } wanted[8 + SL_MAX_DEEPSTACK] = {
        {&d->hidden, d->compute, rows, c->hidden},
        {&d->normed, d->compute, rows, c->hidden},
        {&d->qkv, d->compute, rows, q + 2 * (int64_t)c->kv_heads * c->head_dim},
        {&d->attention, d->compute, rows, q},
        {&d->features, d->compute, rows, c->hidden},
        {&d->last, d->compute, last, c->hidden},
        {&d->last_attention, d->compute, last, q},
        {&d->logits, SL_F32, last, c->vocab},
    };
    int n = 8;
    for (int k = 0; k < d->deepstack_count; k++, n++) {
        wanted[n].out = &d->deepstack[k];
        wanted[n].dtype = d->compute;
        wanted[n].rows = rows;
        wanted[n].columns = c->hidden;
    }
    int rc = SL_OK;
    for (int i = 0; i < n && !rc; i++) {
        rc = buffer(d, wanted[i].out, wanted[i].dtype, wanted[i].rows, wanted[i].columns, error);
    }
    return rc ? rc : sl_feed_room_create(d->device, c, d->compute, &d->normed, &d->feed_room, error);
}

// The step's arrays, and as much again to pack them for the upload, with the page tables.
static int allocate_step(struct sl_decoder *d, struct sl_error *error)
{
    const struct sl_decoder_limits *l = &d->limits;
    int64_t arrays = 5 * (int64_t)l->rows + (l->sequences + 1) + l->logit_rows;
    d->int_capacity = arrays + l->sequences + l->sequences * l->kv_pages;
    d->host = calloc((size_t)(arrays + d->int_capacity), sizeof *d->host);
    d->step.kv = calloc((size_t)l->sequences, sizeof *d->step.kv);
    if (!d->host || !d->step.kv) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: decoder step");
    }
    int32_t *at = d->host + d->int_capacity;
    d->step.ids = at;
    for (int axis = 0; axis < 3; axis++) {
        d->step.position[axis] = at + (int64_t)(1 + axis) * l->rows;
    }
    d->step.visual_row = at + 4 * (int64_t)l->rows;
    d->step.row_start = at + 5 * (int64_t)l->rows;
    d->step.logit_row = d->step.row_start + l->sequences + 1;
    return d->ops->alloc(d->device, d->int_capacity * (int64_t)sizeof(int32_t), &d->device_ints, error);
}

// ---- Life

int sl_decoder_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                      enum sl_dtype compute, const struct sl_decoder_limits *limits, struct sl_decoder **out,
                      struct sl_error *error)
{
    struct sl_decoder *d = calloc(1, sizeof *d);
    if (!d || !(d->layers = calloc((size_t)config->text.layers, sizeof *d->layers))) {
        free(d);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: decoder");
    }
    d->device = device;
    d->ops = device->ops;
    d->graphs.ops = device->ops;
    d->config = config->text;
    d->limits = *limits;
    d->compute = compute;
    d->deepstack_count = config->vision.deepstack_count;
    int rc = SL_OK;
    if (d->deepstack_count > d->config.layers) {
        rc = sl_fail(error, SL_ERR_MODEL_CONFIG, "%d DeepStack levels for a decoder of %d layers", d->deepstack_count,
                     d->config.layers);
    }
    for (int i = 0; i < d->config.layers && !rc; i++) {
        rc = load_layer(d, weights, i, error);
    }
    if (!rc) {
        rc = load_ends(d, weights, error);
    }
    if (!rc) {
        rc = load_rope(d, error);
    }
    if (!rc) {
        rc = allocate_activations(d, error);
    }
    if (!rc) {
        rc = allocate_step(d, error);
    }
    if (rc) {
        sl_decoder_destroy(d);
        return rc;
    }
    *out = d;
    return SL_OK;
}

// A decoder that could not be made whole lacks some.
static void release_weight(struct sl_decoder *d, struct sl_tensor *weight)
{
    if (weight->data) {
        d->ops->weight_release(d->device, weight);
    }
}

static void destroy_layer(struct sl_decoder *d, struct layer *l)
{
    struct sl_tensor *norms[] = {&l->input_norm, &l->post_norm, &l->q_norm, &l->k_norm};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        release_weight(d, norms[i]);
    }
    d->ops->linear_destroy(l->qkv);
    d->ops->linear_destroy(l->o);
    sl_feed_destroy(d->device, &l->feed);
}

void sl_decoder_destroy(struct sl_decoder *d)
{
    if (!d) {
        return;
    }
    sl_graphs_clear(&d->graphs);
    for (int i = 0; i < d->config.layers; i++) {
        destroy_layer(d, &d->layers[i]);
    }
    release_weight(d, &d->embedding);
    release_weight(d, &d->final_norm);
    d->ops->linear_destroy(d->head);
    sl_feed_room_destroy(d->device, &d->feed_room);
    void *memory[] = {d->rope.inv_freq.data, d->rope.axis.data, d->hidden.data, d->normed.data,         d->qkv.data,
                      d->attention.data,     d->features.data,  d->last.data,   d->last_attention.data, d->logits.data,
                      d->device_ints};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        d->ops->release(d->device, memory[i]);
    }
    for (int k = 0; k < d->deepstack_count; k++) {
        d->ops->release(d->device, d->deepstack[k].data);
    }
    free(d->layers);
    free(d->host);
    free(d->step.kv);
    free(d);
}

// ---- A step

struct sl_step *sl_decoder_step(struct sl_decoder *decoder)
{
    return &decoder->step;
}

void sl_decoder_visual(const struct sl_decoder *decoder, int first, int count, struct sl_tensor *features,
                       struct sl_tensor *deepstack)
{
    *features = sl_tensor_rows(&decoder->features, first, count);
    for (int k = 0; k < decoder->deepstack_count; k++) {
        deepstack[k] = sl_tensor_rows(&decoder->deepstack[k], first, count);
    }
}

// Appends `n` integers to the block; the tensor of where they will be on the device.
static struct sl_tensor pack(struct sl_decoder *d, int64_t *used, const int32_t *from, int64_t n)
{
    struct sl_tensor tensor = sl_tensor_1d((int32_t *)d->device_ints + *used, SL_I32, n);
    memcpy(d->host + *used, from, (size_t)n * sizeof *from);
    *used += n;
    return tensor;
}

// Rounded up, so that steps are alike while sequences grow.
static int64_t table_width(const struct sl_decoder *d, int64_t pages)
{
    int64_t width = 1;
    while (width < pages) {
        width *= 2;
    }
    return width < d->limits.kv_pages ? width : d->limits.kv_pages;
}

static void pack_sequences(struct sl_decoder *d, int64_t *used, struct sl_ragged *ragged)
{
    const struct sl_step *s = &d->step;
    int64_t width = 1;
    ragged->kv_length = sl_tensor_1d((int32_t *)d->device_ints + *used, SL_I32, s->sequences);
    for (int i = 0; i < s->sequences; i++) {
        int rows = s->row_start[i + 1] - s->row_start[i];
        int length = (int)s->kv[i]->length;
        d->host[(*used)++] = length;
        ragged->max_rows = rows > ragged->max_rows ? rows : ragged->max_rows;
        ragged->max_kv_length = length > ragged->max_kv_length ? length : ragged->max_kv_length;
        width = s->kv[i]->page_count > width ? s->kv[i]->page_count : width;
    }
    width = table_width(d, width);
    ragged->page_table = sl_tensor_2d((int32_t *)d->device_ints + *used, SL_I32, s->sequences, width);
    for (int i = 0; i < s->sequences; i++) {
        int64_t held = s->kv[i]->page_count;
        memcpy(d->host + *used, s->kv[i]->page, (size_t)held * sizeof(int32_t));
        memset(d->host + *used + held, 0, (size_t)(width - held) * sizeof(int32_t));
        *used += width;
    }
}

static void upload_step(struct sl_decoder *d, struct sl_stream *stream, struct step_inputs *in)
{
    const struct sl_step *s = &d->step;
    int64_t used = 0;
    in->ragged = (struct sl_ragged){.sequences = s->sequences, .rows = s->rows};
    in->ids = pack(d, &used, s->ids, s->rows);
    in->ragged.position = sl_tensor_2d((int32_t *)d->device_ints + used, SL_I32, 3, s->rows);
    for (int axis = 0; axis < 3; axis++) {
        pack(d, &used, s->position[axis], s->rows);
    }
    in->visual_row = pack(d, &used, s->visual_row, s->visual_rows);
    in->logit_row = pack(d, &used, s->logit_row, s->logit_rows);
    in->ragged.row_start = pack(d, &used, s->row_start, s->sequences + 1);
    pack_sequences(d, &used, &in->ragged);
    d->ops->upload(stream, d->device_ints, d->host, used * (int64_t)sizeof(int32_t));
}

// Queries, keys and values of the rows, to d->qkv.
static void project(struct sl_decoder *d, struct sl_stream *stream, const struct layer *l,
                    const struct sl_ragged *ragged, const struct sl_tensor *hidden)
{
    struct sl_tensor normed = sl_tensor_rows(&d->normed, 0, ragged->rows);
    struct sl_tensor qkv = sl_tensor_rows(&d->qkv, 0, ragged->rows);
    d->ops->rmsnorm_linear(stream, hidden, &l->input_norm, d->config.rms_eps, &normed, l->qkv, SL_EPILOGUE_NONE, &qkv);
}

// Keys and values to the cache; and attention, if it is wanted.
static struct sl_tensor attend(struct sl_decoder *d, struct sl_stream *stream, const struct layer *l,
                               const struct sl_kv_layer *kv, const struct sl_ragged *ragged, int wanted)
{
    const struct sl_text_config *c = &d->config;
    struct sl_tensor qkv = sl_tensor_rows(&d->qkv, 0, ragged->rows);
    struct sl_tensor attention = sl_tensor_rows(&d->attention, 0, ragged->rows);
    if (wanted && d->ops->turn_and_attend &&
        d->ops->turn_and_attend(stream, ragged, &qkv, c->heads, &l->q_norm, &l->k_norm, c->rms_eps, &d->rope, kv,
                                &attention)) {
        return attention;
    }
    d->ops->qk_norm_rope_store(stream, ragged, &qkv, c->heads, &l->q_norm, &l->k_norm, c->rms_eps, &d->rope, kv);
    if (wanted) {
        d->ops->attention_paged(stream, ragged, &qkv, c->heads, kv, &attention);
    }
    return attention;
}

// The rest of a layer, row by row, in place on `hidden`.
static void transform(struct sl_decoder *d, struct sl_stream *stream, const struct layer *l,
                      const struct sl_tensor *attention, const struct sl_tensor *hidden)
{
    d->ops->linear(stream, l->o, attention, SL_EPILOGUE_NONE, hidden, hidden);
    sl_feed_run(&d->feed_room, stream, &l->feed, &l->post_norm, hidden);
}

// Keeps the rows whose logits are wanted, in `buffer`.
static void narrow(struct sl_decoder *d, struct sl_stream *stream, const struct sl_tensor *logit_row,
                   const struct sl_tensor *buffer, struct sl_tensor *rows)
{
    if (logit_row->shape[0] < rows->shape[0]) {
        struct sl_tensor kept = sl_tensor_rows(buffer, 0, logit_row->shape[0]);
        d->ops->gather_rows(stream, rows, logit_row, &kept);
        *rows = kept;
    }
}

static struct sl_tensor embed(struct sl_decoder *d, struct sl_stream *stream, const struct step_inputs *in)
{
    struct sl_tensor hidden = sl_tensor_rows(&d->hidden, 0, d->step.rows);
    d->ops->gather_rows(stream, &d->embedding, &in->ids, &hidden);
    if (d->step.visual_rows) {
        struct sl_tensor features = sl_tensor_rows(&d->features, 0, d->step.visual_rows);
        d->ops->scatter_rows(stream, &features, &in->visual_row, 0, &hidden);
    }
    return hidden;
}

static void add_deepstack(struct sl_decoder *d, struct sl_stream *stream, int layer, const struct step_inputs *in,
                          const struct sl_tensor *hidden)
{
    if (layer < d->deepstack_count && d->step.visual_rows) {
        struct sl_tensor level = sl_tensor_rows(&d->deepstack[layer], 0, d->step.visual_rows);
        d->ops->scatter_rows(stream, &level, &in->visual_row, 1, hidden);
    }
}

// A step on its way to the device.
struct step_run {
    struct sl_decoder *decoder;
    struct sl_stream *stream;
    const struct sl_kv *kv;
    const struct step_inputs *in;
    const struct sl_tensor *logits;
};

// Of the last layer, only the keys and values of all rows are needed; the rest just for the wanted logits.
static void run_layers(void *context)
{
    const struct step_run *run = context;
    const struct step_inputs *in = run->in;
    struct sl_decoder *d = run->decoder;
    struct sl_stream *stream = run->stream;
    struct sl_tensor hidden = embed(d, stream, in);
    int last = d->config.layers - 1;
    for (int i = 0; i <= last; i++) {
        const struct sl_kv_layer *cache = sl_kv_layer(run->kv, i);
        int goes_on = i < last || d->step.logit_rows > 0;
        project(d, stream, &d->layers[i], &in->ragged, &hidden);
        struct sl_tensor attention = attend(d, stream, &d->layers[i], cache, &in->ragged, goes_on);
        if (!goes_on) {
            return;
        }
        if (i == last && i >= d->deepstack_count) {
            narrow(d, stream, &in->logit_row, &d->last, &hidden);
            narrow(d, stream, &in->logit_row, &d->last_attention, &attention);
        }
        transform(d, stream, &d->layers[i], &attention, &hidden);
        add_deepstack(d, stream, i, in, &hidden);
    }
    narrow(d, stream, &in->logit_row, &d->last, &hidden);
    struct sl_tensor normed = sl_tensor_rows(&d->normed, 0, hidden.shape[0]);
    d->ops->rmsnorm_linear(stream, &hidden, &d->final_norm, d->config.rms_eps, &normed, d->head, SL_EPILOGUE_NONE,
                           run->logits);
}

// Steps of one row for each sequence differ in nothing but what their buffers hold.
void sl_decoder_run(struct sl_decoder *decoder, struct sl_stream *stream, const struct sl_kv *kv,
                    struct sl_tensor *logits)
{
    struct sl_decoder *d = decoder;
    struct step_inputs in;
    *logits = sl_tensor_rows(&d->logits, 0, d->step.logit_rows);
    upload_step(d, stream, &in);
    struct step_run run = {.decoder = d, .stream = stream, .kv = kv, .in = &in, .logits = logits};
    if (d->step.rows == d->step.sequences && d->step.logit_rows == d->step.rows && !d->step.visual_rows) {
        sl_graphs_run(&d->graphs, stream, d->step.rows, in.ragged.page_table.shape[1], run_layers, &run);
    } else {
        run_layers(&run);
    }
}

void sl_decoder_forget_stream(struct sl_decoder *decoder)
{
    sl_graphs_clear(&decoder->graphs);
}
