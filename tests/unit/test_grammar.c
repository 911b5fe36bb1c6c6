// SPDX-License-Identifier: Apache-2.0
// The grammar against a checker that knows nothing of automata (cJSON and arithmetic), masks against advancing token by
// token, and random walks, which must end well-formed and in time whatever is drawn.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "lm/grammar.h"
#include "lm/utf8.h"

enum { VOCAB = 1000, WORDS = (VOCAB + 31) / 32, EOS = 990 };

struct vocabulary {
    struct sl_tokenizer *tokenizer;
    struct sl_grammar *grammar;
};

static struct vocabulary vocabularies[3];

static int open_all(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer", "tokenizer-words", "tokenizer-bytes"};
    const char *source = getenv("SRCDIR");
    for (int i = 0; i < 3; i++) {
        char path[512];
        struct sl_error error = {0};
        snprintf(path, sizeof path, "%s/tests/golden/data/%s", source == NULL ? "." : source, names[i]);
        int rc = sl_tokenizer_open(path, &vocabularies[i].tokenizer, &error);
        if (rc == SL_OK) {
            rc = sl_grammar_create(vocabularies[i].tokenizer, VOCAB, (int[]){EOS}, 1, &vocabularies[i].grammar, &error);
        }
        if (rc < 0) {
            print_error("%s\n", error.text);
            return rc;
        }
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        sl_grammar_destroy(vocabularies[i].grammar);
        sl_tokenizer_close(vocabularies[i].tokenizer);
    }
    return 0;
}

static struct sl_grammar_state start(int64_t window_us, int max_events, int max_text_bytes)
{
    struct sl_grammar_state state;
    const struct sl_answer_grammar limits = {window_us, max_events, max_text_bytes};
    assert_int_equal(sl_grammar_start(&limits, &state, NULL), SL_OK);
    return state;
}

// Bytes taken of `text`, one token a byte.
static size_t take(struct sl_grammar_state *state, const char *text)
{
    size_t taken = 0;
    for (; text[taken] != 0; taken++) {
        int32_t id = -1;
        for (int32_t i = 0; i < sl_tokenizer_size(vocabularies[0].tokenizer) && id < 0; i++) {
            size_t size = 0;
            const char *bytes = sl_tokenizer_bytes(vocabularies[0].tokenizer, i, &size);
            id = size == 1 && bytes[0] == text[taken] ? i : -1;
        }
        if (!sl_grammar_advance(vocabularies[0].grammar, state, id)) {
            break;
        }
    }
    return taken;
}

static void assert_takes(const char *text, int64_t window_us)
{
    struct sl_grammar_state state = start(window_us, 4, 20);
    size_t taken = take(&state, text);
    if (text[taken] != 0 || !sl_grammar_finished(&state)) {
        fail_msg("%s: refused at byte %zu", text, taken);
    }
}

// The first byte that is refused is the one at `at`.
static void assert_refuses(const char *text, int64_t window_us, size_t at)
{
    struct sl_grammar_state state = start(window_us, 4, 20);
    size_t taken = take(&state, text);
    if (taken != at) {
        fail_msg("%s: refused at byte %zu, not %zu", text, taken, at);
    }
}

static void takes_good_answers(void **state)
{
    (void)state;
    assert_takes("{}", 0);
    assert_takes(" \n{ }", 30000000);
    assert_takes("{\"00:00.00 - 00:30.00\": \"A\"}", 30000000);
    assert_takes("{\n  \"00:23.00 - 00:48.00\" : \"A \\\"B\\\" \\u00e9\",\n  \"00:01.50 - "
                 "00:02.00\":\"\xe6\x97\xa5\xc3\xa9\"\n}",
                 60000000);
    assert_takes("{\"00:01.00 - 00:02.00\":\"a\",\"00:01.00 - 00:02.00\":\"b\"}", 60000000);
    assert_takes("{\"00:01.00 - 00:02.00\":\"a\",\"00:01.00 - 00:02.01\":\"a\"}", 60000000);
    assert_takes("{\"99:59.99 - 100:00.00\":\"a\"}", 6000000000);
    assert_takes("{\"00:00.00 - 02:00.00\":\"12345678901234567890\"}", 120000000);
    assert_takes("{\"00:00.00 - 00:00.01\":\"a\"}", 10000);
    assert_takes("{\"00:00.00 - 999:59.99\":\"a\"}", INT64_MAX);
    assert_takes("{\"00:01.00 - 00:02.00\":\"a\",\"00:01.00 - 00:02.00\":\"a\"}", 60000000); // a repeat, and the end
}

