// SPDX-License-Identifier: Apache-2.0
// The pipeline's threads over a stub device (no OpenMP, so that ThreadSanitizer sees all of it): windows, resume,
// interruption, failing devices, truncated files, several processes. What the model says is noise here; what must hold
// is which windows there are, that coverage tells the truth, and that no thread is left hanging.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "src/stages.h"
#include "tests/support/clipmaker.h"
#include "tests/support/stub_device.h"

enum { WINDOW_US = 4000000 };

// ---- The pictures' half of the stub device: any features do.

static void stub_image_resize(struct sl_stream *stream, struct sl_frame *frame, const struct sl_tensor *out)
{
    (void)stream;
    memset(out->data, frame->plane[0][0], (size_t)sl_tensor_bytes(out));
}

// The stub's pictures are of one colour each.
static void stub_pair_differences(struct sl_stream *stream, const struct sl_tensor *pictures,
                                  const struct sl_tensor *pair, float level, const struct sl_tensor *difference)
{
    (void)stream;
    int shown = 0;
    for (int64_t i = 0; i < pair->shape[0]; i++) {
        float *out = (float *)difference->data + i;
        *out = i == 0 ? INFINITY : 0;
        for (int k = 0; k < 2; k++) {
            const uint8_t *a = (const uint8_t *)pictures->data + stub_ints(pair)[2 * i + k] * pictures->stride[0];
            const uint8_t *b = (const uint8_t *)pictures->data + shown * pictures->stride[0];
            *out = fmaxf(*out, fabsf((float)*a - (float)*b));
        }
        shown = *out > level ? stub_ints(pair)[2 * i + 1] : shown;
    }
}

static void stub_patchify(struct sl_stream *stream, const struct sl_tensor *rgb, int n, int patch, int merge,
                          const float mean[3], const float std[3], const struct sl_tensor *out)
{
    (void)stream, (void)n, (void)patch, (void)merge, (void)mean, (void)std;
    for (int64_t i = 0; i < sl_tensor_elements(out); i++) {
        ((float *)out->data)[i] = (float)((const uint8_t *)rgb[0].data)[0] / 255.0f;
    }
}

// The stub knows no bias; the noise is as good without.
static int stub_linear_without_bias(struct sl_device *device, const struct sl_tensor *parts, int n,
                                    const struct sl_tensor *bias, enum sl_dtype compute, struct sl_linear **out,
                                    struct sl_error *error)
{
    (void)bias;
    return stub_linear_create(device, parts, n, NULL, compute, out, error);
}

static void stub_layernorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                           const struct sl_tensor *bias, float eps, const struct sl_tensor *y)
{
    (void)bias;
    stub_rmsnorm(stream, x, weight, eps, y);
}

static void stub_interpolate_rows(struct sl_stream *stream, const struct sl_tensor *table,
                                  const struct sl_tensor *index, const struct sl_tensor *weight,
                                  const struct sl_tensor *y)
{
    (void)stream, (void)table, (void)index, (void)weight, (void)y;
}

static void stub_rope_2d(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                         const struct sl_tensor *position)
{
    (void)stream, (void)qkv, (void)heads, (void)position;
}

static void stub_attention_groups(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                                  const struct sl_tensor *group_start, int groups, int max_group_rows,
                                  const struct sl_tensor *y)
{
    (void)stream, (void)heads, (void)group_start, (void)groups, (void)max_group_rows;
    for (int64_t r = 0; r < y->shape[0]; r++) {
        memcpy(stub_row(y, r), stub_row(qkv, r) + 2 * y->shape[1], (size_t)y->shape[1] * sizeof(float));
    }
}

// ---- A small model by hand

struct bed {
    struct sl_device_ops ops;
    struct sl_model model;
    struct sl_eye *eye;
    struct sl_db *db;
    struct sl_window_rules rules;
    int64_t task, run;
    char index[256];
    int stop_after;          // interrupt once so many windows are done; -1: never
    struct sl_choice choice; // eye NULL: not asked
    const struct sl_pipeline_progress *progress;
};

