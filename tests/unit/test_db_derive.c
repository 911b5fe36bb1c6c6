// SPDX-License-Identifier: Apache-2.0
// Events from windows: what joins, what stays, and that the order of work does not matter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void assert_text(char *got, const char *expected)
{
    assert_string_equal(got, expected);
    free(got);
}

#define DONE(start_s, end_s, ...)                                                                                      \
    world_done(w, start_s, end_s, (struct said[]){__VA_ARGS__},                                                        \
               (int)(sizeof(struct said[]){__VA_ARGS__} / sizeof(struct said)))

static void test_repeats_in_a_window_are_one(void **state)
{
    struct world *w = *state;
    DONE(0, 20, {1, 3, "A dog runs."}, {3, 5, "a dog  runs"}, {4, 6, "A DOG RUNS!"}, {8, 9, "A dog runs."},
         {2, 4, "A cat runs."});
    assert_text(world_events(w, NULL), "1-6 A dog runs.|2-4 A cat runs.|8-9 A dog runs.|");
    world_assert_whole(w);
}

static void test_joins_at_the_edge(void **state)
{
    struct world *w = *state;
    DONE(0, 10, {2, 9, "One second short."}, {3, 8.5, "Too short."}, {9, 10, "Cut here."});
    DONE(10, 20, {11, 12, "One second short"}, {10, 12, "Too short."}, {10, 20, "cut here"});
    DONE(20, 30, {20, 25, "Cut here!"}, {21.5, 23, "One second short."});
    assert_text(world_events(w, NULL), "2-12 One second short.|3-8.5 Too short.|9-25 Cut here.|10-12 Too short.|"
                                       "21.5-23 One second short.|");
    world_assert_whole(w);
}

static void test_open_until_the_next_window_speaks(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    DONE(0, 10, {2, 10, "It rains."}, {2, 5, "It blinks."});
    assert_text(world_events(w, NULL), "2-5 It blinks.|2-10 It rains....|");
    world_not_done(w, 10, 20, SL_DB_FAILED, "no JSON");
    assert_text(world_events(w, NULL), "2-5 It blinks.|2-10 It rains.|");
    DONE(20, 30, {20, 30, "It rains."});
    assert_text(world_events(w, NULL), "2-5 It blinks.|2-10 It rains.|20-30 It rains....|");
    DONE(10, 20, {10, 20, "it rains"}); // the failed one, redone
    assert_text(world_events(w, NULL), "2-5 It blinks.|2-30 It rains....|");
    assert_int_equal(sl_db_segment_end(w->db, w->segment, 30000000, &e), SL_OK);
    assert_text(world_events(w, NULL), "2-5 It blinks.|2-30 It rains.|");
    world_assert_whole(w);
}

static void test_redo_replaces_and_failure_hides_nothing(void **state)
{
    struct world *w = *state;
    DONE(0, 10, {1, 10, "It rains."});
    DONE(10, 20, {10, 20, "It rains."});
    DONE(20, 30, {20, 25, "It rains."});
    world_not_done(w, 10, 20, SL_DB_FAILED, "the redo broke");
    assert_text(world_events(w, NULL), "1-25 It rains.|");
    assert_text(world_coverage(w), "seen 0-30|");
    DONE(10, 20, {12, 13, "It snows."});
    assert_text(world_events(w, NULL), "1-10 It rains.|12-13 It snows.|20-25 It rains.|");
    world_assert_whole(w);
}

static void test_newest_window_answers_for_the_overlap(void **state)
{
    struct world *w = *state;
    DONE(0, 30, {5, 25, "Long."}, {14, 16, "Inside."});
    DONE(10, 20, {11, 12, "Fresh."}); // what sticks out on both sides stays
    assert_text(world_events(w, NULL), "5-10 Long.|11-12 Fresh.|20-25 Long.|");
    DONE(5, 12, {10, 12, "Long."});
    assert_text(world_events(w, NULL), "10-12 Long.|20-25 Long.|");
    DONE(12, 20, {12, 20, "long"});
    assert_text(world_events(w, NULL), "10-25 Long.|");
    world_assert_whole(w);
}

struct identity {
    int64_t id, revision;
};

