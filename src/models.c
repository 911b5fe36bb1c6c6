// SPDX-License-Identifier: Apache-2.0
#include "src/models.h"

#include <stdio.h>

struct opening {
    struct sl_models *models;
    const struct sl_model_options *options;
    int wanted; // models, a bit each
    int gpu;
};

static int is_wanted(const struct opening *o, int i)
{
    return o->wanted >> i & 1;
}

static int is_missing(const struct sl_models *models, int i)
{
    return models->missing[i].status != SL_OK;
}

static int count_wanted_from(const struct opening *o, int first)
{
    int count = 0;
    for (int i = first; i < SL_ROUTE_MODELS; i++) {
        count += is_wanted(o, i) && !is_missing(o->models, i);
    }
    return count;
}

// ---- Opening

static void open_files(struct opening *o)
{
    struct sl_models *m = o->models;
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        if (!is_wanted(o, i)) {
            continue;
        }
        (void)sl_model_open_files(m->route->dir[i], &m->model[i], &m->missing[i]); // kept in `missing`
        m->model[i].device_is_shared = 1;
    }
}

int sl_models_that_fit(const int64_t *wanted_bytes, int count, int64_t room_bytes)
{
    int fit = 0;
    for (int i = 0; i < count; i++) {
        if (wanted_bytes[i] > 0 && wanted_bytes[i] <= room_bytes) {
            fit |= 1 << i;
            room_bytes -= wanted_bytes[i];
        }
    }
    return fit;
}

// On a GPU a model that does not fit beside those before it, each with one window, is as good as missing: better known
// before the first is loaded.
static void drop_what_does_not_fit(struct opening *o, const struct sl_device_info *info)
{
    const double gib = 1024.0 * 1024 * 1024;
    int64_t wanted[SL_ROUTE_MODELS] = {0}, room = info->free_bytes - SL_MODEL_SURFACE_BYTES;
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        const struct sl_model *model = &o->models->model[i];
        if (is_wanted(o, i) && !is_missing(o->models, i)) {
            wanted[i] = sl_model_bytes(o->options, model) + sl_model_window_bytes(o->options, model);
        }
    }
    int fit = sl_models_that_fit(wanted, SL_ROUTE_MODELS, room);
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        if (wanted[i] > 0 && !(fit >> i & 1)) {
            sl_fail(
                &o->models->missing[i], SL_ERR_MEMORY,
                "%s: it would take %.1f GiB, and the models before it leave %.1f of %.1f: a shorter --window, a lower "
                "--max-tokens-per-pair or a smaller model would fit",
                info->name, (double)wanted[i] / gib, (double)room / gib, (double)info->free_bytes / gib);
        } else {
            room -= wanted[i];
        }
    }
}

// What the others will allocate once this one is loaded; those to come with one window at least.
static int64_t others_bytes(const struct opening *o, int i)
{
    int64_t sum = 0;
    for (int k = 0; k < SL_ROUTE_MODELS; k++) {
        if (k != i && is_wanted(o, k) && !is_missing(o->models, k)) {
            const struct sl_model *other = &o->models->model[k];
            sum += k < i ? sl_model_bytes_to_come(o->options, other)
                         : sl_model_bytes(o->options, other) + sl_model_window_bytes(o->options, other);
        }
    }
    return sum;
}

// What follows from the device, and whether there is room for all.
static void plan(struct opening *o)
{
    struct sl_models *m = o->models;
    struct sl_device_info info;
    m->device->ops->info(m->device, &info);
    o->gpu = info.threads == 0;
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        if (is_wanted(o, i) && !is_missing(m, i)) {
            sl_model_place(o->options, m->device, &m->model[i]);
        }
    }
    if (o->gpu && count_wanted_from(o, 0) > 1) { // of one alone its own plan says it better
        drop_what_does_not_fit(o, &info);
    }
}

// Each in turn gets its share of what is left for windows; a GPU's free memory shrinks as they do, a CPU's quarter does
// not. Eyes come last, as was planned.
static void load(struct opening *o)
{
    struct sl_models *m = o->models;
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        struct sl_model_room room = {.sharers = count_wanted_from(o, o->gpu ? i : 0),
                                     .others_bytes = o->gpu ? others_bytes(o, i) : 0};
        if (is_wanted(o, i) && !is_missing(m, i) &&
            sl_model_load(o->options, &room, &m->model[i], &m->missing[i]) != SL_OK) {
            sl_model_close(&m->model[i]); // what it took is free for the others
        }
    }
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        if (is_wanted(o, i) && !is_missing(m, i)) {
            (void)sl_eye_create(&m->model[i], &m->eye[i], &m->missing[i]); // kept in `missing`
        }
    }
}

