// SPDX-License-Identifier: Apache-2.0
// Positions and rotary frequencies: against get_rope_index of transformers (tests/golden/make_text.py), by hand where
// the rule is simple, and against published figures for YaRN.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "lm/position.h"
#include "lm/rope.h"
#include "tests/support/golden.h"

enum { MAX_TOKENS = 128, MAX_SEGMENTS = 32 };

static const struct sl_visual visual;

static int golden_segments(struct sl_weights *golden, struct sl_segment *segments)
{
    struct sl_tensor table = golden_tensor(golden, "segments", SL_I32);
    const int32_t *row = table.data, *ids = golden_tensor(golden, "ids", SL_I32).data;
    int count = (int)table.shape[0];
    assert_true(count <= MAX_SEGMENTS);
    for (int i = 0; i < count; i++, ids += row[0], row += 3) {
        segments[i] = (struct sl_segment){.count = row[0],
                                          .ids = row[1] ? NULL : ids,
                                          .visual = row[1] ? &visual : NULL,
                                          .rows = row[1],
                                          .columns = row[2]};
    }
    return count;
}

static void walks_as_the_reference_does(void **state)
{
    (void)state;
    const char *cases[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        struct sl_weights *golden = golden_open(cases[i], "text");
        struct sl_segment segments[MAX_SEGMENTS];
        struct sl_error error;
        int count = golden_segments(golden, segments);
        int64_t tokens, end;
        assert_int_equal(sl_prompt_measure(segments, count, &tokens, &end, &error), SL_OK);
        const int32_t *expected = golden_tensor(golden, "positions", SL_I32).data;
        assert_int_equal(end - tokens, *(const int32_t *)golden_tensor(golden, "rope_delta", SL_I32).data);
        for (int64_t limit = 1; limit <= MAX_TOKENS; limit += 9) {
            int32_t got[3][MAX_TOKENS];
            int64_t at = 0;
            struct sl_prompt_walk walk = {.segments = segments, .segment_count = count};
            struct sl_prompt_piece piece;
            while (sl_prompt_walk_next(&walk, limit, &piece)) {
                assert_true(piece.count > 0 && piece.count <= limit);
                sl_prompt_piece_positions(&piece, got[0] + at, got[1] + at, got[2] + at);
                at += piece.count;
            }
            assert_int_equal(at, tokens);
            assert_int_equal(walk.position, end);
            for (int axis = 0; axis < 3; axis++) {
                assert_memory_equal(got[axis], expected + axis * tokens, (size_t)tokens * sizeof(int32_t));
            }
        }
        sl_weights_close(golden);
    }
}

static void refuses_prompts_that_are_not_whole(void **state)
{
    (void)state;
    const int32_t ids[2] = {1, 2};
    const struct sl_segment bad[] = {
        {.count = 0, .ids = ids},
        {.count = -3, .ids = ids},
        {.count = 6, .visual = &visual, .rows = 2, .columns = 2},
        {.count = 4, .rows = 2, .columns = 2},
        {.count = 4, .visual = &visual, .rows = -2, .columns = -2},
    };
    int64_t tokens, end;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_segment segments[2] = {{.count = 2, .ids = ids}, bad[i]};
        struct sl_error error = {0};
        assert_int_equal(sl_prompt_measure(segments, 2, &tokens, &end, &error), SL_ERR_USAGE);
        assert_non_null(strstr(error.text, "segment 1"));
    }
    assert_int_equal(sl_prompt_measure(bad, 0, &tokens, &end, NULL), SL_ERR_USAGE);
}

static struct sl_text_config published(void)
{
    return (struct sl_text_config){.head_dim = 128, .rope_theta = 5e6, .mrope_section = {24, 20, 20}};
}

static void interleaves_the_axes(void **state)
{
    (void)state;
    struct sl_text_config config = published();
    float inv_freq[64];
    int32_t axis[64];
    assert_true(sl_rope_fill(&config, inv_freq, axis) == 1);
    for (int j = 0; j < 64; j++) {
        assert_int_equal(axis[j], j < 60 ? j % 3 : 0); // THWTHW ... THW TTTT
        assert_true(fabs(inv_freq[j] / pow(5e6, -2.0 * j / 128) - 1) < 1e-6);
    }
    config.mrope_section[0] = 44; // H and W of different length
    config.mrope_section[1] = 15;
    config.mrope_section[2] = 5;
    sl_rope_fill(&config, inv_freq, axis);
    int count[3] = {0};
    for (int j = 0; j < 64; j++) {
        count[axis[j]]++;
    }
    assert_int_equal(count[0], 44);
    assert_int_equal(count[1], 15);
    assert_int_equal(count[2], 5);
    assert_int_equal(axis[43], 1);
    assert_int_equal(axis[46], 0);
    assert_int_equal(axis[14], 2);
    assert_int_equal(axis[17], 0);
}

// The long-context setting of the published README: factor 3 over 262144 positions stretches pairs from 30 on, those
// from 45 on wholly, and multiplies cos and sin by 0.1 ln 3 + 1.
static void stretches_slow_pairs(void **state)
{
    (void)state;
    struct sl_text_config config = published();
    float plain[64], inv_freq[64];
    int32_t axis[64];
    sl_rope_fill(&config, plain, axis);
    config.yarn = 1;
    config.yarn_factor = 3;
    config.yarn_beta_fast = 32;
    config.yarn_beta_slow = 1;
    config.yarn_original_positions = 262144;
    config.yarn_attention_factor = 0.1 * log(3) + 1;
    assert_true(fabs(sl_rope_fill(&config, inv_freq, axis) - 1.10986) < 1e-5);
    for (int j = 0; j < 64; j++) {
        double ramp = fmin(fmax((j - 29) / 16.0, 0), 1);
        assert_true(fabs(inv_freq[j] / (plain[j] * (1 - ramp) + plain[j] / 3 * ramp) - 1) < 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_as_the_reference_does),
        cmocka_unit_test(refuses_prompts_that_are_not_whole),
        cmocka_unit_test(interleaves_the_axes),
        cmocka_unit_test(stretches_slow_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