static void refuses_bad_answers(void **state)
{
    (void)state;
    const int64_t minute = 60000000;
    assert_refuses("[", minute, 0);
    assert_refuses("{}}", minute, 2);
    assert_refuses("{} ", minute, 2);
    assert_refuses("         {", minute, 8);
    assert_refuses("{\"", 9999, 1);
    assert_refuses("{\"00:60", minute, 5);
    assert_refuses("{\"02", minute, 3);
    assert_refuses("{\"01", minute, 3);
    assert_refuses("{\"00:0a", minute, 6);
    assert_refuses("{\"0:", minute, 3);
    assert_refuses("{\"100", minute, 2);
    assert_refuses("{\"00:10.00 - 00:09", minute, 16);
    assert_refuses("{\"00:10.00 - 00:10.00", minute, 20);
    assert_refuses("{\"00:10.00 - 01:00.01", minute, 20);
    assert_refuses("{\"00:59.99 - 00", minute, 14);
    assert_refuses("{\"00:10.00-", minute, 10);
    assert_refuses("{\"00:10.00  ", minute, 11);
    assert_refuses("{\"00:10.00 - 00:11.00\" \"", minute, 23);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\"", minute, 24);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"  \"", minute, 26);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"a\nb", minute, 25);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\\x", minute, 25);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\\ud83d", minute, 27);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\\u0000", minute, 28);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\xc3z", minute, 25);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\x80", minute, 24);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"\xed\xa0", minute, 25);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"123456789012345678901", minute, 44);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"1234567890123456789\xc3", minute, 43);
    assert_refuses("{\"00:10.00 - 00:11.00\":\"a\",}", minute, 27);
    // After an exact repeat nothing more.
    assert_refuses("{\"00:01.00 - 00:02.00\":\"a\",\"00:01.00 - 00:02.00\":\"a\",", minute, 52);
    // Four events at most.
    assert_refuses("{\"00:01.00 - 00:02.00\":\"a\",\"00:01.00 - 00:02.00\":\"b\",\"00:01.00 - 00:02.00\":\"c\","
                   "\"00:01.00 - 00:02.00\":\"d\",",
                   minute, 104);
}

// Every time of up to 1.4 s as start and end, in a window of 1.2 s.
static void bounds_times_exactly(void **state)
{
    (void)state;
    for (int a = 0; a < 140; a++) {
        char key[64];
        snprintf(key, sizeof key, "{\"00:%02d.%02d - ", a / 100, a % 100);
        struct sl_grammar_state before = start(1200000, 1, 1);
        int good = take(&before, key) == strlen(key);
        assert_int_equal(good, a < 120);
        for (int b = 0; good && b < 140; b++) {
            struct sl_grammar_state after = before;
            snprintf(key, sizeof key, "00:%02d.%02d\"", b / 100, b % 100);
            assert_int_equal(take(&after, key) == strlen(key), b > a && b <= 120);
        }
    }
}

// ---- Masks

