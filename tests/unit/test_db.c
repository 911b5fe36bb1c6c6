// SPDX-License-Identifier: Apache-2.0
// The index as a file that processes share: opening, identity of sources and media, claims, full disks, kills.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "db/store.h"
#include "tests/support/dbworld.h"

static int setup(void **state)
{
    world_open(*state = malloc(sizeof(struct world)));
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static void execute(struct world *w, const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(w->db->sqlite, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static int64_t value(struct world *w, const char *sql)
{
    int64_t out = -1;
    assert_true(store_value(w->db, &out, sql, NULL, NULL) >= 0);
    return out;
}

static void assert_text(char *got, const char *expected)
{
    assert_string_equal(got, expected);
    free(got);
}

static const struct said light = {0, 5, "The light is on."};

// --- Opening ---

static void test_file_settings(void **state)
{
    struct world *w = *state;
    assert_int_equal(value(w, "PRAGMA auto_vacuum"), 2);
    assert_int_equal(value(w, "PRAGMA page_size"), 4096);
    assert_int_equal(value(w, "PRAGMA foreign_keys"), 1);
    assert_int_equal(value(w, "PRAGMA user_version"), STORE_SCHEMA_VERSION);
    assert_int_equal(value(w, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

static void test_newer_version_is_refused(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db *db;
    execute(w, "PRAGMA user_version = 99");
    assert_int_equal(sl_db_open(&db, w->index, SL_DB_READ, &e), SL_ERR_INDEX_VERSION);
    assert_null(db);
    assert_int_equal(sl_db_open(&db, w->index, SL_DB_WRITE, &e), SL_ERR_INDEX_VERSION);
    assert_non_null(strstr(e.text, "newer"));
    assert_int_equal(value(w, "PRAGMA user_version"), 99);
}

static void test_what_is_no_index(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db *db;
    char path[96];
    snprintf(path, sizeof path, "%s/none.db", w->folder);
    assert_int_equal(sl_db_open(&db, path, SL_DB_READ, &e), SL_ERR_OPEN);
    assert_int_equal(access(path, F_OK), -1); // reading makes no file
    assert_int_equal(sl_db_open(&db, w->folder, SL_DB_WRITE, &e), SL_ERR_OPEN);
    assert_int_equal(sl_db_open(&db, "", SL_DB_WRITE, &e), SL_ERR_USAGE);

    world_write_file(w, "text.db",
                     "This is a text, and long enough to be no SQLite header at all. Not at all, I say. "
                     "A header has one hundred bytes, so here are some more of them.",
                     path);
    assert_int_equal(sl_db_open(&db, path, SL_DB_READ, &e), SL_ERR_INDEX);
    assert_int_equal(sl_db_open(&db, path, SL_DB_WRITE, &e), SL_ERR_INDEX);
    world_write_file(w, "empty.db", "", path);
    assert_int_equal(sl_db_open(&db, path, SL_DB_READ, &e), SL_ERR_INDEX);
    assert_int_equal(sl_db_open(&db, path, SL_DB_WRITE, &e), SL_OK); // an empty file becomes one
    sl_db_close(db);

    sqlite3 *other;
    snprintf(path, sizeof path, "%s/other.db", w->folder);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE note (text)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    assert_int_equal(sl_db_open(&db, path, SL_DB_WRITE, &e), SL_ERR_INDEX);
    assert_int_equal(sl_db_open(&db, path, SL_DB_READ, &e), SL_ERR_INDEX);
}

static void test_damage_is_an_index_error(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    for (int i = 0; i < 200; i++)
        world_done(w, i * 10, i * 10 + 10, &(struct said){i * 10 + 1, i * 10 + 2, "A thing happens."}, 1);
    world_reopen(w, SL_DB_WRITE); // closing brought all into the file
    FILE *file = fopen(w->index, "r+");
    assert_non_null(file);
    for (long at = 4096; at < 40 * 4096; at += 512) {
        fseek(file, at, SEEK_SET);
        fputs("damage damage damage", file);
    }
    fclose(file);
    struct sl_db_query all = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
    struct sl_db *db;
    int status = sl_db_open(&db, w->index, SL_DB_READ, &e);
    if (status == SL_OK)
        status = sl_db_query(db, &all, (int (*)(const struct sl_db_event *, void *))abort, NULL, &e);
    assert_int_equal(status, SL_ERR_INDEX);
    sl_db_close(db);
}

// What runs in a child returns its verdict as the exit status: cmocka's assertions would unwind the parent's test.
static int run_child(struct world *w, int (*child)(struct world *))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(child(w));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int count_event(const struct sl_db_event *event, void *count)
{
    (void)event;
    ++*(int *)count;
    return 0;
}

static int count_events(struct sl_db *db)
{
    struct sl_error e;
    struct sl_db_query all = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
    int count = 0;
    return sl_db_query(db, &all, count_event, &count, &e) == SL_OK ? count : -1;
}

static int read_as_nobody(struct world *w)
{
    struct sl_error e;
    struct sl_db *db;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 90;
    if (access(w->folder, W_OK) == 0)
        return 91;
    int status = sl_db_open(&db, w->index, SL_DB_READ, &e);
    int count = status == SL_OK ? count_events(db) : -status;
    sl_db_close(db);
    return count;
}

static void test_reading_where_nothing_may_be_written(void **state)
{
    struct world *w = *state;
    world_done(w, 0, 10, &light, 1);
    assert_int_equal(chmod(w->index, 0444) | chmod(w->folder, 0555), 0);
    assert_int_equal(run_child(w, read_as_nobody), 1); // while the writer has it open, its -shm there
    sl_db_close(w->db);
    assert_int_equal(run_child(w, read_as_nobody), 1); // when it is closed
    assert_int_equal(chmod(w->index, 0644) | chmod(w->folder, 0755), 0);
    struct sl_error e;
    assert_int_equal(sl_db_open(&w->db, w->index, SL_DB_WRITE, &e), SL_OK);
}

static void test_reader_sees_commits_while_a_writer_writes(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db *reader;
    assert_int_equal(sl_db_open(&reader, w->index, SL_DB_READ, &e), SL_OK);
    assert_int_equal(count_events(reader), 0);
    world_done(w, 0, 10, &light, 1);
    execute(w, "BEGIN IMMEDIATE; DELETE FROM event");
    assert_int_equal(count_events(reader), 1); // neither waits nor sees what is not committed
    execute(w, "ROLLBACK");
    int64_t run;
    assert_int_equal(sl_db_run_begin(reader, "test", "", &run, &e), SL_ERR_OPEN); // a reader cannot write
    sl_db_close(reader);
}

// --- Sources and media ---

static void resolve(struct world *w, const char *path, const char *name, struct sl_db_media *out)
{
    struct sl_error e;
    if (sl_db_file(w->db, path, name, out, &e) != SL_OK)
        fail_msg("%s", e.text);
}

static void test_media_identity(void **state)
{
    struct world *w = *state;
    struct sl_db_media first, again;
    char path[96], moved[96];
    world_write_file(w, "a.ts", "the beginning of a long recording", path);
    resolve(w, path, NULL, &first);
    assert_string_equal(first.source_name, "a.ts");
    assert_false(first.known);
    resolve(w, path, NULL, &again);
    assert_true(again.known && !again.grown && again.media == first.media);

    snprintf(moved, sizeof moved, "%s/b.ts", w->folder); // moved: the content tells, and it keeps its source
    assert_int_equal(rename(path, moved), 0);
    resolve(w, moved, NULL, &again);
    assert_true(again.known && again.media == first.media);
    assert_string_equal(again.source_name, "a.ts");
    assert_int_equal(value(w, "SELECT count(*) FROM media WHERE path LIKE '%/b.ts'"), 1);

    world_write_file(w, "b.ts", "the beginning of a long recording, and what came later", moved);
    resolve(w, moved, NULL, &again);
    assert_true(again.known && again.grown && again.media == first.media);
    resolve(w, moved, NULL, &again);
    assert_true(again.known && !again.grown && again.media == first.media);

    world_write_file(w, "b.ts", "something else, much longer than what was there before it came", moved);
    resolve(w, moved, "a.ts", &again); // the same place, another content
    assert_true(!again.known && again.media != first.media && again.source == first.source);
    resolve(w, moved, "camera", &again); // the same content under another name
    assert_true(!again.known && again.source != first.source);
    assert_string_equal(again.source_name, "camera");
}

static void test_growth_reopens_the_segment(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char path[96];
    struct sl_db_media media;
    world_done(w, 0, 10, (struct said[]){{5, 10, "A dog runs."}}, 1);
    assert_text(world_events(w, NULL), "5-10 A dog runs....|");
    assert_int_equal(sl_db_segment_end(w->db, w->segment, 10000000, &e), SL_OK);
    assert_text(world_events(w, NULL), "5-10 A dog runs.|");
    world_write_file(w, "film.mp4", "film.mp4 and more", path);
    resolve(w, path, NULL, &media);
    assert_true(media.grown);
    assert_text(world_events(w, NULL), "5-10 A dog runs....|");
    world_done(w, 10, 20, (struct said[]){{10, 13, "a dog runs"}}, 1);
    assert_text(world_events(w, NULL), "5-13 A dog runs.|");
    world_assert_whole(w);
}

static void test_bad_media(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db_media media;
    char path[96], name[400];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    assert_int_equal(sl_db_file(w->db, "/nowhere/at/all.mp4", NULL, &media, &e), SL_ERR_OPEN);
    assert_int_equal(sl_db_file(w->db, w->folder, NULL, &media, &e), SL_ERR_OPEN);
    world_write_file(w, "empty.mp4", "", path);
    assert_int_equal(sl_db_file(w->db, path, NULL, &media, &e), SL_ERR_EMPTY);
    world_write_file(w, "some.mp4", "some", path);
    assert_int_equal(sl_db_file(w->db, path, name, &media, &e), SL_ERR_USAGE);
    assert_int_equal(sl_db_file(w->db, path, "", &media, &e), SL_ERR_USAGE);
    assert_int_equal(value(w, "SELECT count(*) FROM source"), 1); // nothing of it stayed
}

static void test_rows_are_found_again(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    int64_t task, segment;
    assert_int_equal(sl_db_task(w->db, "what happens?", 1000000, &task, &e), SL_OK);
    assert_int_equal(task, w->task);
    assert_int_equal(sl_db_task(w->db, "what else?", 1000000, &task, &e), SL_OK);
    assert_int_not_equal(task, w->task);
    struct sl_db_segment at = {w->media.media, 0, 1700000000000000, SL_DB_CLOCK_USER, SL_NO_TIME};
    assert_int_equal(sl_db_segment(w->db, &at, &segment, &e), SL_OK);
    assert_int_equal(segment, w->segment);
    at.wall_start_us = SL_NO_TIME; // a later run without --start-time keeps it
    assert_int_equal(sl_db_segment(w->db, &at, &segment, &e), SL_OK);
    assert_int_equal(value(w, "SELECT wall_start_us FROM segment WHERE clock = 'user'"), 1700000000000000);
}

// --- Claims ---

static void test_claim_refuses_a_live_holder(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db *other;
    struct sl_db_claim claim, another_task;
    int64_t task;
    assert_int_equal(sl_db_open(&other, w->index, SL_DB_WRITE, &e), SL_OK);
    assert_int_equal(sl_db_claim(other, w->media.source, w->task, &claim, &e), SL_ERR_BUSY);
    assert_non_null(strstr(e.text, "film.mp4"));
    assert_null(strchr(e.text, '\n'));
    assert_int_equal(sl_db_task(other, "another", 1, &task, &e), SL_OK);
    assert_int_equal(sl_db_claim(other, w->media.source, task, &another_task, &e), SL_OK);
    assert_int_equal(sl_db_release(w->db, &w->claim, &e), SL_OK);
    assert_int_equal(sl_db_claim(other, w->media.source, w->task, &claim, &e), SL_OK);
    assert_int_equal(sl_db_heartbeat(other, &claim, &e), SL_OK);
    assert_int_equal(sl_db_heartbeat(w->db, &w->claim, &e), SL_ERR_BUSY);
    assert_int_equal(sl_db_release(w->db, &w->claim, &e), SL_OK); // of what is no longer ours: nothing
    assert_int_equal(sl_db_heartbeat(other, &claim, &e), SL_OK);
    sl_db_close(other);
}

static void test_silent_holder_is_taken_over_and_cannot_write(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db_claim old = w->claim;
    execute(w, "UPDATE claim SET heartbeat_us = heartbeat_us - 25000000");
    assert_int_equal(sl_db_claim(w->db, old.source, old.task, &w->claim, &e), SL_ERR_BUSY);
    execute(w, "UPDATE claim SET heartbeat_us = heartbeat_us - 10000000");
    assert_int_equal(sl_db_claim(w->db, old.source, old.task, &w->claim, &e), SL_OK);
    struct sl_db_claim mine = w->claim;
    w->claim = old;
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, &light, 1, &e), SL_ERR_BUSY);
    assert_int_equal(value(w, "SELECT count(*) FROM window"), 0);
    w->claim = mine;
    world_done(w, 0, 10, &light, 1);
}

static void test_claim_of_another_machine_lives_by_its_heartbeat(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    execute(w, "UPDATE claim SET machine = 'another', pid = 999999999");
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_ERR_BUSY);
    execute(w, "UPDATE claim SET machine = NULL");
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_ERR_BUSY);
    execute(w, "UPDATE claim SET heartbeat_us = heartbeat_us - 31000000");
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_OK);
    execute(w, "UPDATE claim SET process_start = process_start - 1"); // the pid lives but is another process's now
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_OK);
}

