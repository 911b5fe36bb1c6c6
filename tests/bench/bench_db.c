// SPDX-License-Identifier: Apache-2.0
// Queries over an index of a million events: 100 sources of 100 hours, an event every 36 s of each, lengths as one
// meets them (most of seconds, some of minutes, a few of an hour). The limit stated in README.md is for the first line.
//   bench_db [EVENTS]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "db/store.h"

enum { SOURCES = 100, QUERIES = 2000 };
static const int64_t hour_us = 3600000000, length_us = 100 * hour_us;

static void must(int status, const struct sl_error *e)
{
    if (status != SL_OK) {
        fprintf(stderr, "bench_db: %s\n", e->text);
        exit(1);
    }
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

// Events alone, written past the derivation: what a query reads is the same. One in a thousand is "rare".
static const char fill_sql[] =
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1),"
    " e AS (SELECT i, i % 100 AS s, (i / 100) * (?2 * 100 / ?1) AS t,"
    "  CASE WHEN i % 997 = 0 THEN 3600000000 WHEN i % 31 = 0 THEN 300000000 ELSE 500000 + (i * 7919) % 20000000 END AS "
    "l"
    "  FROM n)"
    " INSERT INTO event (segment, task, start_us, end_us, text, words, text_key, confidence, model, open, span_class)"
    " SELECT s + 1, 1, t, t + l, CASE i % 3 WHEN 0 THEN 'A ' || CASE i % 1000 WHEN 3 THEN 'rare ' ELSE '' END ||"
    "  'red circle appears on the left' WHEN 1 THEN '一个红色的圆形出现在左边' ELSE 'The sign shows ' || i % 100 END,"
    "  CASE i % 3 WHEN 1 THEN '一 个 红 色 的 圆 形 出 现 在 左 边' END, i, 0.9, 1, 0, (l > 60000000) + (l > "
    "600000000) FROM e";

static void fill(struct sl_db *db, int64_t events)
{
    struct sl_error e;
    must(store_begin(db, &e), &e);
    int status = store_run(db, "INSERT INTO task (text, pair_us) VALUES ('t', 1000000)", NULL, &e);
    if (status == SL_OK)
        status = store_run(db, "INSERT INTO model (name, hash) VALUES ('m', 'h')", NULL, &e);
    for (int64_t i = 1; i <= SOURCES && status == SL_OK; i++) {
        char name[32];
        snprintf(name, sizeof name, "camera %d", (int)i);
        status = store_run(db, "INSERT INTO source (id, name) VALUES (?1, ?2)", BIND(bind_int(i), bind_text(name)), &e);
        if (status == SL_OK)
            status = store_run(db, "INSERT INTO media (id, source, path) VALUES (?1, ?1, ?2)",
                               BIND(bind_int(i), bind_text(name)), &e);
        if (status == SL_OK)
            status = store_run(db,
                               "INSERT INTO segment (id, media, start_us, clock, wall_start_us)"
                               " VALUES (?1, ?1, 0, 'user', 1700000000000000)",
                               BIND(bind_int(i)), &e);
        if (status == SL_OK)
            status =
                store_run(db, "INSERT INTO claim (source, task, answered_us) VALUES (?1, 1, 1)", BIND(bind_int(i)), &e);
    }
    if (status == SL_OK)
        status = store_run(db, fill_sql, BIND(bind_int(events), bind_int(length_us)), &e);
    must(store_end(db, status, &e), &e);
}

