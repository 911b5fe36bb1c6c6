// SPDX-License-Identifier: Apache-2.0
// The parser of answers: every form that it takes, and what it must refuse as a whole.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/event.h"

enum { WINDOW_US = 30000000 };

struct expected {
    int64_t start_us, end_us;
    const char *text;
};

static void accept(const char *answer, const struct expected *expected, size_t count)
{
    struct sl_event_list list;
    struct sl_error error = {0};
    int status = sl_event_parse(answer, strlen(answer), WINDOW_US, &list, &error);
    if (status != SL_OK) {
        fail_msg("%s: %s", answer, error.text);
    }
    assert_int_equal(list.count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(list.events[i].start_us, expected[i].start_us);
        assert_int_equal(list.events[i].end_us, expected[i].end_us);
        assert_string_equal(list.events[i].text, expected[i].text);
    }
    sl_event_list_finish(&list);
}

static void refuse(const char *answer)
{
    struct sl_event_list list;
    struct sl_error error = {0};
    int status = sl_event_parse(answer, strlen(answer), WINDOW_US, &list, &error);
    if (status == SL_OK) {
        fail_msg("%s: was taken", answer);
    }
    assert_int_equal(status, SL_ERR_PARTIAL);
    assert_int_equal(list.count, 0);
    assert_true(error.text[0] != 0);
}

static void test_nothing_happened(void **state)
{
    (void)state;
    accept("{}", NULL, 0);
    accept("[]", NULL, 0);
    accept("```json\n{}\n```", NULL, 0);
}

static void test_ranges(void **state)
{
    (void)state;
    const struct expected two[] = {{1500000, 4000000, "A red circle."}, {4000000, 30000000, "The \"sign\" says 7."}};
    accept("{\"00:01.50 - 00:04.00\": \"A red circle.\", \"00:04.00 - 00:30.00\": \" The \\\"sign\\\" says 7. \"}", two,
           2);
    const struct expected same[] = {{0, 1000000, "A"}, {0, 1000000, "B"}, {0, 1000000, "A"}};
    accept("{\"00:00.00 - 00:01.00\":\"A\",\"00:00.00 - 00:01.00\":\"B\",\"00:00.00 - 00:01.00\":\"A\"}", same, 3);
    const struct expected forms[] = {{1000000, 2500000, "A"}, {3000000, 4000000, "B"}, {5000000, 6000000, "C"}};
    accept("{\"1 - 2.5\": \"A\", \"3s - 4s\": \"B\", \"00:00:05 \xe2\x80\x93 00:00:06.0\": \"C\"}", forms, 3);
    const struct expected braces[] = {{0, 1000000, "{{{{{{{{{{ \\\" [[[[["}};
    accept("{\"00:00.00 - 00:01.00\": \"{{{{{{{{{{ \\\\\\\" [[[[[\"}", braces, 1);
    const struct expected chinese[] = {{0, 500000, "\xe7\xba\xa2"}};
    accept("{\"00:00.00 - 00:00.50\": \"\\u7ea2\"}", chinese, 1);
}

static void test_records(void **state)
{
    (void)state;
    const struct expected two[] = {{1000000, 2000000, "A"}, {61000, 3250000, "B"}};
    accept("[{\"start\": 1, \"end\": 2.0, \"description\": \"A\"},"
           " {\"description\": \"B\", \"start_time\": \"0.061\", \"end_time\": \"00:03.25\"}]",
           two, 2);
    accept("Here: {\"events\": [{\"timestamp\": \"00:01.00 - 00:02.00\", \"event\": \"A\"},"
           " {\"start\": 0.061, \"end\": 3.25, \"caption\": \"B\"}]} done",
           two, 2);
}

static void test_refusals(void **state)
{
    (void)state;
    refuse("");
    refuse("Nothing happens in this video.");
    refuse("{\"00:01.50 - 00:04.00\": \"A red");
    refuse("{\"00:04.00 - 00:01.50\": \"A\"}");
    refuse("{\"00:04.00 - 00:04.00\": \"A\"}");
    refuse("{\"00:04.00 - 00:30.01\": \"A\"}");
    refuse("{\"00:04.00\": \"A\"}");
    refuse("{\"later - 00:30.00\": \"A\"}");
    refuse("{\"00:01.00 - 00:04.00\": \"  \"}");
    refuse("{\"00:01.00 - 00:04.00\": 7}");
    refuse("[1, 2]");
    refuse("[{\"start\": 1, \"description\": \"A\"}]");
    refuse("[{\"start\": -1, \"end\": 2, \"description\": \"A\"}]");
    refuse("[{\"start\": 1e300, \"end\": 2, \"description\": \"A\"}]");
    refuse("[[[[[[[[[[[[]]]]]]]]]]]]");
    refuse("[\"A\\\"\", [[[[[[[[[[[]]]]]]]]]]]]");
}

// The confidence must look at exactly the tokens of the description.
static void test_confidence(void **state)
{
    (void)state;
    static const char answer[] = "{\"0 - 1\": \"ab\", \"1 - 2\": \"cd\"}";
    struct sl_event_list list;
    assert_int_equal(sl_event_parse(answer, strlen(answer), WINDOW_US, &list, NULL), SL_OK);
    assert_int_equal(list.count, 2);
    assert_memory_equal(answer + list.events[1].text_begin, "cd", list.events[1].text_end - list.events[1].text_begin);
    // One token a byte, whose log probability is minus its number.
    float logprobs[sizeof answer];
    size_t ends[sizeof answer];
    for (size_t i = 0; i < sizeof answer; i++) {
        logprobs[i] = -(float)i;
        ends[i] = i + 1;
    }
    for (size_t e = 0; e < 2; e++) {
        size_t begin = list.events[e].text_begin;
        double confidence = sl_event_confidence(logprobs, ends, strlen(answer), begin, list.events[e].text_end);
        assert_true(fabs(log(confidence) + ((double)begin + 0.5)) < 1e-9);
    }
    assert_true(sl_event_confidence(logprobs, ends, 0, 0, 5) < 0);
    sl_event_list_finish(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_happened), cmocka_unit_test(test_ranges),     cmocka_unit_test(test_records),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_confidence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