static void ok(int status, const struct sl_error *error)
{
    if (status != SL_OK) {
        fail_msg("status %d: %s", status, error->text);
    }
}

static void make_model(struct bed *bed)
{
    struct sl_error e = {0};
    struct sl_model *m = &bed->model;
    ok(sl_config_read("samples/demo-model", &m->config, &e), &e);
    ok(sl_tokenizer_open("samples/demo-model", &m->tokenizer, &e), &e);
    m->config.text.layers = 1;
    m->config.text.hidden = 16;
    m->config.text.heads = 2;
    m->config.text.kv_heads = 1;
    m->config.text.head_dim = 8;
    m->config.text.mrope_section[0] = 2;
    m->config.text.mrope_section[1] = 1;
    m->config.text.mrope_section[2] = 1;
    m->config.text.intermediate = 16;
    m->config.vision.depth = 1;
    m->config.vision.hidden = 16;
    m->config.vision.heads = 2;
    m->config.vision.intermediate = 16;
    m->config.vision.out_hidden = 16;
    m->config.vision.deepstack_count = 1;
    m->config.vision.deepstack_layer[0] = 0;
    m->config.video.cap_pixels_per_frame = 1;
    m->config.video.max_video_tokens = 2;
    ok(sl_weights_random(SL_F32, 5, &m->weights, &e), &e);
    m->device = stub_create();
    bed->ops = stub_ops;
    bed->ops.image_resize = stub_image_resize;
    bed->ops.patchify = stub_patchify;
    bed->ops.pair_differences = stub_pair_differences;
    bed->ops.linear_create = stub_linear_without_bias;
    bed->ops.layernorm = stub_layernorm;
    bed->ops.interpolate_rows = stub_interpolate_rows;
    bed->ops.rope_2d = stub_rope_2d;
    bed->ops.attention_groups = stub_attention_groups;
    m->device->ops = &bed->ops;
    m->compute = SL_F32;
    m->max_patches = 64;
    m->sequences = 3;
    snprintf(m->name, sizeof m->name, "stub");
    snprintf(m->hash, sizeof m->hash, "0000000000000000");
    ok(sl_vision_create(m->device, m->weights, &m->config, SL_F32, m->max_patches, &m->vision, &e), &e);
    struct sl_engine_options options = {
        .compute = SL_F32, .max_sequences = 3, .kv_tokens = 3 * 2048, .prefill_rows = 64};
    ok(sl_engine_create(m->device, m->weights, &m->config, m->tokenizer, &options, &m->engine, &e), &e);
    ok(sl_eye_create(m, &bed->eye, &e), &e);
}

static struct bed *make_bed(const char *index)
{
    struct sl_error e = {0};
    struct bed *bed = calloc(1, sizeof *bed);
    bed->stop_after = -1;
    make_model(bed);
    snprintf(bed->index, sizeof bed->index, "%s", clip_path(index));
    ok(sl_db_open(&bed->db, bed->index, SL_DB_WRITE, &e), &e);
    bed->rules = (struct sl_window_rules){.fps_num = 2,
                                          .fps_den = 1,
                                          .window_us = WINDOW_US,
                                          .prompt = "What happens?",
                                          .max_new_tokens = 160,
                                          .sampling = {.temperature = 1, .top_p = 1, .seed = 3}};
    ok(sl_db_task(bed->db, "test", 1000000, &bed->task, &e), &e);
    ok(sl_db_run_begin(bed->db, "test", "", &bed->run, &e), &e);
    return bed;
}

static void free_bed(struct bed *bed)
{
    sl_db_close(bed->db);
    sl_eye_destroy(bed->eye);
    sl_model_close(&bed->model);
    free(bed);
}

static int interrupted(void *context)
{
    struct bed *bed = context;
    return bed->stop_after >= 0 && bed->progress != NULL &&
           atomic_load(&bed->progress->windows_done) >= bed->stop_after;
}

static void ignore_note(void *context, const char *text)
{
    (void)context, (void)text;
}

