// SPDX-License-Identifier: Apache-2.0
// `scenelog info`: tells by itself whether it was given a model folder, an index or a video.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/time.h"
#include "db/db.h"
#include "decode/decode.h"
#include "src/commands.h"
#include "src/format.h"
#include "src/model.h"
#include "src/options.h"

static void print_experts(const struct sl_text_config *t)
{
    int sparse = 0;
    for (int i = 0; i < t->layers; i++) {
        sparse += t->sparse[i];
    }
    if (t->experts > 0) {
        printf("experts    %d, %d of them for a token, MLP %d, in %d of %d layers\n", t->experts, t->experts_per_token,
               t->expert_intermediate, sparse, t->layers);
    }
}

static int info_model(const char *dir, struct sl_error *error)
{
    struct sl_model model;
    int status = sl_model_open_files(dir, &model, error);
    if (status == SL_OK) {
        const struct sl_vision_config *v = &model.config.vision;
        const struct sl_text_config *t = &model.config.text;
        printf("model      %s\n", model.name);
        printf("identity   %s\n", model.hash);
        printf("weights    %.1f MB\n", (double)sl_weights_bytes(model.weights) / 1e6);
        printf("vision     %d blocks, %d wide, %d heads of %d, MLP %d, %d DeepStack taps, patches of %d\n", v->depth,
               v->hidden, v->heads, v->hidden / v->heads, v->intermediate, v->deepstack_count, v->patch);
        printf("decoder    %d layers, %d wide, %d heads of %d, %d KV heads, ", t->layers, t->hidden, t->heads,
               t->head_dim, t->kv_heads);
        if (t->intermediate > 0) {
            printf("MLP %d, ", t->intermediate);
        }
        printf("vocabulary %d\n", t->vocab);
        print_experts(t);
        if (model.config.fp8) {
            printf("quantised  FP8 (e4m3) in blocks of %d x %d; computed in the device's own type\n", SL_SCALE_BLOCK,
                   SL_SCALE_BLOCK);
        }
        printf("context    %" PRId64 " positions%s\n", t->max_positions, t->yarn ? ", YaRN" : "");
        printf("thinking   %s\n", model.config.thinking ? "yes" : "no");
    }
    sl_model_close(&model);
    return status;
}

static int print_model(const struct sl_db_model *model, void *user)
{
    (void)user;
    printf("model      ");
    sl_format_column(stdout, model->name, 0);
    printf(" (%s): %" PRId64 " windows done, %" PRId64 " failed, %" PRId64 " dropped; %" PRId64 " events\n",
           model->hash, model->windows_done, model->windows_failed, model->windows_dropped, model->events);
    return 0;
}

static int info_index(const char *path, struct sl_error *error)
{
    struct sl_db *db = NULL;
    struct sl_db_stats s;
    int status = sl_db_open(&db, path, SL_DB_READ, error);
    if (status == SL_OK) {
        status = sl_db_stats(db, &s, error);
    }
    if (status == SL_OK) {
        printf("index      %s, schema %d\n", path, s.schema_version);
        printf("size       %.1f MB, %.1f MB of it free\n", (double)s.file_bytes / 1e6, (double)s.free_bytes / 1e6);
        printf("sources    %" PRId64 " (%" PRId64 " files or connections)\n", s.sources, s.media);
        printf("tasks      %" PRId64 "\n", s.tasks);
        printf("windows    %" PRId64 " done, %" PRId64 " failed, %" PRId64 " dropped\n", s.windows_done,
               s.windows_failed, s.windows_dropped);
        printf("events     %" PRId64 "\n", s.events);
        status = sl_db_models(db, print_model, NULL, error);
    }
    sl_db_close(db);
    return status;
}

static void print_time(const char *name, int64_t us, const char *after)
{
    char text[SL_TIME_TEXT];
    if (us != SL_NO_TIME) {
        sl_time_format_clock(us, text);
        printf("%-10s %s%s\n", name, text, after);
    }
}

static int info_media(const char *path, struct sl_error *error)
{
    struct sl_source_options options;
    sl_source_defaults(&options);
    struct sl_source *source = NULL;
    int status = sl_source_open(path, &options, &source, error);
    if (status != SL_OK) {
        return status;
    }
    const struct sl_source_info *i = sl_source_info(source);
    printf("media      %s\n", path);
    printf("container  %s\n", i->container);
    printf("video      %s %s, %s\n", i->codec, i->profile, i->pixel_format);
    printf("picture    %d x %d", i->width, i->height);
    if (i->sar_num != i->sar_den) {
        printf(", pixels %d:%d", i->sar_num, i->sar_den);
    }
    printf(i->rotation != 0 ? ", turned by %d degrees\n" : "\n", i->rotation);
    if (i->rate_num > 0 && i->rate_den > 0) {
        printf("rate       %.6g fps (nominal)\n", (double)i->rate_num / (double)i->rate_den);
    }
    print_time("length", i->duration_us, i->duration_is_estimate ? " (estimated)" : "");
    print_time("starts at", i->start_time_us, " on the container's clock, media time 0");
    if (i->created_us != SL_NO_TIME) {
        char text[SL_TIME_TEXT];
        sl_time_format_absolute(i->created_us, NULL, text);
        printf("created    %s\n", text);
    }
    sl_source_close(source);
    return SL_OK;
}

static int is_sqlite(const char *path)
{
    char head[16] = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return 0; // whoever opens it next says why
    }
    size_t n = fread(head, 1, sizeof head, file);
    fclose(file);
    return n == sizeof head && memcmp(head, "SQLite format 3", 16) == 0;
}

static int info(const char *path, struct sl_error *error)
{
    struct stat st;
    int found = stat(path, &st) == 0; // what is not a path may be a URL
    if (found && S_ISDIR(st.st_mode)) {
        return info_model(path, error);
    }
    return found && is_sqlite(path) ? info_index(path, error) : info_media(path, error);
}

int sl_cmd_info(int argc, char **argv)
{
    struct sl_error error = {0};
    int status = SL_OK;
    if (argc != 2 || (argv[1][0] == '-' && argv[1][1] != 0)) {
        status = sl_fail(&error, SL_ERR_USAGE, "info: takes one file, index or model folder");
    } else {
        status = info(argv[1], &error);
    }
    return status == SL_OK ? 0 : sl_report(&error);
}