static int claim_and_die(struct world *w)
{
    struct sl_error e;
    struct sl_db *db;
    struct sl_db_claim claim;
    int status = sl_db_open(&db, w->index, SL_DB_WRITE, &e);
    return status == SL_OK ? -sl_db_claim(db, w->media.source, w->task, &claim, &e) : 99;
}

static void test_dead_holder_is_taken_over_at_once(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    assert_int_equal(run_child(w, claim_and_die), -SL_ERR_BUSY);
    assert_int_equal(sl_db_release(w->db, &w->claim, &e), SL_OK);
    assert_int_equal(run_child(w, claim_and_die), 0); // dies with the claim in hand
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_OK);
}

// --- Several writers, kills, full disks ---

enum { MANY = 150 };

static int write_many(struct world *w, const char *name)
{
    struct sl_error e;
    struct world mine = *w;
    if (sl_db_open(&mine.db, w->index, SL_DB_WRITE, &e) != SL_OK)
        return 1;
    world_add_source(&mine, name);
    for (int i = 0; i < MANY; i++)
        if (world_commit(&mine, i, i + 1, SL_DB_DONE, NULL, &(struct said){i, i + 1, name}, 1, &e) != SL_OK)
            return 2;
    sl_db_close(mine.db);
    return 0;
}