static struct sl_choice choose(void *context, const char *source)
{
    struct bed *bed = context;
    assert_true(strlen(source) > 0);
    return bed->choice;
}

static int index_clip(struct bed *bed, const char *path, int64_t from_us, int64_t to_us,
                      struct sl_pipeline_progress *progress, struct sl_error *error)
{
    struct sl_pipeline job = {.model = &bed->model,
                              .eye = bed->eye,
                              .db = bed->db,
                              .rules = &bed->rules,
                              .path = path,
                              .from_us = from_us,
                              .to_us = to_us,
                              .wall_start_us = SL_NO_TIME,
                              .task = bed->task,
                              .run = bed->run,
                              .threads = 1,
                              .context = bed,
                              .choose = bed->choice.eye != NULL ? choose : NULL,
                              .interrupted = interrupted,
                              .note = ignore_note};
    *progress = (struct sl_pipeline_progress){0};
    bed->progress = progress;
    int status = sl_pipeline_run(&job, progress, error);
    bed->progress = NULL;
    return status;
}

// ---- What the index says

struct cover {
    int64_t seen_us, failed_us, never_us, source; // seen: with what an answer of noise leaves out at its longest
    int events_outside;
};

static int add_span(const struct sl_db_span *span, void *user)
{
    struct cover *c = user;
    int64_t length = span->end_us - span->start_us;
    int cut = span->seen == SL_DB_OUTAGE && strstr(span->cause, "cut at its longest") != NULL;
    c->seen_us += span->seen == SL_DB_SEEN || cut ? length : 0;
    c->failed_us += span->seen == SL_DB_SPAN_FAILED ? length : 0;
    c->never_us += span->seen == SL_DB_NEVER ? length : 0;
    return 0;
}

static int add_work(const struct sl_db_work *work, void *user)
{
    ((struct cover *)user)->source = work->source_id;
    return 0;
}

static int fail_on_fault(const char *line, void *user)
{
    (void)user;
    fail_msg("%s", line);
    return 0;
}

static struct cover cover_of(struct bed *bed)
{
    struct cover c = {0};
    struct sl_error e = {0};
    ok(sl_db_works(bed->db, NULL, add_work, &c, &e), &e);
    ok(sl_db_coverage(bed->db, c.source, bed->task, add_span, &c, &e), &e);
    ok(sl_db_verify(bed->db, fail_on_fault, NULL, &e), &e);
    return c;
}

static const char *make_clip(const char *name, int seconds)
{
    enum { RATE = 5, MOST = 200 };
    int64_t pts[MOST];
    const char *path = clip_path(name);
    clip_grid(pts, seconds * RATE, (AVRational){RATE, 1}, (AVRational){1, 1000});
    clip_make(&(struct clip){.path = path, .width = 64, .height = 64, .pts = pts, .count = seconds * RATE});
    return path;
}

// ---- Tests

static void test_whole_then_nothing_left(void **state)
{
    (void)state;
    struct bed *bed = make_bed("whole.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("whole.mp4", 14);
    int status = index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e);
    ok(status, &e);
    assert_int_equal(atomic_load(&p.windows_done), 4);
    struct cover c = cover_of(bed);
    assert_int_equal(c.seen_us, 14000000);
    assert_int_equal(c.failed_us + c.never_us, 0);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 0);
    assert_int_equal(atomic_load(&p.windows_skipped), 4);
    free_bed(bed);
}

