// SPDX-License-Identifier: Apache-2.0
#include "src/route.h"

#include <ctype.h>
#include <fnmatch.h>
#include <string.h>

#include "src/options.h"

// ---- Models

static int is_name(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr("._-", text[i]) == NULL) {
            return 0;
        }
    }
    return size > 0 && text[0] != '.' && text[0] != '-';
}

static int model_called(const struct sl_route *route, const char *name)
{
    for (int i = 0; i < route->model_count; i++) {
        if (strcmp(route->name[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

int sl_route_add_model(struct sl_route *route, const char *text, struct sl_error *error)
{
    const char *equals = strchr(text, '=');
    size_t size = equals != NULL ? (size_t)(equals - text) : 0;
    if (equals == NULL || !is_name(text, size)) { // of a path, too, that holds a '=' behind a '/'
        if (route->model_count > 0 && route->name[0][0] != 0) {
            return sl_fail(error, SL_ERR_USAGE, "--model %s: among several models each needs a name: NAME=DIR", text);
        }
        route->dir[0] = text;
        route->model_count = 1;
        return SL_OK;
    }
    if (size >= SL_ROUTE_NAME_BYTES) {
        return sl_fail(error, SL_ERR_USAGE, "--model %s: a name has at most %d bytes", text, SL_ROUTE_NAME_BYTES - 1);
    }
    if (route->model_count > 0 && route->name[0][0] == 0) {
        return sl_fail(error, SL_ERR_USAGE, "--model %s: among several models each needs a name: NAME=DIR",
                       route->dir[0]);
    }
    if (route->model_count == SL_ROUTE_MODELS) {
        return sl_fail(error, SL_ERR_USAGE, "--model %s: more than %d models", text, SL_ROUTE_MODELS);
    }
    char *name = route->name[route->model_count];
    memcpy(name, text, size);
    name[size] = 0;
    if (model_called(route, name) >= 0) { // among those before it
        return sl_fail(error, SL_ERR_USAGE, "--model %s: two models are called \"%s\"", text, name);
    }
    route->dir[route->model_count++] = equals + 1;
    return SL_OK;
}

// ---- Rules

static int set_where(struct sl_route_rule *rule, const char *where, struct sl_error *error)
{
    static const struct {
        const char *word;
        enum sl_route_kind kind;
    } kinds[] = {{"live", SL_ROUTE_LIVE}, {"file", SL_ROUTE_FILE}, {"part", SL_ROUTE_PART}};
    if (*where == 0 || strlen(where) >= sizeof rule->pattern) {
        return sl_fail(error, SL_ERR_USAGE, "--route: before the '=' stands live, file, part or a source's name");
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        rule->kind = strcmp(where, kinds[i].word) == 0 ? (int)kinds[i].kind : rule->kind;
    }
    strcpy(rule->pattern, where);
    return SL_OK;
}

static int find_model(const struct sl_route *route, const char *name, int *out, struct sl_error *error)
{
    *out = model_called(route, name);
    return *out >= 0 ? SL_OK : sl_fail(error, SL_ERR_USAGE, "--route: no --model is called \"%s\"", name);
}

// MODEL, MODEL else OTHER, MODEL else if missing OTHER, MODEL else if busy OTHER
static int set_way(const struct sl_route *route, struct sl_route_way *way, char *then, struct sl_error *error)
{
    char *word[6] = {NULL};
    char *rest = NULL;
    int count = 0;
    for (char *w = strtok_r(then, " \t\n", &rest); w != NULL && count < 6; w = strtok_r(NULL, " \t\n", &rest)) {
        word[count++] = w;
    }
    int asks = count == 5 && strcmp(word[2], "if") == 0; // else if WHEN OTHER
    int busy = asks && strcmp(word[3], "busy") == 0;
    int missing = asks && strcmp(word[3], "missing") == 0;
    int has_other = count == 3 || busy || missing;
    if (!(count == 1 || (has_other && strcmp(word[1], "else") == 0))) {
        return sl_fail(error, SL_ERR_USAGE,
                       "--route: behind the '=' stands MODEL, or MODEL else OTHER, MODEL else if missing OTHER, MODEL "
                       "else if busy OTHER");
    }
    *way = (struct sl_route_way){.other = -1};
    int status = find_model(route, word[0], &way->model, error);
    if (status == SL_OK && has_other) {
        status = find_model(route, word[count - 1], &way->other, error);
        way->when = busy ? SL_ROUTE_BUSY : missing ? SL_ROUTE_MISSING : SL_ROUTE_BUSY | SL_ROUTE_MISSING;
    }
    if (status == SL_OK && way->other == way->model) {
        status = sl_fail(error, SL_ERR_USAGE, "--route: \"%s\" cannot stand in for itself", word[0]);
    }
    return status;
}

static int add_rule(struct sl_route *route, char *text, struct sl_error *error)
{
    char *equals = strrchr(text, '='); // a model's name holds none
    if (route->rule_count == SL_ROUTE_RULES) {
        return sl_fail(error, SL_ERR_USAGE, "--route: more than %d rules", SL_ROUTE_RULES);
    }
    if (equals == NULL) {
        return sl_fail(error, SL_ERR_USAGE, "--route: \"%s\" is no rule: write WHERE=MODEL, such as live=%s",
                       sl_option_trimmed(text), route->name[0]);
    }
    *equals = 0;
    struct sl_route_rule *rule = &route->rule[route->rule_count++];
    *rule = (struct sl_route_rule){0};
    int status = set_where(rule, sl_option_trimmed(text), error);
    return status == SL_OK ? set_way(route, &rule->way, equals + 1, error) : status;
}

static int add_rules(struct sl_route *route, const char *rules, struct sl_error *error)
{
    char text[4096];
    char *next = text;
    int status = SL_OK;
    if (strlen(rules) >= sizeof text) {
        return sl_fail(error, SL_ERR_USAGE, "--route: more than %zu bytes", sizeof text - 1);
    }
    strcpy(text, rules);
    while (next != NULL && status == SL_OK) {
        char *rule = next;
        next = strchr(rule, ',');
        if (next != NULL) {
            *next++ = 0;
        }
        status = add_rule(route, rule, error);
    }
    return status;
}

// Every model has something to do, and nothing depends on the clock that must not.
static int check_rules(const struct sl_route *route, int deterministic, struct sl_error *error)
{
    int used = 1; // the first takes what no rule fits
    for (int i = 0; i < route->rule_count; i++) {
        const struct sl_route_way *way = &route->rule[i].way;
        used |= 1 << way->model | (way->other >= 0 ? 1 << way->other : 0);
        if (deterministic && way->when & SL_ROUTE_BUSY) {
            return sl_fail(error, SL_ERR_USAGE,
                           "--deterministic: when a model is busy the clock decides; write \"%s else if missing %s\" "
                           "in --route",
                           route->name[way->model], route->name[way->other]);
        }
    }
    for (int i = 0; i < route->model_count; i++) {
        if (!(used >> i & 1)) {
            return sl_fail(error, SL_ERR_USAGE, "--route: no rule names the model \"%s\"", route->name[i]);
        }
    }
    return SL_OK;
}

int sl_route_finish(struct sl_route *route, const char *rules, int deterministic, struct sl_error *error)
{
    if (route->model_count == 0) {
        route->dir[route->model_count++] = sl_default_model();
        route->by_default = 1;
    }
    if (rules == NULL) {
        return route->model_count == 1 ? SL_OK
                                       : sl_fail(error, SL_ERR_USAGE,
                                                 "several models and no --route: say which takes what, as in --route "
                                                 "'live=%s, file=%s'",
                                                 route->name[0], route->name[1]);
    }
    if (route->name[0][0] == 0) {
        return sl_fail(error, SL_ERR_USAGE,
                       "--route: needs models with names, as in --model fast=DIR --model deep=DIR");
    }
    int status = add_rules(route, rules, error);
    return status == SL_OK ? check_rules(route, deterministic, error) : status;
}

// ---- Ways

static const struct sl_route_way to_first = {.model = 0, .other = -1};

struct sl_route_way sl_route_find(const struct sl_route *route, int kinds, const char *source)
{
    for (int i = 0; i < route->rule_count; i++) {
        const struct sl_route_rule *rule = &route->rule[i];
        if (rule->kind != 0 ? rule->kind & kinds : fnmatch(rule->pattern, source, 0) == 0) {
            return rule->way;
        }
    }
    return to_first;
}

int sl_route_ways(const struct sl_route *route, int kinds, struct sl_route_way out[SL_ROUTE_RULES + 1])
{
    int count = 0;
    for (int i = 0; i < route->rule_count; i++) {
        const struct sl_route_rule *rule = &route->rule[i];
        if (rule->kind == 0 || rule->kind & kinds) {
            out[count++] = rule->way;
        }
        if (rule->kind & kinds || strcmp(rule->pattern, "*") == 0) {
            return count; // nothing gets past it
        }
    }
    out[count++] = to_first;
    return count;
}