static int has_bit(const uint32_t *bits, int id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

static void assert_mask(const struct vocabulary *v, const struct sl_grammar_state *state)
{
    uint32_t bits[WORDS];
    sl_grammar_mask(v->grammar, state, INT64_MAX, bits);
    for (int id = 0; id < WORDS * 32; id++) {
        struct sl_grammar_state after = *state;
        if (has_bit(bits, id) != sl_grammar_advance(v->grammar, &after, id)) {
            fail_msg("token %d: mask %d, phase %d", id, has_bit(bits, id), state->at.phase);
        }
    }
}

static uint64_t random_state = 88172645463325252u;

static uint32_t next_random(void) // xorshift64
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

// Any admitted token, but now and then one that goes on with the structure, for texts to end.
static int draw(const struct vocabulary *v, const uint32_t *bits)
{
    int count = 0, chosen = -1, wants_mark = next_random() % 6 == 0;
    for (int id = 0; id < VOCAB; id++) {
        if (!has_bit(bits, id)) {
            continue;
        }
        size_t size = 0;
        const char *bytes = sl_tokenizer_bytes(v->tokenizer, id, &size);
        if (wants_mark && bytes != NULL && memchr(bytes, '"', size) != NULL) {
            return id;
        }
        if (next_random() % (uint32_t)++count == 0) {
            chosen = id;
        }
    }
    return chosen;
}

static void assert_valid_text(const char *text, int max_bytes, int raw)
{
    size_t size = strlen(text);
    assert_true(size >= 1 && (!raw || size <= (size_t)max_bytes));
    assert_true(strspn(text, " ") < size || (int)size == max_bytes);
    for (size_t i = 0; i < size;) {
        int length = sl_utf8_character(text + i, size - i);
        assert_true(length > 0);
        i += (size_t)length;
    }
}

// Start or end of a key in hundredths, by arithmetic.
static long to_time(const char *text, int *used)
{
    int minutes = 0, seconds = 0, hundredths = 0;
    assert_int_equal(sscanf(text, "%d:%2d.%2d%n", &minutes, &seconds, &hundredths, used), 3);
    assert_true(*used == (minutes > 99 ? 9 : 8));
    assert_true(seconds < 60);
    return minutes * 6000L + seconds * 100 + hundredths;
}

static void assert_answer(const char *text, int64_t window_us, int max_events, int max_text_bytes)
{
    cJSON *json = cJSON_ParseWithOpts(text, NULL, 1);
    int events = 0;
    if (!cJSON_IsObject(json)) {
        fail_msg("no object: %s", text);
    }
    for (const cJSON *item = json->child; item != NULL; item = item->next, events++) {
        int used = 0, more = 0;
        long from = to_time(item->string, &used);
        assert_memory_equal(item->string + used, " - ", 3);
        long to = to_time(item->string + used + 3, &more);
        assert_int_equal(strlen(item->string), used + 3 + more);
        assert_true(from >= 0 && from < to && to * 10000 <= window_us);
        assert_true(cJSON_IsString(item));
        assert_valid_text(item->valuestring, max_text_bytes, 1);
        for (const cJSON *other = json->child; other != item; other = other->next) {
            int same = strcmp(other->string, item->string) == 0 && strcmp(other->valuestring, item->valuestring) == 0;
            assert_true(!same || item->next == NULL || strchr(text, '\\') != NULL);
        }
    }
    assert_true(events <= max_events);
    cJSON_Delete(json);
}

static void walk(const struct vocabulary *v, int64_t window_us, int max_events, int max_text_bytes, int tokens,
                 int check)
{
    struct sl_grammar_state state = start(window_us, max_events, max_text_bytes);
    char text[1 << 14];
    size_t used = 0;
    for (int left = tokens;; left--) {
        uint32_t bits[WORDS];
        assert_true(left > 0);
        sl_grammar_mask(v->grammar, &state, left, bits);
        if (check && left % check == 0) {
            assert_mask(v, &state);
        }
        int id = draw(v, bits);
        if (id < 0) {
            text[used] = 0;
            fail_msg("dead end after %s", text);
        }
        assert_true(sl_grammar_advance(v->grammar, &state, id));
        if (id == EOS) {
            break;
        }
        size_t size = 0;
        const char *bytes = sl_tokenizer_bytes(v->tokenizer, id, &size);
        assert_false(sl_tokenizer_is_added(v->tokenizer, id));
        assert_true(used + size < sizeof text);
        memcpy(text + used, bytes, size);
        used += size;
    }
    text[used] = 0;
    assert_true(sl_grammar_finished(&state));
    assert_answer(text, window_us, max_events, max_text_bytes);
}

static void walks_end_well(void **state)
{
    (void)state;
    const int64_t windows[] = {0, 9999, 10000, 500000, 30000000, 90000000, 5999990000, 6000010000, 86400000000};
    for (int v = 0; v < 3; v++) {
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            for (int i = 0; i < 12; i++) {
                walk(&vocabularies[v], windows[w], 1 + i * i, 1 + i * 7, SL_GRAMMAR_MIN_TOKENS + i * i * 5, 0);
            }
        }
    }
}