static int take_identity(const struct sl_db_event *event, void *out)
{
    *(struct identity *)out = (struct identity){event->id, event->revision};
    return 1;
}

static struct identity identity_of(struct world *w, const char *word)
{
    struct sl_error e;
    struct identity out = {0, 0};
    struct sl_db_query query = {SL_NO_TIME, SL_NO_TIME, 0, NULL, &word, 1, 0, 0, 0};
    assert_int_equal(sl_db_query(w->db, &query, take_identity, &out, &e), SL_OK);
    return out;
}

static void test_ids_stay_and_revisions_count(void **state)
{
    struct world *w = *state;
    DONE(0, 10, {1, 10, "It rains."}, {2, 3, "It blinks."});
    struct identity rain = identity_of(w, "rains"), blink = identity_of(w, "blinks");
    assert_int_equal(rain.revision, 1);
    DONE(10, 20, {10, 20, "It rains."});
    assert_int_equal(identity_of(w, "rains").id, rain.id);
    assert_int_equal(identity_of(w, "rains").revision, 2);
    assert_int_equal(identity_of(w, "blinks").revision, 1);
    DONE(0, 10, {2, 10, "It rains."}, {2, 3, "It blinks."}); // redone, almost the same
    assert_int_equal(identity_of(w, "rains").id, rain.id);
    assert_int_equal(identity_of(w, "rains").revision, 3);
    assert_int_equal(identity_of(w, "blinks").id, blink.id);
    assert_int_equal(identity_of(w, "blinks").revision, 1);
    DONE(0, 10, {2, 10, "It rains."}); // an id that is gone never comes back
    DONE(0, 10, {2, 10, "It rains."}, {2, 3, "It blinks."});
    assert_true(identity_of(w, "blinks").id > blink.id);
}

static int take_confidence(const struct sl_db_event *event, void *out)
{
    *(double *)out = event->confidence;
    return 1;
}

static void test_confidence_is_the_least_known(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    const double given[3] = {0.75, -1, 0.5};
    double got = 0;
    struct sl_db_query all = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME};
    for (int i = 0; i < 3; i++) {
        struct sl_db_piece piece = {i * 10000000, (i + 1) * 10000000, "It rains.", given[i]};
        struct sl_db_window window = {.segment = w->segment,
                                      .run = w->run,
                                      .start_us = piece.start_us,
                                      .end_us = piece.end_us,
                                      .model_name = "stub",
                                      .model_hash = "0",
                                      .pieces = &piece,
                                      .piece_count = 1};
        assert_int_equal(sl_db_commit(w->db, &w->claim, &window, &e), SL_OK);
        assert_int_equal(sl_db_query(w->db, &all, take_confidence, &got, &e), SL_OK);
        assert_true(got == (i == 2 ? 0.5 : 0.75));
    }
}

static void test_bad_windows_are_refused_whole(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    const struct said outside = {5, 11, "Beyond."}, empty = {5, 5, "Empty."}, mute = {1, 2, ""},
                      broken = {1, 2, "\xff\xfe"};
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, &outside, 1, &e), SL_ERR_INTERNAL);
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, &empty, 1, &e), SL_ERR_INTERNAL);
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, &mute, 1, &e), SL_ERR_INTERNAL);
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, &broken, 1, &e), SL_ERR_INTERNAL);
    assert_int_equal(world_commit(w, 10, 10, SL_DB_DONE, NULL, NULL, 0, &e), SL_ERR_INTERNAL);
    assert_int_equal(world_commit(w, 0, 10, SL_DB_FAILED, NULL, NULL, 0, &e), SL_ERR_INTERNAL);
    int64_t first = w->segment;
    world_add_source(w, "other.mp4");
    w->segment = first; // not of the claimed source
    assert_int_equal(world_commit(w, 0, 10, SL_DB_DONE, NULL, NULL, 0, &e), SL_ERR_INTERNAL);
    struct sl_db_stats stats;
    assert_int_equal(sl_db_stats(w->db, &stats, &e), SL_OK);
    assert_int_equal(stats.windows_done + stats.windows_failed + stats.pieces, 0);
}

// --- Coverage and resuming ---