static void test_two_processes_write_one_file(void **state)
{
    struct world *w = *state;
    pid_t pids[2];
    for (int i = 0; i < 2; i++)
        if ((pids[i] = fork()) == 0)
            _exit(write_many(w, i ? "one.mp4" : "two.mp4"));
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(value(w, "SELECT count(*) FROM window"), 2 * MANY);
    assert_text(world_events(w, NULL), "0-150 one.mp4...|0-150 two.mp4...|");
    world_assert_whole(w);
}

static void test_killed_writers_leave_whole_windows(void **state)
{
    struct world *w = *state;
    for (int round = 0; round < 10; round++) {
        char name[32];
        snprintf(name, sizeof name, "%d.mp4", round);
        pid_t pid = fork();
        if (pid == 0)
            _exit(write_many(w, name));
        nanosleep(&(struct timespec){.tv_nsec = (5 + 20 * round) * 1000000L}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        world_assert_whole(w);
    }
    // Each window has its piece and its answer, or is not there.
    assert_int_equal(value(w, "SELECT count(*) FROM window WHERE state = 'done' AND id NOT IN"
                              " (SELECT answer.window FROM answer JOIN piece ON piece.window = answer.window)"),
                     0);
    assert_true(value(w, "SELECT count(*) FROM window") > 0);
}

static void test_full_disk_keeps_what_was_committed(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char long_text[4000];
    memset(long_text, 'a', sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    execute(w, "PRAGMA max_page_count = 150");
    int status = SL_OK, committed = 0;
    while (status == SL_OK && committed < 200) {
        struct said said = {committed, committed + 1, long_text};
        long_text[0] = (char)('a' + committed % 26);
        status = world_commit(w, committed, committed + 1, SL_DB_DONE, NULL, &said, 1, &e);
        committed += status == SL_OK;
    }
    assert_int_equal(status, SL_ERR_DISK_FULL);
    assert_true(committed > 5);
    assert_int_equal(value(w, "SELECT count(*) FROM window"), committed);
    world_assert_whole(w);
    execute(w, "PRAGMA max_page_count = 100000"); // room again: work goes on over the same connection
    world_done(w, committed, committed + 1, &(struct said){committed, committed + 1, "more"}, 1);
    world_assert_whole(w);
}

// --- Verification and figures ---

static int count_fault(const char *line, void *count)
{
    (void)line;
    ++*(int *)count;
    return 0;
}

static int faults_after(struct world *w, const char *sql)
{
    struct sl_error e;
    int faults = 0;
    execute(w, "PRAGMA foreign_keys = OFF");
    execute(w, sql);
    if (sl_db_verify(w->db, count_fault, &faults, &e) != SL_OK)
        fail_msg("%s", e.text);
    return faults;
}

static void test_verify_finds_what_was_tampered_with(void **state)
{
    struct world *w = *state;
    const char *const harms[] = {
        "UPDATE event SET end_us = end_us + 1",
        "UPDATE event SET open = 0",
        "DELETE FROM event WHERE id = 1",
        "UPDATE piece SET text = 'another'",
        "DELETE FROM part",
        "DELETE FROM answer",
        "UPDATE answer SET end_us = end_us + 5",
        "DELETE FROM window",
        "INSERT INTO event_fts (rowid, text) VALUES (77, 'nonsense')",
        "INSERT INTO event_fts (event_fts) VALUES ('delete-all')",
    };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        world_close(w);
        world_open(w);
        world_done(w, 0, 10, (struct said[]){{1, 2, "Something."}, {5, 10, "Else."}}, 2);
        world_assert_whole(w);
        if (faults_after(w, harms[i]) == 0)
            fail_msg("not found: %s", harms[i]);
    }
}

static void test_stats_and_works(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db_stats stats;
    world_done(w, 0, 10, (struct said[]){{1, 2, "Something."}, {5, 6, "Else."}}, 2);
    world_not_done(w, 10, 20, SL_DB_FAILED, "no JSON");
    world_reopen(w, SL_DB_READ);
    assert_int_equal(sl_db_stats(w->db, &stats, &e), SL_OK);
    assert_int_equal(stats.sources, 1);
    assert_int_equal(stats.windows_done, 1);
    assert_int_equal(stats.windows_failed, 1);
    assert_int_equal(stats.events, 2);
    assert_int_equal(stats.pieces, 2);
    assert_int_equal(stats.schema_version, STORE_SCHEMA_VERSION);
    assert_true(stats.file_bytes > 4096);
}

int main(void)
{
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_file_settings),
        IN_WORLD(test_newer_version_is_refused),
        IN_WORLD(test_what_is_no_index),
        IN_WORLD(test_damage_is_an_index_error),
        IN_WORLD(test_reading_where_nothing_may_be_written),
        IN_WORLD(test_reader_sees_commits_while_a_writer_writes),
        IN_WORLD(test_media_identity),
        IN_WORLD(test_growth_reopens_the_segment),
        IN_WORLD(test_bad_media),
        IN_WORLD(test_rows_are_found_again),
        IN_WORLD(test_claim_refuses_a_live_holder),
        IN_WORLD(test_silent_holder_is_taken_over_and_cannot_write),
        IN_WORLD(test_claim_of_another_machine_lives_by_its_heartbeat),
        IN_WORLD(test_dead_holder_is_taken_over_at_once),
        IN_WORLD(test_two_processes_write_one_file),
        IN_WORLD(test_killed_writers_leave_whole_windows),
        IN_WORLD(test_full_disk_keeps_what_was_committed),
        IN_WORLD(test_verify_finds_what_was_tampered_with),
        IN_WORLD(test_stats_and_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