static void masks_are_exact(void **state)
{
    (void)state;
    for (int v = 0; v < 3; v++) {
        walk(&vocabularies[v], 30000000, 5, 6, 300, 1);
        walk(&vocabularies[v], 30000000, 20, 60, 600, 7);
        walk(&vocabularies[v], 6000010000, 8, 33, 400, 5);
    }
}

// With just enough tokens left for an event, it is still well-formed.
static void closes_in_time(void **state)
{
    (void)state;
    for (int tokens = 0; tokens < 120; tokens++) {
        for (int i = 0; i < 20; i++) {
            walk(&vocabularies[i % 3], i % 2 ? 30000000 : 7200000000, 256, 30,
                 tokens < SL_GRAMMAR_MIN_TOKENS ? SL_GRAMMAR_MIN_TOKENS : tokens, 0);
        }
    }
}

static int may_go_on(int64_t window_us, int64_t tokens_left)
{
    uint32_t bits[WORDS];
    size_t size = 0;
    struct sl_grammar_state at = start(window_us, 4, 20);
    assert_int_equal(take(&at, "{\"00:00.00 - 00:01.00\":\"a\""), 26);
    sl_grammar_mask(vocabularies[0].grammar, &at, tokens_left, bits);
    for (int32_t i = 0; i < sl_tokenizer_size(vocabularies[0].tokenizer); i++) {
        const char *bytes = sl_tokenizer_bytes(vocabularies[0].tokenizer, i, &size);
        if (size == 1 && bytes[0] == ',') {
            return has_bit(bits, i);
        }
    }
    return -1;
}

static void says_how_few_tokens_are_no_event(void **state)
{
    (void)state;
    assert_int_equal(may_go_on(30000000, SL_GRAMMAR_EVENT_TOKENS), 1);
    assert_int_equal(may_go_on(7200000000, SL_GRAMMAR_EVENT_TOKENS), 1);
    assert_int_equal(may_go_on(7200000000, SL_GRAMMAR_EVENT_TOKENS - 1), 0);
}

static void refuses_impossible_limits(void **state)
{
    (void)state;
    const struct sl_answer_grammar bad[] = {{-1, 1, 1}, {1, 0, 1}, {1, SL_GRAMMAR_MAX_EVENTS + 1, 1}, {1, 1, 0}};
    for (int i = 0; i < 4; i++) {
        struct sl_grammar_state s;
        assert_int_equal(sl_grammar_start(&bad[i], &s, NULL), SL_ERR_USAGE);
    }
    struct sl_grammar *grammar = NULL;
    assert_int_equal(sl_grammar_create(vocabularies[1].tokenizer, 10, (int[]){EOS}, 1, &grammar, NULL), SL_ERR_USAGE);
    assert_null(grammar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_good_answers),
        cmocka_unit_test(refuses_bad_answers),
        cmocka_unit_test(bounds_times_exactly),
        cmocka_unit_test(masks_are_exact),
        cmocka_unit_test(walks_end_well),
        cmocka_unit_test(closes_in_time),
        cmocka_unit_test(says_how_few_tokens_are_no_event),
        cmocka_unit_test(refuses_impossible_limits),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
