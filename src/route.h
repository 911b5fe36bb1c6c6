// SPDX-License-Identifier: Apache-2.0
// Which model takes which source: what --model and --route say. Knows names only; src/models.h opens the models.
//
//   --model fast=DIR --model deep=DIR --route 'live=fast, part=fast, gate-*=fast else deep, file=deep'
//
// Rules are read from left to right; the first one that fits a source holds. What no rule fits goes to the first model.
// WHERE is live, file, part (a file of which --from or --to names a part) or a pattern for the source's name.
// After "else" stands a second model, for when the first is missing or busy; "else if missing" and "else if busy" say
// which of the two alone.
#ifndef SL_SRC_ROUTE_H
#define SL_SRC_ROUTE_H

#include "core/error.h"

enum { SL_ROUTE_MODELS = 4, SL_ROUTE_RULES = 64, SL_ROUTE_NAME_BYTES = 32, SL_ROUTE_PATTERN_BYTES = 256 };

// What a source is, or-ed: a part is a file, too.
enum sl_route_kind { SL_ROUTE_LIVE = 1, SL_ROUTE_FILE = 2, SL_ROUTE_PART = 4 };
enum sl_route_when { SL_ROUTE_MISSING = 1, SL_ROUTE_BUSY = 2 };

// By index of the model; other: -1 for none, else it takes over `when`, enum sl_route_when or-ed.
struct sl_route_way {
    int model, other;
    int when;
};

struct sl_route_rule {
    int kind;                             // enum sl_route_kind; 0: the pattern
    char pattern[SL_ROUTE_PATTERN_BYTES]; // as of fnmatch(3)
    struct sl_route_way way;
};

struct sl_route {
    int model_count;
    int by_default;                                  // 1: nobody chose a model
    char name[SL_ROUTE_MODELS][SL_ROUTE_NAME_BYTES]; // "": of a plain --model DIR, which is alone
    const char *dir[SL_ROUTE_MODELS];                // of the command line
    struct sl_route_rule rule[SL_ROUTE_RULES];
    int rule_count;
};

// One --model [NAME=]DIR. A plain DIR takes the place of the one before; a name is letters, digits, '.', '-' and '_'.
int sl_route_add_model(struct sl_route *route, const char *text, struct sl_error *error);
// All is given: reads --route (NULL: none) and sees whether it fits the models; without any, the default one is taken.
int sl_route_finish(struct sl_route *route, const char *rules, int deterministic, struct sl_error *error);
// `kinds`: what the source is.
struct sl_route_way sl_route_find(const struct sl_route *route, int kinds, const char *source);
// Every way that a source of these kinds, whatever its name, can go: how many.
int sl_route_ways(const struct sl_route *route, int kinds, struct sl_route_way out[SL_ROUTE_RULES + 1]);

#endif