// ---- What is missing, and what stands in

static int fail_missing(const struct sl_models *m, int i, struct sl_error *error)
{
    *error = m->missing[i];
    if (m->route->name[i][0] != 0) {
        return sl_fail_at(error, "model %s", m->route->name[i]);
    }
    return m->route->by_default && error->status == SL_ERR_MODEL_MISSING
               ? sl_fail_at(error, "no model: give -m MODEL_DIR or set SCENELOG_MODEL")
               : error->status;
}

static int check_way(const struct sl_models *m, const struct sl_route_way *way, struct sl_error *error)
{
    int has_other = way->other >= 0 && !is_missing(m, way->other);
    if (is_missing(m, way->model)) {
        return has_other && way->when & SL_ROUTE_MISSING ? SL_OK : fail_missing(m, way->model, error);
    }
    if (has_other && way->when & SL_ROUTE_BUSY && !sl_model_sees_alike(&m->model[way->model], &m->model[way->other])) {
        return sl_fail(error, SL_ERR_USAGE,
                       "--route: %s and %s take pictures of different sizes: between them only \"else if missing\" "
                       "can be",
                       m->route->name[way->model], m->route->name[way->other]);
    }
    return SL_OK;
}

static int check_ways(const struct sl_models *m, const struct sl_route_way *ways, int count, struct sl_error *error)
{
    int status = SL_OK;
    for (int i = 0; i < count && status == SL_OK; i++) {
        status = check_way(m, &ways[i], error);
    }
    return status;
}

static void note_missing(const struct sl_models *m, void (*note)(void *context, const char *text), void *context)
{
    char text[640];
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        if (is_missing(m, i)) {
            snprintf(text, sizeof text, "model %s is missing, the others do its work: %s", m->route->name[i],
                     m->missing[i].text);
            note(context, text);
        }
    }
}

int sl_models_open(const struct sl_route *route, const struct sl_route_way *ways, int way_count,
                   const struct sl_model_options *options, void (*note)(void *context, const char *text), void *context,
                   struct sl_models *out, struct sl_error *error)
{
    struct opening o = {.models = out, .options = options};
    *out = (struct sl_models){.route = route};
    for (int i = 0; i < way_count; i++) {
        o.wanted |= 1 << ways[i].model | (ways[i].other >= 0 ? 1 << ways[i].other : 0);
    }
    open_files(&o);
    int status = check_ways(out, ways, way_count, error);
    if (status == SL_OK) {
        status = sl_model_open_device(options->device, options->threads, options->deterministic, &out->device, error);
    }
    if (status == SL_OK) {
        plan(&o);
        status = check_ways(out, ways, way_count, error);
    }
    if (status == SL_OK) {
        load(&o);
        status = check_ways(out, ways, way_count, error);
    }
    if (status == SL_OK) {
        note_missing(out, note, context);
    }
    return status;
}

void sl_models_close(struct sl_models *models)
{
    for (int i = 0; i < SL_ROUTE_MODELS; i++) {
        sl_engine_destroy(models->model[i].engine); // before the eye that it looks through
        models->model[i].engine = NULL;
        sl_eye_destroy(models->eye[i]);
        sl_model_close(&models->model[i]);
        models->eye[i] = NULL;
    }
    if (models->device != NULL) {
        models->device->ops->destroy(models->device);
    }
    models->device = NULL;
}

struct sl_eye *sl_models_any(const struct sl_models *models)
{
    int i = 0;
    while (models->eye[i] == NULL) {
        i++;
    }
    return models->eye[i];
}

struct sl_choice sl_models_choose(const struct sl_models *models, struct sl_route_way way)
{
    struct sl_eye *eye = models->eye[way.model];
    struct sl_eye *other = way.other >= 0 ? models->eye[way.other] : NULL;
    if (eye == NULL) {
        return (struct sl_choice){.eye = other};
    }
    return (struct sl_choice){.eye = eye, .other = way.when & SL_ROUTE_BUSY ? other : NULL};
}
