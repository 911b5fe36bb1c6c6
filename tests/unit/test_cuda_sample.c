// SPDX-License-Identifier: Apache-2.0
// The arithmetic of cuda/'s drawing (sample_math.h), run on the host in the kernel's order, against cpu/.
#include "cuda/sample_math.h"

#include "tests/unit/cpu_tools.h"

static uint32_t *keys; // [vocab] of the row that is being drawn from

static void make_keys(const float *logits, int64_t vocab, const struct sl_sample_row *how, const uint32_t *allowed,
                      const uint32_t *seen)
{
    float best = -INFINITY;
    for (int64_t id = 0; id < vocab; id++) {
        float value = logits[id] - (seen[id / 32] >> id % 32 & 1 ? how->presence : 0);
        best = allowed[id / 32] >> id % 32 & 1 ? fmaxf(best, value) : best;
    }
    for (int64_t id = 0; id < vocab; id++) {
        float value = logits[id] - (seen[id / 32] >> id % 32 & 1 ? how->presence : 0);
        keys[id] = allowed[id / 32] >> id % 32 & 1 ? sample_scaled(value, best, how->temperature) : 0;
    }
}

static struct sample_search search_count(int64_t vocab, int top_k)
{
    struct sample_search s = sample_search_for((uint64_t)top_k);
    while (s.shift >= 0 && !sample_is_few(&s)) {
        uint64_t bins[SAMPLE_BINS] = {0};
        for (int64_t id = 0; id < vocab; id++) {
            int bin = keys[id] > 0 ? sample_bin(&s, keys[id]) : -1;
            if (bin >= 0 && bin < SAMPLE_BINS) {
                bins[bin]++;
            }
        }
        sample_narrow(&s, bins);
    }
    return s;
}

static struct sample_search search_mass(int64_t vocab, uint64_t wanted, struct sample_kept kept)
{
    struct sample_search s = sample_search_for(wanted);
    while (s.shift >= 0) {
        uint64_t bins[SAMPLE_BINS] = {0};
        for (int64_t id = 0; id < vocab; id++) {
            int bin = sample_bin(&s, keys[id]);
            if (bin >= 0 && bin < SAMPLE_BINS && keys[id] > kept.key) {
                bins[bin] += sample_mass(keys[id]);
            }
        }
        int bin = sample_bin(&s, kept.key);
        if (kept.ties > 0 && bin >= 0 && bin < SAMPLE_BINS) {
            bins[bin] += kept.ties * sample_mass(kept.key);
        }
        sample_narrow(&s, bins);
    }
    return s;
}

static int32_t find(int64_t vocab, float uniform_number, uint64_t total, struct sample_kept kept)
{
    enum { PARTS = 16 };
    struct sample_place p = sample_place_for(0, vocab, uniform_number, total);
    while (p.end - p.begin > 1) {
        uint64_t mass[PARTS] = {0}, ties[PARTS] = {0};
        int64_t size = (p.end - p.begin + PARTS - 1) / PARTS;
        for (int64_t id = p.begin; id < p.end; id++) {
            int64_t part = (id - p.begin) / size;
            mass[part] += keys[id] > kept.key ? sample_mass(keys[id]) : 0;
            ties[part] += keys[id] == kept.key;
        }
        if (!sample_choose_part(&p, &kept, size, PARTS, mass, ties)) {
            return -1;
        }
    }
    return (int32_t)p.begin;
}

static int32_t draw_from_all(int64_t vocab, const struct sl_sample_row *how, struct sample_kept kept)
{
    uint64_t total = kept.ties > 0 ? kept.ties * sample_mass(kept.key) : 0;
    for (int64_t id = 0; id < vocab; id++) {
        total += keys[id] > kept.key ? sample_mass(keys[id]) : 0;
    }
    if (how->top_p < 1) {
        struct sample_search s = search_mass(vocab, sample_wanted_mass(how->top_p, total), kept);
        kept = sample_keep_mass(&s);
        total = s.above + kept.ties * sample_mass(kept.key);
    }
    return find(vocab, how->uniform, total, kept);
}