static int count_row(const struct sl_db_event *event, void *count)
{
    (void)event;
    ++*(int64_t *)count;
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Random spans of the given length; one source each, or all at once.
static void measure(struct sl_db *db, const char *what, int64_t span_us, int all_sources, int wall, const char *word,
                    int queries)
{
    static double took[QUERIES];
    struct sl_error e;
    int64_t rows = 0;
    srand(1);
    for (int i = 0; i < queries; i++) {
        char name[32];
        snprintf(name, sizeof name, "camera %d", rand() % SOURCES + 1);
        int64_t from_us = (int64_t)((double)rand() / RAND_MAX * (double)(length_us - span_us));
        from_us += wall ? 1700000000000000 : 0;
        struct sl_db_query query = {from_us, from_us + span_us, wall, all_sources ? NULL : name,
                                    &word,   word != NULL,      0,    0};
        double start = now_us();
        must(sl_db_query(db, &query, count_row, &rows, &e), &e);
        took[i] = now_us() - start;
    }
    qsort(took, (size_t)queries, sizeof *took, by_size);
    printf("%-52s p50 %9.1f us   p99 %9.1f us   %8.1f rows\n", what, took[queries / 2], took[queries * 99 / 100],
           (double)rows / queries);
}

// Windows of 30 s in order through the door: five events each, one of which goes on through all of them.
static void measure_commits(struct sl_db *db, const char *path)
{
    enum { WINDOWS = 1000 };
    static double took[WINDOWS];
    static const char *const texts[] = {"It rains all day.", "A dog runs.", "一个红色的圆形出现在左边", "A door opens.",
                                        "Two cars pass each other slowly."};
    struct sl_error e;
    struct sl_db_media media;
    struct sl_db_claim claim;
    int64_t task, run, segment;
    must(sl_db_task(db, "commits", 1000000, &task, &e), &e);
    must(sl_db_run_begin(db, "bench", "", &run, &e), &e);
    must(sl_db_file(db, path, NULL, &media, &e), &e);
    must(sl_db_segment(db, &(struct sl_db_segment){media.media, 0, SL_NO_TIME, SL_DB_CLOCK_NONE, SL_NO_TIME}, &segment,
                       &e),
         &e);
    must(sl_db_claim(db, media.source, task, &claim, &e), &e);
    for (int64_t i = 0; i < WINDOWS; i++) {
        int64_t start_us = i * 30000000;
        struct sl_db_piece pieces[5];
        for (int64_t k = 0; k < 5; k++)
            pieces[k] = (struct sl_db_piece){start_us + k * 5000000, start_us + k * 5000000 + 3000000, texts[k], 0.9};
        pieces[0].end_us = start_us + 30000000;
        struct sl_db_window window = {.segment = segment,
                                      .run = run,
                                      .start_us = start_us,
                                      .end_us = start_us + 30000000,
                                      .model_name = "m",
                                      .model_hash = "h",
                                      .pieces = pieces,
                                      .piece_count = 5};
        double start = now_us();
        must(sl_db_commit(db, &claim, &window, &e), &e);
        took[i] = now_us() - start;
    }
    double first = took[0], last = took[WINDOWS - 1];
    qsort(took, WINDOWS, sizeof *took, by_size);
    printf("%-52s p50 %9.1f us   p99 %9.1f us   first %.0f us, last %.0f us\n", "commit of a window of 5 events",
           took[WINDOWS / 2], took[WINDOWS * 99 / 100], first, last);
}

int main(int argc, char **argv)
{
    int64_t events = argc > 1 ? atoll(argv[1]) : 1000000;
    char folder[] = "/tmp/scenelog-bench-XXXXXX", path[64], command[64];
    struct sl_error e;
    struct sl_db *db;
    struct sl_db_stats stats;
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/index.db", folder);
    must(sl_db_open(&db, path, SL_DB_WRITE, &e), &e);
    double start = now_us();
    fill(db, events);
    double filled = now_us() - start;
    sl_db_close(db);
    must(sl_db_open(&db, path, SL_DB_READ, &e), &e);
    must(sl_db_stats(db, &stats, &e), &e);
    printf("%lld events in %.1f s, %.1f MB\n", (long long)events, filled / 1e6, (double)stats.file_bytes / 1e6);
    measure(db, "30 s of one source", 30000000, 0, 0, NULL, QUERIES);
    measure(db, "30 s of one source, wall time", 30000000, 0, 1, NULL, QUERIES);
    measure(db, "30 s of all 100 sources", 30000000, 1, 0, NULL, QUERIES);
    measure(db, "1 h of one source", hour_us, 0, 0, NULL, QUERIES);
    measure(db, "30 s of one source, a common word", 30000000, 0, 0, "red", QUERIES);
    measure(db, "30 s of one source, a Chinese phrase", 30000000, 0, 0, "红色", QUERIES);
    measure(db, "everything, a rare word", length_us - 1, 1, 0, "rare", 20);
    measure(db, "everything, a common word", length_us - 1, 1, 0, "red", 5);
    sl_db_close(db);
    must(sl_db_open(&db, path, SL_DB_WRITE, &e), &e);
    measure_commits(db, path);
    sl_db_close(db);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}