static void test_coverage(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_db_media_info info = {100000000, "mp4", "h264"};
    assert_text(world_coverage(w), "");
    assert_int_equal(sl_db_describe(w->db, w->media.media, &info, &e), SL_OK);
    assert_text(world_coverage(w), "never 0-100|");
    DONE(10, 20, {11, 12, "Thing."});
    world_done(w, 20, 30, NULL, 0);
    world_not_done(w, 30, 40, SL_DB_FAILED, "no JSON");
    world_not_done(w, 40, 50, SL_DB_DROPPED, "behind");
    struct sl_db_hole holes[2] = {{52000000, 54000000, "damaged"}, {58000000, 60000000, "truncated"}};
    struct sl_db_window window = {.segment = w->segment,
                                  .run = w->run,
                                  .start_us = 50000000,
                                  .end_us = 60000000,
                                  .model_name = "stub",
                                  .model_hash = "0",
                                  .holes = holes,
                                  .hole_count = 2};
    assert_int_equal(sl_db_commit(w->db, &w->claim, &window, &e), SL_OK);
    assert_text(world_coverage(w), "never 0-10|seen 10-30|failed 30-40 no JSON|dropped 40-50 behind|seen 50-52|"
                                   "outage 52-54 damaged|seen 54-58|outage 58-60 truncated|never 60-100|");
    assert_int_equal(sl_db_segment_end(w->db, w->segment, 70000000, &e), SL_OK); // the container was wrong
    world_done(w, 30, 40, NULL, 0);
    world_done(w, 55, 65, NULL, 0);
    assert_text(world_coverage(w), "never 0-10|seen 10-40|dropped 40-50 behind|seen 50-52|outage 52-54 damaged|"
                                   "seen 54-65|never 65-70|");
    world_assert_whole(w);
}

static int is_done(struct world *w, double start_s, double end_s)
{
    struct sl_error e;
    int done = -1;
    assert_int_equal(
        sl_db_is_done(w->db, w->segment, w->task, (int64_t)(start_s * 1e6), (int64_t)(end_s * 1e6), &done, &e), SL_OK);
    return done;
}

static void test_what_is_done_already(void **state)
{
    struct world *w = *state;
    assert_false(is_done(w, 0, 10));
    world_done(w, 0, 10, NULL, 0);
    world_done(w, 10, 20, NULL, 0);
    world_not_done(w, 20, 30, SL_DB_FAILED, "no JSON");
    world_done(w, 30, 40, NULL, 0);
    assert_true(is_done(w, 0, 10) && is_done(w, 0, 20) && is_done(w, 5, 15) && is_done(w, 30, 40));
    assert_false(is_done(w, 20, 30) || is_done(w, 15, 25) || is_done(w, 0, 40) || is_done(w, 35, 45));
    assert_false(is_done(w, 50, 60));
    struct sl_error e; // behind the end there is nothing to do
    assert_int_equal(sl_db_segment_end(w->db, w->segment, 38000000, &e), SL_OK);
    assert_true(is_done(w, 50, 60) && is_done(w, 30, 60));
    assert_false(is_done(w, 20, 60));
}

// --- The order of work does not matter ---

static unsigned next_random(unsigned *seed, unsigned below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 10) % below;
}

enum { WINDOWS = 6, LENGTH = 10, PIECES = 5, COMMITS = 30, SECONDS = WINDOWS * LENGTH };

struct commit {
    int start_s, end_s, failed, count;
    struct said said[PIECES];
};

static const char *const texts[] = {"A dog runs.", "a dog runs", "It rains.", "It rains!"};

static void random_answer(struct commit *commit, unsigned *seed)
{
    unsigned length = (unsigned)(commit->end_s - commit->start_s);
    commit->failed = 0;
    commit->count = (int)next_random(seed, PIECES + 1);
    for (int i = 0; i < commit->count; i++) {
        unsigned from = next_random(seed, length);
        unsigned to = from + 1 + next_random(seed, length - from);
        commit->said[i] =
            (struct said){commit->start_s + (int)from, commit->start_s + (int)to, texts[next_random(seed, 4)]};
    }
}