// Gathered backwards: their order says nothing.
static int32_t draw_from_few(int64_t vocab, const struct sl_sample_row *how, uint32_t low)
{
    struct sample_candidate all[SAMPLE_FEW], sorted[SAMPLE_FEW];
    uint64_t mass[SAMPLE_FEW];
    int n = 0;
    for (int64_t id = vocab - 1; id >= 0; id--) {
        if (keys[id] > 0 && keys[id] >= low) {
            assert_true(n < SAMPLE_FEW);
            all[n++] = (struct sample_candidate){keys[id], (int32_t)id};
        }
    }
    for (int i = 0; i < n; i++) {
        int rank = sample_rank(all, n, all[i]);
        sorted[rank] = all[i];
        mass[rank] = sample_mass(all[i].key);
    }
    struct sample_head head = sample_keep_head(mass, n < how->top_k ? n : how->top_k, how->top_p);
    int32_t drawn = -1;
    for (int i = 0; i < head.count; i++) {
        if (sample_is_drawn(sorted, mass, &head, i, sample_drawn_mass(how->uniform, head.mass))) {
            assert_int_equal(drawn, -1); // one alone
            drawn = sorted[i].id;
        }
    }
    return drawn;
}

static int32_t draw_as_kernel(int64_t vocab, const struct sl_sample_row *how)
{
    struct sample_kept all = {0, 0};
    if (how->top_k <= 0 || how->top_k >= vocab) {
        return draw_from_all(vocab, how, all);
    }
    struct sample_search s = search_count(vocab, how->top_k);
    return sample_is_few(&s) ? draw_from_few(vocab, how, s.low) : draw_from_all(vocab, how, sample_keep_count(&s));
}

// `levels`: so few different logits, for ties; 0: all differ.
static void compare(int64_t vocab, int rows, int levels)
{
    const int top_k[] = {0, 1, 20, 64, 65, 255, 256, 257, 500, 5000};
    const float top_p[] = {1, 0.8f, 0.3f, 0, 0.95f, 1, 0.8f};
    int64_t words = (vocab + 31) / 32;
    uint32_t *allowed = calloc((size_t)words, 4), *seen = calloc((size_t)words, 4);
    keys = calloc((size_t)vocab, sizeof *keys);
    for (int i = 0; i < rows; i++) {
        struct sl_tensor logits = random_tensor(SL_F32, 1, vocab, 8);
        for (int64_t k = 0; k < words; k++) {
            allowed[k] = i % 2 || below(3) ? (uint32_t)below((int64_t)1 << 32) : 0;
            seen[k] = (uint32_t)below((int64_t)1 << 32);
        }
        for (int64_t id = 0; levels && id < vocab; id++) {
            float *logit = (float *)logits.data + id;
            *logit = floorf(*logit / 16 * (float)levels);
        }
        for (int64_t id = 1; i % 6 == 5 && id < vocab; id++) {
            float *logit = (float *)logits.data + id;
            *logit = below(3) ? -INFINITY : *logit;
        }
        allowed[0] |= 1; // never nothing
        struct sl_sample_row how = {.temperature = 0.3f * (float)(1 + i % 4), .top_p = top_p[i % 7]};
        how.top_k = top_k[i % 10];
        how.presence = i % 3 ? 1.5f : 0;
        how.uniform = (float)uniform();
        struct sl_tensor allowed_bits = sl_tensor_2d(allowed, SL_I32, 1, words);
        struct sl_tensor seen_bits = sl_tensor_2d(seen, SL_I32, 1, words);
        int32_t want;
        float logprob;
        struct sl_tensor token = sl_tensor_1d(&want, SL_I32, 1), probability = sl_tensor_1d(&logprob, SL_F32, 1);
        device->ops->sample(stream, &logits, &how, &allowed_bits, &seen_bits, &token, &probability);
        assert_no_failure();
        make_keys(logits.data, vocab, &how, allowed, seen);
        int32_t got = draw_as_kernel(vocab, &how);
        if (got != want) {
            fail_msg("%lld tokens, draw %d (top-k %d, top-p %g): %d, not %d", (long long)vocab, i, how.top_k,
                     (double)how.top_p, got, want);
        }
        free(logits.data);
    }
    free(allowed);
    free(seen);
    free(keys);
}

static void draws_as_the_cpu(void **state)
{
    (void)state;
    compare(777, 400, 0);
    compare(33, 200, 0);
    compare(151936, 20, 0);
}

static void ties_go_to_the_lower_id_as_on_the_cpu(void **state)
{
    (void)state;
    compare(777, 400, 5);
    compare(20000, 40, 12);
}

static void keys_are_in_order(void **state)
{
    (void)state;
    const float values[] = {-INFINITY, -1e30f, -2, -1e-30f, 0, 1e-30f, 3, INFINITY};
    for (int i = 0; i < 8; i++) {
        assert_true(sample_value(sample_key(values[i])) == values[i]);
        assert_true(sample_key(values[i]) > (i ? sample_key(values[i - 1]) : 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_as_the_cpu),
        cmocka_unit_test(ties_go_to_the_lower_id_as_on_the_cpu),
        cmocka_unit_test(keys_are_in_order),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
