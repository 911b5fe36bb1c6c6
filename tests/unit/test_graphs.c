// SPDX-License-Identifier: Apache-2.0
// When steps run as plain operations, are captured, and are launched again; on a device that only counts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lm/graphs.h"

struct sl_stream {
    int begins, launches, captures, plain; // calls so far; `enqueue` while capturing, and not
    int capturing, alive;                  // alive: graphs that were made and not destroyed
    int cannot_begin, cannot_end;
    const struct sl_graph *last;
};

struct sl_graph {
    int made;
};

static struct sl_stream counted;
static struct sl_graph made[1024];

static int begin(struct sl_stream *stream)
{
    stream->begins++;
    stream->capturing = !stream->cannot_begin;
    return stream->capturing;
}

static int end(struct sl_stream *stream, struct sl_graph **out)
{
    stream->capturing = 0;
    *out = NULL;
    if (!stream->cannot_end) {
        *out = &made[stream->alive++];
    }
    return !stream->cannot_end;
}

static void launch(struct sl_graph *graph, struct sl_stream *stream)
{
    assert_false(stream->capturing);
    stream->launches++;
    stream->last = graph;
}

static void destroy(struct sl_graph *graph)
{
    assert_non_null(graph);
    counted.alive--;
}

static void enqueue(void *context)
{
    struct sl_stream *stream = context;
    stream->captures += stream->capturing;
    stream->plain += !stream->capturing;
}

static const struct sl_device_ops ops = {
    .graph_begin = begin, .graph_end = end, .graph_launch = launch, .graph_destroy = destroy};

static struct sl_graphs start(void)
{
    counted = (struct sl_stream){0};
    return (struct sl_graphs){.ops = &ops};
}

static void run(struct sl_graphs *graphs, int64_t rows, int64_t width)
{
    sl_graphs_run(graphs, &counted, rows, width, enqueue, &counted);
}

static void the_first_run_is_plain_the_second_is_captured_and_launched(void **state)
{
    (void)state;
    struct sl_graphs graphs = start();
    run(&graphs, 4, 8);
    assert_int_equal(counted.plain, 1);
    assert_int_equal(counted.begins, 0);
    run(&graphs, 4, 8);
    assert_int_equal(counted.captures, 1);
    assert_int_equal(counted.launches, 1);
    run(&graphs, 4, 8);
    assert_int_equal(counted.captures, 1);
    assert_int_equal(counted.launches, 2);
    assert_int_equal(counted.plain, 1);
    sl_graphs_clear(&graphs);
    assert_int_equal(counted.alive, 0);
}

static void other_rows_and_other_widths_are_other_steps(void **state)
{
    (void)state;
    struct sl_graphs graphs = start();
    static const int64_t steps[][2] = {{4, 8}, {4, 16}, {8, 4}};
    const struct sl_graph *graph[3];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            run(&graphs, steps[i][0], steps[i][1]);
            graph[i] = counted.last;
        }
    }
    assert_int_equal(counted.plain, 3);
    assert_int_equal(counted.captures, 3);
    assert_int_equal(counted.launches, 6);
    assert_true(graph[0] != graph[1] && graph[1] != graph[2] && graph[0] != graph[2]);
    sl_graphs_clear(&graphs);
}

// Every run must happen, once, whatever becomes of capturing.
static void what_cannot_be_captured_runs_plain(void **state)
{
    (void)state;
    struct sl_graphs graphs = start();
    counted.cannot_end = 1;
    for (int i = 1; i <= 3; i++) {
        run(&graphs, 1, 1);
        assert_int_equal(counted.plain, i);
    }
    counted.cannot_end = 0;
    run(&graphs, 1, 1); // tried again
    assert_int_equal(counted.launches, 1);
    assert_int_equal(counted.plain, 3);
    sl_graphs_clear(&graphs);

    graphs = start();
    counted.cannot_end = 1;
    for (int i = 1; i <= 9; i++) {
        run(&graphs, 1, 1);
        assert_int_equal(counted.plain, i);
    }
    assert_int_equal(counted.begins, SL_GRAPHS_TRIES); // but not for ever
    sl_graphs_clear(&graphs);

    graphs = start();
    counted.cannot_begin = 1;
    for (int i = 1; i <= 3; i++) {
        run(&graphs, 1, 1);
        assert_int_equal(counted.plain, i);
    }
    assert_int_equal(counted.begins, 1); // a device that captures nothing is not asked again ...
    counted.cannot_begin = 0;
    sl_graphs_clear(&graphs);
    run(&graphs, 1, 1);
    run(&graphs, 1, 1);
    assert_int_equal(counted.launches, 1); // ... until the stream is another one
    sl_graphs_clear(&graphs);
}

static void the_step_that_was_not_used_for_longest_makes_room(void **state)
{
    (void)state;
    struct sl_graphs graphs = start();
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < SL_GRAPHS_MOST; i++) {
            run(&graphs, 1 + i, 1);
        }
    }
    assert_int_equal(counted.alive, SL_GRAPHS_MOST);
    run(&graphs, 1, 1); // now the second is the oldest
    int launches = counted.launches, plain = counted.plain;
    run(&graphs, 1, 2);
    assert_int_equal(counted.alive, SL_GRAPHS_MOST - 1);
    run(&graphs, 1, 1);
    run(&graphs, 3, 1);
    assert_int_equal(counted.launches, launches + 2);
    run(&graphs, 2, 1);
    assert_int_equal(counted.plain, plain + 2);
    assert_int_equal(graphs.count, SL_GRAPHS_MOST);
    sl_graphs_clear(&graphs);
    assert_int_equal(counted.alive, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_run_is_plain_the_second_is_captured_and_launched),
        cmocka_unit_test(other_rows_and_other_widths_are_other_steps),
        cmocka_unit_test(what_cannot_be_captured_runs_plain),
        cmocka_unit_test(the_step_that_was_not_used_for_longest_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
