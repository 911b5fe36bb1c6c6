// SPDX-License-Identifier: Apache-2.0
#include "tests/support/dbworld.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void must(int status, const struct sl_error *e)
{
    if (status != SL_OK)
        fail_msg("%d: %s", status, e->text);
}

void world_write_file(const struct world *world, const char *name, const char *content, char path[96])
{
    snprintf(path, 96, "%s/%s", world->folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

void world_add_source(struct world *world, const char *name)
{
    struct sl_error e;
    char path[96];
    world_write_file(world, name, name, path);
    must(sl_db_file(world->db, path, NULL, &world->media, &e), &e);
    struct sl_db_segment segment = {world->media.media, 0, SL_NO_TIME, SL_DB_CLOCK_NONE, SL_NO_TIME};
    must(sl_db_segment(world->db, &segment, &world->segment, &e), &e);
    must(sl_db_claim(world->db, world->media.source, world->task, &world->claim, &e), &e);
}

void world_open(struct world *world)
{
    struct sl_error e;
    *world = (struct world){.folder = "/tmp/scenelog-test-XXXXXX"};
    assert_non_null(mkdtemp(world->folder));
    snprintf(world->index, sizeof world->index, "%s/index.db", world->folder);
    must(sl_db_open(&world->db, world->index, SL_DB_WRITE, &e), &e);
    must(sl_db_task(world->db, "what happens?", 1000000, &world->task, &e), &e);
    must(sl_db_run_begin(world->db, "test", "", &world->run, &e), &e);
    world_add_source(world, "film.mp4");
}

void world_close(struct world *world)
{
    char command[128];
    sl_db_close(world->db);
    snprintf(command, sizeof command, "rm -rf %s", world->folder);
    assert_int_equal(system(command), 0);
}

void world_reopen(struct world *world, enum sl_db_mode mode)
{
    struct sl_error e;
    sl_db_close(world->db);
    must(sl_db_open(&world->db, world->index, mode, &e), &e);
}

static int64_t us(double seconds)
{
    return (int64_t)(seconds * 1e6);
}

int world_commit(struct world *world, double start_s, double end_s, enum sl_db_state state, const char *cause,
                 const struct said *said, int count, struct sl_error *e)
{
    struct sl_db_piece pieces[64];
    assert_true(count <= 64);
    for (int i = 0; i < count; i++)
        pieces[i] = (struct sl_db_piece){us(said[i].start_s), us(said[i].end_s), said[i].text, -1};
    struct sl_db_window window = {
        .segment = world->segment,
        .run = world->run,
        .start_us = us(start_s),
        .end_us = us(end_s),
        .state = state,
        .cause = cause,
        .model_name = "stub",
        .model_hash = "0",
        .pieces = pieces,
        .piece_count = count,
    };
    return sl_db_commit(world->db, &world->claim, &window, e);
}

void world_done(struct world *world, double start_s, double end_s, const struct said *said, int count)
{
    struct sl_error e;
    must(world_commit(world, start_s, end_s, SL_DB_DONE, NULL, said, count, &e), &e);
}

void world_not_done(struct world *world, double start_s, double end_s, enum sl_db_state state, const char *cause)
{
    struct sl_error e;
    must(world_commit(world, start_s, end_s, state, cause, NULL, 0, &e), &e);
}

static int print_event(const struct sl_db_event *event, void *file)
{
    fprintf(file, "%g-%g %s%s|", (double)event->start_us / 1e6, (double)event->end_us / 1e6, event->text,
            event->open ? "..." : "");
    return 0;
}

char *world_events(struct world *world, const struct sl_db_query *query)
{
    struct sl_error e;
    struct sl_db_query all = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    must(sl_db_query(world->db, query ? query : &all, print_event, file, &e), &e);
    fclose(file);
    return text;
}

static int print_span(const struct sl_db_span *span, void *file)
{
    static const char *const names[] = {"never", "dropped", "failed", "seen", "outage"};
    fprintf(file, "%s %g-%g%s%s|", names[span->seen], (double)span->start_us / 1e6, (double)span->end_us / 1e6,
            span->cause ? " " : "", span->cause ? span->cause : "");
    return 0;
}

char *world_coverage(struct world *world)
{
    struct sl_error e;
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    must(sl_db_coverage(world->db, world->media.source, world->task, print_span, file, &e), &e);
    fclose(file);
    return text;
}

static int fail_on_fault(const char *line, void *user)
{
    (void)user;
    fail_msg("%s", line);
    return 1;
}

void world_assert_whole(struct world *world)
{
    struct sl_error e;
    must(sl_db_verify(world->db, fail_on_fault, NULL, &e), &e);
}