static void test_spans_add_up(void **state)
{
    (void)state;
    struct bed *bed = make_bed("spans.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("spans.mp4", 14);
    ok(index_clip(bed, clip, 4000000, 8000000, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 1);
    assert_int_equal(cover_of(bed).seen_us, 4000000);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 3);
    assert_int_equal(atomic_load(&p.windows_skipped), 1);
    assert_int_equal(cover_of(bed).seen_us, 14000000);
    free_bed(bed);
}

// A span that ends inside a cell, then the rest: no window may claim moments whose pictures it was not shown.
static void test_half_a_cell_is_done_again(void **state)
{
    (void)state;
    struct bed *bed = make_bed("half.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("half.mp4", 14);
    ok(index_clip(bed, clip, SL_NO_TIME, 6000000, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 2);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_skipped), 1);
    assert_int_equal(atomic_load(&p.windows_done), 3);
    assert_int_equal(cover_of(bed).seen_us, 14000000);
    sqlite3 *file = NULL;
    sqlite3_stmt *row = NULL;
    assert_int_equal(sqlite3_open_v2(bed->index, &file, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(file,
                                        "SELECT count(*), sum(frames_seen * 500000 != end_us - start_us) FROM window",
                                        -1, &row, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(row, 0), 5);
    assert_int_equal(sqlite3_column_int(row, 1), 0);
    sqlite3_finalize(row);
    sqlite3_close(file);
    free_bed(bed);
}

static void test_interrupted_and_resumed(void **state)
{
    (void)state;
    struct bed *bed = make_bed("stop.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("stop.mp4", 38);
    int64_t done = 0;
    for (int stops = 0; stops < 2; stops++) {
        bed->stop_after = 1;
        assert_int_equal(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), SL_ERR_INTERRUPTED);
        assert_int_equal(atomic_load(&p.windows_failed), 0);
        done += atomic_load(&p.windows_done);
        assert_true(done >= stops + 1 && done < 10);
        bed->stop_after = -1;
    }
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(done + atomic_load(&p.windows_done), 10);
    assert_int_equal(cover_of(bed).seen_us, 38000000);
    free_bed(bed);
}

static void test_failing_device(void **state)
{
    (void)state;
    struct bed *bed = make_bed("fail.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("fail.mp4", 14);
    atomic_store(&stub_of(bed->model.device)->linears_until_failure, 100);
    assert_int_not_equal(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), SL_OK);
    assert_true(e.text[0] != 0);
    struct cover c = cover_of(bed);
    assert_int_equal(c.seen_us + c.failed_us, 14000000);
    assert_true(c.failed_us > 0);
    free_bed(bed);
}

static void test_truncated(void **state)
{
    (void)state;
    struct bed *bed = make_bed("cut.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *whole = make_clip("cut.mkv", 18);
    size_t size = 0;
    void *bytes = clip_read_bytes(whole, &size);
    const char *cut = clip_path("cut2.mkv");
    clip_write_bytes(cut, bytes, size / 2);
    free(bytes);
    assert_int_equal(index_clip(bed, cut, SL_NO_TIME, SL_NO_TIME, &p, &e), SL_ERR_TRUNCATED);
    struct cover c = cover_of(bed);
    assert_true(c.seen_us >= 4000000 && c.seen_us <= 14000000);
    assert_true(c.failed_us >= 4000000);
    assert_in_range(c.seen_us + c.failed_us + c.never_us, 17900000, 18300000);
    free_bed(bed);
}

static void test_claimed(void **state)
{
    (void)state;
    struct bed *bed = make_bed("busy.db");
    struct bed *other = make_bed("busy.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("busy.mp4", 6);
    struct sl_db_media media;
    struct sl_db_claim claim;
    ok(sl_db_file(other->db, clip, NULL, &media, &e), &e);
    ok(sl_db_claim(other->db, media.source, other->task, &claim, &e), &e);
    assert_int_equal(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), SL_ERR_BUSY);
    ok(sl_db_release(other->db, &claim, &e), &e);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    free_bed(other);
    free_bed(bed);
}

// Told to be shorter than it is, and not read to its end: the rest is not forgotten.
static void test_behind_the_stated_end(void **state)
{
    (void)state;
    struct bed *bed = make_bed("longer.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("longer.mp4", 14);
    ok(index_clip(bed, clip, SL_NO_TIME, 14000000, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 4);
    struct sl_run run = {.duration_us = 10000000, .progress = &p};
    struct sl_pipeline job = {
        .rules = &bed->rules, .db = bed->db, .task = bed->task, .from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
    struct sl_db_media media;
    run.job = &job;
    ok(sl_db_file(bed->db, clip, NULL, &media, &e), &e);
    struct sl_db_segment segment = {.media = media.media, .wall_start_us = SL_NO_TIME, .error_us = SL_NO_TIME};
    ok(sl_db_segment(bed->db, &segment, &run.segment, &e), &e);
    ok(sl_reader_plan(&run, &e), &e);
    assert_int_equal(run.stretch_count, 1);
    assert_int_equal(run.stretches[0].from_us, 10000000);
    assert_true(run.stretches[0].to_us == SL_NO_TIME && run.reaches_end);
    free(run.stretches);
    // Once read to the end, nothing is left, stated or not.
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 0);
    run = (struct sl_run){.duration_us = SL_NO_TIME, .progress = &p, .job = &job, .segment = run.segment};
    ok(sl_reader_plan(&run, &e), &e);
    assert_int_equal(run.stretch_count, 0);
    // From behind the end there is nothing, and the end stays where it was.
    ok(index_clip(bed, clip, 60000000, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(cover_of(bed).seen_us, 14000000);
    assert_int_equal(cover_of(bed).never_us, 0);
    free_bed(bed);
}

// Matroska's Duration, a double, in ms.
static void state_duration(const char *path, double duration_ms)
{
    size_t size = 0;
    uint8_t *bytes = clip_read_bytes(path, &size);
    uint8_t *at = memmem(bytes, size, "\x44\x89\x88", 3);
    assert_non_null(at);
    uint64_t bits = 0;
    memcpy(&bits, &duration_ms, sizeof bits);
    for (int i = 0; i < 8; i++) {
        at[3 + i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    clip_write_bytes(path, bytes, size);
    free(bytes);
}

// The last picture ends a little later than the container states: no moment is left out.
static void test_ends_later_than_stated(void **state)
{
    (void)state;
    struct bed *bed = make_bed("late.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("late.mkv", 9);
    state_duration(clip, 8700);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(cover_of(bed).seen_us, 9000000);
    assert_int_equal(cover_of(bed).never_us, 0);
    free_bed(bed);
}

// Planning does not go through the stated length cell by cell.
static void test_states_three_years(void **state)
{
    (void)state;
    struct bed *bed = make_bed("years.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("years.mkv", 6);
    state_duration(clip, 3 * 365.25 * 86400e3);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 2);
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_skipped), 2);
    assert_int_equal(cover_of(bed).seen_us, 6000000);
    ok(index_clip(bed, clip, SL_NO_TIME, 4000000, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 0);
    free_bed(bed);
}

static void test_from_behind_the_end(void **state)
{
    (void)state;
    struct bed *bed = make_bed("behind.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("behind.mp4", 6);
    ok(index_clip(bed, clip, 60000000, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_done), 0);
    assert_in_range(cover_of(bed).never_us, 5900000, 6100000);
    free_bed(bed);
}

static void count_release(struct sl_frame *frame)
{
    ++*(int *)frame->owner;
}

// A frame that another one follows at the same address would pass for the same picture.
static void test_clip_holds_the_frame_it_compares_with(void **state)
{
    (void)state;
    struct bed *bed = make_bed("hold.db");
    struct sl_error e = {0};
    struct sl_clip *clip = NULL;
    struct sl_stream *stream = NULL;
    const struct sl_device_ops *ops = bed->model.device->ops;
    uint8_t pixels[64 * 64] = {0};
    int released[2] = {0};
    struct sl_frame frame[2];
    ok(sl_clip_create(bed->eye, 4, 0, &clip, &e), &e);
    ok(ops->stream_create(bed->model.device, &stream, &e), &e);
    sl_clip_begin(clip, 4);
    for (int i = 0; i < 2; i++) {
        frame[i] = (struct sl_frame){.plane = {pixels},
                                     .pitch = {64},
                                     .width = 64,
                                     .height = 64,
                                     .sar_num = 1,
                                     .sar_den = 1,
                                     .references = 1,
                                     .owner = &released[i],
                                     .release = count_release};
        ok(sl_clip_add(clip, stream, &frame[i], &e), &e);
        sl_frame_unref(&frame[i]);
        assert_int_equal(released[i], 0);
    }
    assert_int_equal(released[0], 1);
    ok(sl_clip_end(clip, stream, -1, &e), &e);
    assert_int_equal(released[1], 1);
    ops->stream_destroy(stream);
    sl_clip_destroy(clip);
    free_bed(bed);
}

// ---- Two models

static int add_model(const struct sl_db_model *model, void *user)
{
    int64_t *done = user; // [2]
    done[strcmp(model->name, "other") == 0] += model->windows_done;
    return 0;
}

static void test_who_takes_a_window(void **state)
{
    (void)state;
    struct bed *bed = make_bed("choice.db"), *second = make_bed("unused.db");
    struct sl_model *first = &bed->model, *other = &second->model;
    struct sl_choice both = {bed->eye, second->eye}, alone = {bed->eye, NULL};
    static const struct {
        int first, other, works, goes_to_other; // in flight, of 3; the other's own work
    } cases[] = {{0, 0, 0, 0}, {2, 0, 0, 0}, {3, 0, 0, 1}, {3, 2, 0, 1}, {3, 3, 0, 0}, {3, 0, 1, 0}, {9, 0, 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        atomic_store(&first->flying, cases[i].first);
        atomic_store(&other->flying, cases[i].other);
        assert_ptr_equal(sl_choice_now(&both, cases[i].works), cases[i].goes_to_other ? second->eye : bed->eye);
        assert_ptr_equal(sl_choice_now(&alone, 0), bed->eye);
    }
    free_bed(bed);
    free_bed(second);
}

// The first is held busy: the other takes what it has room for; interrupted and taken up again nothing is lost or
// twice.
static void test_another_stands_in(void **state)
{
    (void)state;
    struct bed *bed = make_bed("two.db"), *second = make_bed("unused.db");
    struct sl_error e = {0};
    struct sl_pipeline_progress p;
    const char *clip = make_clip("two.mp4", 38);
    int64_t done[2] = {0};
    snprintf(second->model.name, sizeof second->model.name, "other");
    bed->choice = (struct sl_choice){bed->eye, second->eye};
    atomic_store(&bed->model.flying, 3);
    bed->stop_after = 3;
    assert_int_equal(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), SL_ERR_INTERRUPTED);
    int64_t before = atomic_load(&p.windows_done);
    assert_int_equal(atomic_load(&bed->model.flying), 3);
    assert_int_equal(atomic_load(&second->model.flying), 0);
    bed->stop_after = -1;
    ok(index_clip(bed, clip, SL_NO_TIME, SL_NO_TIME, &p, &e), &e);
    assert_int_equal(atomic_load(&p.windows_skipped), before);
    assert_int_equal(atomic_load(&p.windows_done) + before, 10);
    assert_int_equal(cover_of(bed).seen_us, 38000000);
    ok(sl_db_models(bed->db, add_model, done, &e), &e);
    assert_int_equal(done[0] + done[1], 10);
    assert_true(done[1] >= 3); // its room, when all is quick to come
    free_bed(bed);
    free_bed(second);
}

static int setup(void **state)
{
    (void)state;
    return clip_folder_make() == NULL;
}

static int teardown(void **state)
{
    (void)state;
    clip_folder_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_then_nothing_left),
        cmocka_unit_test(test_spans_add_up),
        cmocka_unit_test(test_half_a_cell_is_done_again),
        cmocka_unit_test(test_interrupted_and_resumed),
        cmocka_unit_test(test_failing_device),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_claimed),
        cmocka_unit_test(test_behind_the_stated_end),
        cmocka_unit_test(test_ends_later_than_stated),
        cmocka_unit_test(test_states_three_years),
        cmocka_unit_test(test_from_behind_the_end),
        cmocka_unit_test(test_clip_holds_the_frame_it_compares_with),
        cmocka_unit_test(test_who_takes_a_window),
        cmocka_unit_test(test_another_stands_in),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
