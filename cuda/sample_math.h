// SPDX-License-Identifier: Apache-2.0
// How sample.cu draws a token without sorting a vocabulary: which tokens top-k and top-p keep is found by narrowing an
// interval of values, which of them is drawn by narrowing an interval of ids. Where top-k leaves few, the narrowing
// ends early, and these few are put in order. In plain C as well, for the tests.
//
// Probabilities are whole numbers, so that their sums do not depend on the order in which threads add.
#ifndef SL_CUDA_SAMPLE_MATH_H
#define SL_CUDA_SAMPLE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/device.h"
#include "cuda/both.h"

enum {
    SAMPLE_BINS = 8,
    SAMPLE_FEW = 256, // tokens
};

// Values in their order as unsigned numbers; 0 stands for a token that may not be drawn.
CUDA_BOTH uint32_t sample_key(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

CUDA_BOTH float sample_value(uint32_t key)
{
    uint32_t bits = key >> 31 ? key ^ 0x80000000u : ~key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// e^value in units of 2^-44, for what sample_scaled gives: 2^18 tokens of probability 1 fit 64 bits.
CUDA_BOTH uint64_t sample_mass(uint32_t key)
{
    float value = sample_value(key);
    return value > -40 ? (uint64_t)(exp((double)value) * 0x1p44) : 0;
}

// A logit, less its penalty, as a key: relative to the best of the row, at the temperature.
CUDA_BOTH uint32_t sample_scaled(float logit, float best, float temperature)
{
    return sample_key((logit - best) / temperature);
}

// --- which are kept ---

// All above `key`, and of those at it the first `ties` by id. {0, 0}: all that may be drawn.
struct sample_kept {
    uint32_t key;
    uint64_t ties;
};

// The largest key such that it and what is above it measure at least as much as wanted. It lies in
// [low, low + (SAMPLE_BINS << shift)); what is above that measures `above`, what is in it `inside`.
struct sample_search {
    uint32_t low;
    int shift; // negative: found
    uint64_t above, inside, wanted;
};

CUDA_BOTH struct sample_search sample_search_for(uint64_t wanted)
{
    struct sample_search s = {0, 30, 0, UINT64_MAX, wanted};
    return s;
}

// SAMPLE_BINS and more: above the interval, counted already. Negative: below it.
CUDA_BOTH int sample_bin(const struct sample_search *s, uint32_t key)
{
    return key < s->low ? -1 : (int)((key - s->low) >> s->shift);
}

// `bins`: what lies in each part of the interval measures.
CUDA_BOTH void sample_narrow(struct sample_search *s, const uint64_t *bins)
{
    int bin = SAMPLE_BINS - 1;
    s->inside = bins[bin];
    while (bin > 0 && s->above + s->inside < s->wanted) {
        s->above += s->inside;
        s->inside = bins[--bin];
    }
    s->low += (uint32_t)bin << s->shift;
    s->shift -= 3;
}

// The search counts tokens, and all that it may still keep are few: those from `low` on.
CUDA_BOTH int sample_is_few(const struct sample_search *s)
{
    return s->above + s->inside <= SAMPLE_FEW;
}

// The search counted tokens.
CUDA_BOTH struct sample_kept sample_keep_count(const struct sample_search *s)
{
    struct sample_kept all = {0, 0}, kept = {s->low, s->wanted - s->above};
    return s->low == 0 ? all : kept; // fewer than wanted
}

// The search added up mass: as few of the ties as reach it.
CUDA_BOTH struct sample_kept sample_keep_mass(const struct sample_search *s)
{
    uint64_t each = sample_mass(s->low);
    struct sample_kept kept = {s->low, each > 0 ? (s->wanted - s->above + each - 1) / each : 0};
    return kept;
}

CUDA_BOTH uint64_t sample_wanted_mass(float top_p, uint64_t total)
{
    uint64_t wanted = (uint64_t)ceil((double)top_p * (double)total);
    return wanted < 1 ? 1 : wanted < total ? wanted : total;
}

// --- which is drawn ---

// Of all that is kept: the drawn token is the first by id with which the mass reaches this.
CUDA_BOTH uint64_t sample_drawn_mass(float uniform, uint64_t total)
{
    return (uint64_t)((double)uniform * (double)total) + 1;
}

// The drawn token is in [begin, end); those before have `mass`, and `ties` of them are at kept.key.
struct sample_place {
    int64_t begin, end;
    uint64_t mass, ties;
    uint64_t wanted; // sample_drawn_mass
};

CUDA_BOTH struct sample_place sample_place_for(int64_t begin, int64_t end, float uniform, uint64_t total)
{
    struct sample_place p = {begin, end, 0, 0, sample_drawn_mass(uniform, total)};
    return p;
}

// `mass` of the tokens above kept.key in each of the parts of `size` tokens, number of `ties` at it. 0: it is in no
// part.
CUDA_BOTH int sample_choose_part(struct sample_place *p, const struct sample_kept *kept, int64_t size, int parts,
                                 const uint64_t *mass, const uint64_t *ties)
{
    uint64_t each = kept->ties > 0 ? sample_mass(kept->key) : 0;
    for (int i = 0; i < parts; i++) {
        uint64_t left = kept->ties - p->ties, taken = ties[i] < left ? ties[i] : left;
        uint64_t more = mass[i] + taken * each;
        if (p->mass + more >= p->wanted) {
            p->begin += i * size;
            p->end = p->begin + size < p->end ? p->begin + size : p->end;
            return 1;
        }
        p->mass += more;
        p->ties += taken;
    }
    return 0;
}

// --- among few ---

struct sample_candidate {
    uint32_t key;
    int32_t id;
};

// Its place in the order of (value, then lower id).
CUDA_BOTH int sample_rank(const struct sample_candidate *all, int n, struct sample_candidate one)
{
    int rank = 0;
    for (int i = 0; i < n; i++) {
        rank += all[i].key > one.key || (all[i].key == one.key && all[i].id < one.id);
    }
    return rank;
}

// How many candidates top-p keeps of those that top-k does, and their mass.
struct sample_head {
    int count;
    uint64_t mass;
};

// `mass` of `n` candidates in order.
CUDA_BOTH struct sample_head sample_keep_head(const uint64_t *mass, int n, float top_p)
{
    struct sample_head all = {n, 0}, head = {0, 0};
    for (int i = 0; i < n; i++) {
        all.mass += mass[i];
    }
    if (top_p >= 1) {
        return all;
    }
    uint64_t wanted = sample_wanted_mass(top_p, all.mass);
    while (head.count < n && head.mass < wanted) {
        head.mass += mass[head.count++];
    }
    return head;
}

// 1: candidate `one` of those kept is the drawn one.
CUDA_BOTH int sample_is_drawn(const struct sample_candidate *sorted, const uint64_t *mass,
                              const struct sample_head *head, int one, uint64_t wanted)
{
    uint64_t before = 0; // by id
    for (int i = 0; i < head->count; i++) {
        before += sorted[i].id < sorted[one].id ? mass[i] : 0;
    }
    return before < wanted && wanted <= before + mass[one];
}

#endif