static char *do_all(struct world *w, const char *name, const struct commit *commits, int count)
{
    world_add_source(w, name);
    for (int i = 0; i < count; i++) {
        const struct commit *c = &commits[i];
        if (c->failed)
            world_not_done(w, c->start_s, c->end_s, SL_DB_FAILED, "failed");
        else
            world_done(w, c->start_s, c->end_s, c->said, c->count);
    }
    struct sl_db_query query = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME, .source_glob = name};
    return world_events(w, &query);
}

static void test_any_order_with_redos_gives_the_same_events(void **state)
{
    struct world *w = *state;
    for (unsigned round = 0; round < 25; round++) {
        unsigned seed = round * 977 + 1;
        struct commit in_order[WINDOWS], mixed[COMMITS];
        int count = 0, order[WINDOWS];
        for (int i = 0; i < WINDOWS; i++) {
            in_order[i] = (struct commit){.start_s = i * LENGTH, .end_s = (i + 1) * LENGTH};
            random_answer(&in_order[i], &seed);
            order[i] = i;
        }
        for (int i = WINDOWS - 1; i > 0; i--) {
            int k = (int)next_random(&seed, (unsigned)i + 1), kept = order[i];
            order[i] = order[k];
            order[k] = kept;
        }
        for (int i = 0; i < 10; i++) { // other answers and failures first
            mixed[count] = in_order[next_random(&seed, WINDOWS)];
            random_answer(&mixed[count], &seed);
            mixed[count++].failed = next_random(&seed, 3) == 0;
        }
        for (int i = 0; i < WINDOWS; i++) { // the true answers in any order, each perhaps followed by a failed redo
            mixed[count++] = in_order[order[i]];
            mixed[count] = in_order[order[i]];
            mixed[count].failed = 1;
            count += next_random(&seed, 2) == 0;
        }
        char name[2][32];
        snprintf(name[0], sizeof name[0], "ordered %u", round);
        snprintf(name[1], sizeof name[1], "mixed %u", round);
        char *expected = do_all(w, name[0], in_order, WINDOWS);
        assert_text(do_all(w, name[1], mixed, count), expected);
        free(expected);
    }
    world_assert_whole(w);
}

// Another way to the same end, second by second: who answers is looked up, and groups grow until nothing changes.
struct stretch {
    int start_s, end_s, patch_start_s, patch_end_s, word, group;
};

static int owner_at(const struct commit *commits, int count, int second)
{
    for (int i = count - 1; i >= 0; i--)
        if (!commits[i].failed && commits[i].start_s <= second && second < commits[i].end_s)
            return i;
    return -1;
}

// Seconds of one word in one patch, repeats merged.
static int find_stretches(const struct commit *commits, int count, struct stretch *out)
{
    int found = 0;
    for (int word = 0; word < 2; word++) {
        for (int start = 0; start < SECONDS;) {
            int owner = owner_at(commits, count, start), end = start + 1;
            while (end < SECONDS && owner_at(commits, count, end) == owner)
                end++;
            int said[SECONDS] = {0};
            for (int i = 0; owner >= 0 && i < commits[owner].count; i++) {
                const struct said *s = &commits[owner].said[i];
                for (int second = (int)s->start_s; second < (int)s->end_s; second++)
                    said[second] |= (s->text[0] == 'I') == word;
            }
            for (int second = start; second < end; second++) {
                if (!said[second])
                    continue;
                int first = second;
                while (second < end && said[second])
                    second++;
                out[found] = (struct stretch){first, second, start, end, word, found};
                found++;
            }
            start = end;
        }
    }
    return found;
}

static void group_stretches(struct stretch *s, int count)
{
    for (int changed = 1; changed;) {
        changed = 0;
        for (int a = 0; a < count; a++) {
            for (int b = 0; b < count; b++) {
                int edge = s[a].patch_end_s;
                if (s[a].group != s[b].group && s[a].word == s[b].word && edge == s[b].patch_start_s &&
                    s[a].end_s >= edge - 1 && s[b].start_s <= edge + 1) {
                    int least = s[a].group < s[b].group ? s[a].group : s[b].group;
                    s[a].group = s[b].group = least;
                    changed = 1;
                }
            }
        }
    }
}

