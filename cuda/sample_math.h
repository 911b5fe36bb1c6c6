// SPDX-License-Identifier: Apache-2.0
// How sample.cu draws a token without sorting: which tokens top-k and top-p keep is found by narrowing an interval of
// values, which of them is drawn by narrowing an interval of ids. In plain C as well, for the tests.
//
// Probabilities are whole numbers, so that their sums do not depend on the order in which threads add.
#ifndef SL_CUDA_SAMPLE_MATH_H
#define SL_CUDA_SAMPLE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/device.h"
#include "cuda/both.h"

enum { SAMPLE_BINS = 8, SAMPLE_PARTS = 32 };

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
// [low, low + (SAMPLE_BINS << shift)); what is above that measures `above`.
struct sample_search {
    uint32_t low;
    int shift; // negative: found
    uint64_t above, wanted;
};

CUDA_BOTH struct sample_search sample_search_for(uint64_t wanted)
{
    struct sample_search s = {0, 30, 0, wanted};
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
    for (; bin > 0 && s->above + bins[bin] < s->wanted; bin--) {
        s->above += bins[bin];
    }
    s->low += (uint32_t)bin << s->shift;
    s->shift -= 3;
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

// The drawn token is in [begin, end); those before have `mass`, and `ties` of them are at kept.key.
struct sample_place {
    int64_t begin, end;
    uint64_t mass, ties;
    uint64_t wanted; // the token is the first by id with which the mass reaches this
};

CUDA_BOTH struct sample_place sample_place_for(int64_t vocab, float uniform, uint64_t total)
{
    struct sample_place p = {0, vocab, 0, 0, (uint64_t)((double)uniform * (double)total) + 1};
    return p;
}

CUDA_BOTH int64_t sample_part_size(const struct sample_place *p)
{
    return (p->end - p->begin + SAMPLE_PARTS - 1) / SAMPLE_PARTS;
}

// `mass` of the tokens above kept.key in each part, number of `ties` at it. 0: it is in no part.
CUDA_BOTH int sample_choose_part(struct sample_place *p, const struct sample_kept *kept, const uint64_t *mass,
                                 const uint64_t *ties)
{
    uint64_t each = kept->ties > 0 ? sample_mass(kept->key) : 0;
    int64_t size = sample_part_size(p);
    for (int i = 0; i < SAMPLE_PARTS; i++) {
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

#endif