// Is the end of the patch an edge beyond which no window, done or not, has spoken?
static int is_edge(const struct commit *commits, int count, int second)
{
    for (int i = 0; i < count; i++)
        if (commits[i].start_s <= second && second < commits[i].end_s)
            return 0;
    return 1;
}

struct line {
    int start_s, end_s, word, open;
};

static int by_time(const void *left, const void *right)
{
    const struct line *a = left, *b = right;
    if (a->start_s != b->start_s)
        return a->start_s - b->start_s;
    return a->end_s != b->end_s ? a->end_s - b->end_s : a->word - b->word;
}

static void print_lines(struct line *lines, int count, char *out)
{
    qsort(lines, (size_t)count, sizeof *lines, by_time);
    *out = 0;
    for (int i = 0; i < count; i++)
        out += sprintf(out, "%d-%d %d%s|", lines[i].start_s, lines[i].end_s, lines[i].word, lines[i].open ? "..." : "");
}

static void expect(const struct commit *commits, int count, char *out)
{
    struct stretch s[2 * SECONDS];
    struct line lines[2 * SECONDS];
    int found = find_stretches(commits, count, s), events = 0;
    group_stretches(s, found);
    for (int group = 0; group < found; group++) {
        struct line line = {SECONDS, 0, 0, 0};
        for (int i = 0; i < found; i++) {
            if (s[i].group != group)
                continue;
            line.start_s = s[i].start_s < line.start_s ? s[i].start_s : line.start_s;
            line.end_s = s[i].end_s > line.end_s ? s[i].end_s : line.end_s;
            line.word = s[i].word;
            line.open |= s[i].end_s >= s[i].patch_end_s - 1 && is_edge(commits, count, s[i].patch_end_s);
        }
        if (line.end_s)
            lines[events++] = line;
    }
    print_lines(lines, events, out);
}

struct got {
    struct line lines[2 * SECONDS];
    int count;
};

static int take_line(const struct sl_db_event *event, void *user)
{
    struct got *got = user;
    got->lines[got->count++] = (struct line){(int)(event->start_us / 1000000), (int)(event->end_us / 1000000),
                                             event->text[0] == 'I', event->open};
    return 0;
}

static void test_overlapping_windows_against_a_plain_derivation(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    for (unsigned round = 0; round < 40; round++) {
        unsigned seed = round * 7919 + 5;
        struct commit commits[12];
        char name[32], expected[8192], got_text[8192];
        for (int i = 0; i < 12; i++) {
            int start = (int)next_random(&seed, SECONDS - 4);
            int most = SECONDS - start < 25 ? SECONDS - start : 25;
            commits[i] =
                (struct commit){.start_s = start, .end_s = start + 3 + (int)next_random(&seed, (unsigned)most - 3)};
            random_answer(&commits[i], &seed);
            commits[i].failed = next_random(&seed, 6) == 0;
        }
        snprintf(name, sizeof name, "overlaps %u", round);
        free(do_all(w, name, commits, 12));
        struct got got = {.count = 0};
        struct sl_db_query query = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME, .source_glob = name};
        assert_int_equal(sl_db_query(w->db, &query, take_line, &got, &e), SL_OK);
        print_lines(got.lines, got.count, got_text);
        expect(commits, 12, expected);
        assert_string_equal(got_text, expected);
    }
    world_assert_whole(w);
}

int main(void)
{
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_repeats_in_a_window_are_one),
        IN_WORLD(test_joins_at_the_edge),
        IN_WORLD(test_open_until_the_next_window_speaks),
        IN_WORLD(test_redo_replaces_and_failure_hides_nothing),
        IN_WORLD(test_newest_window_answers_for_the_overlap),
        IN_WORLD(test_ids_stay_and_revisions_count),
        IN_WORLD(test_confidence_is_the_least_known),
        IN_WORLD(test_bad_windows_are_refused_whole),
        IN_WORLD(test_coverage),
        IN_WORLD(test_what_is_done_already),
        IN_WORLD(test_any_order_with_redos_gives_the_same_events),
        IN_WORLD(test_overlapping_windows_against_a_plain_derivation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
