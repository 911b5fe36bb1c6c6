// SPDX-License-Identifier: Apache-2.0
// --model and --route: what is understood, who takes which source, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/route.h"

static int read_route(struct sl_route *route, const char *const *models, const char *rules, int deterministic,
                      struct sl_error *error)
{
    int status = SL_OK;
    *route = (struct sl_route){0};
    for (int i = 0; models[i] != NULL && status == SL_OK; i++) {
        status = sl_route_add_model(route, models[i], error);
    }
    return status == SL_OK ? sl_route_finish(route, rules, deterministic, error) : status;
}

static const char *const three[] = {"fast=/m/2b", "deep=/m/30b=x", "odd-1.5_b=m", NULL};

// "fast", "fast>deep!" where deep stands in for a missing one, "fast>deep?" for a busy one, "fast>deep" for both.
static void goes(const struct sl_route *route, int kinds, const char *source, const char *wanted)
{
    struct sl_route_way way = sl_route_find(route, kinds, source);
    char got[80] = "";
    strcat(got, route->name[way.model]);
    if (way.other >= 0) {
        strcat(strcat(got, ">"), route->name[way.other]);
        strcat(got, way.when == SL_ROUTE_MISSING ? "!" : way.when == SL_ROUTE_BUSY ? "?" : "");
    }
    assert_string_equal(got, wanted);
}

static void first_rule_that_fits(void **state)
{
    (void)state;
    struct sl_route r;
    struct sl_error e = {0};
    assert_int_equal(read_route(&r, three,
                                "gate-*=deep else fast , [l]ive=odd-1.5_b,a=b=deep,live=fast else  if busy deep, "
                                "part=fast,file=deep else if missing odd-1.5_b",
                                0, &e),
                     SL_OK);
    assert_string_equal(r.dir[1], "/m/30b=x");
    goes(&r, SL_ROUTE_LIVE, "gate-2", "deep>fast");
    goes(&r, SL_ROUTE_FILE, "gate-2", "deep>fast");
    goes(&r, SL_ROUTE_LIVE, "gate", "fast>deep?");
    goes(&r, SL_ROUTE_FILE, "live", "odd-1.5_b");
    goes(&r, SL_ROUTE_FILE, "a=b", "deep");
    goes(&r, SL_ROUTE_FILE | SL_ROUTE_PART, "film.mp4", "fast");
    goes(&r, SL_ROUTE_FILE, "film.mp4", "deep>odd-1.5_b!");
    assert_int_equal(read_route(&r, three, "x=deep,y=odd-1.5_b", 0, &e), SL_OK);
    goes(&r, SL_ROUTE_FILE, "z", "fast"); // what no rule fits
}

static void one_model_as_ever(void **state)
{
    (void)state;
    static const char *const last_counts[] = {"/a", "./b=c", NULL}, *const named[] = {"fast=/a", NULL};
    struct sl_route r;
    struct sl_error e = {0};
    assert_int_equal(read_route(&r, last_counts, NULL, 1, &e), SL_OK);
    assert_int_equal(r.model_count, 1);
    assert_string_equal(r.dir[0], "./b=c");
    goes(&r, SL_ROUTE_FILE, "x", "");
    assert_int_equal(read_route(&r, named, NULL, 0, &e), SL_OK);
    goes(&r, SL_ROUTE_LIVE, "x", "fast");
}

// Which models must be opened.
static void ways_that_can_be_gone(void **state)
{
    (void)state;
    struct sl_route r;
    struct sl_error e = {0};
    struct sl_route_way ways[SL_ROUTE_RULES + 1];
    assert_int_equal(read_route(&r, three, "live=odd-1.5_b,x=deep,file=deep,fast*=fast", 0, &e), SL_OK);
    assert_int_equal(sl_route_ways(&r, SL_ROUTE_FILE, ways), 2); // neither live's nor what comes behind file's
    assert_int_equal(ways[0].model, 1);
    assert_int_equal(ways[1].model, 1);
    assert_int_equal(sl_route_ways(&r, SL_ROUTE_LIVE, ways), 1);
    assert_int_equal(ways[0].model, 2);
    assert_int_equal(read_route(&r, three, "x=deep,part=odd-1.5_b", 0, &e), SL_OK);
    assert_int_equal(sl_route_ways(&r, SL_ROUTE_FILE, ways), 2); // x's, and the first for all others
    assert_int_equal(ways[1].model, 0);
    assert_int_equal(read_route(&r, three, "x=deep,*=odd-1.5_b", 0, &e), SL_OK);
    assert_int_equal(sl_route_ways(&r, SL_ROUTE_FILE, ways), 2);
    assert_int_equal(ways[1].model, 2);
}

static void refuses(const char *const *models, const char *rules, int deterministic, const char *says)
{
    struct sl_route r;
    struct sl_error e = {0};
    assert_int_equal(read_route(&r, models, rules, deterministic, &e), SL_ERR_USAGE);
    if (strstr(e.text, says) == NULL) {
        fail_msg("%s: wanted \"%s\", got \"%s\"", rules, says, e.text);
    }
}

static void what_is_refused(void **state)
{
    (void)state;
    static const char *const two[] = {"fast=a", "deep=b", NULL}, *const plain[] = {"/a", NULL};
    static const char *const mixed[] = {"/a", "deep=b", NULL}, *const mixed_too[] = {"deep=b", "/a", NULL};
    static const char *const twice[] = {"fast=a", "fast=b", NULL};
    static const char *const five[] = {"a=a", "b=a", "c=a", "d=a", "e=a", NULL};
    static const char *const long_name[] = {"a123456789012345678901234567890123=a", NULL};
    char many[8192] = "file=deep";
    refuses(two, NULL, 0, "no --route");
    refuses(plain, "file=fast", 0, "names");
    refuses(mixed, "file=deep", 0, "/a: among several models each needs a name");
    refuses(mixed_too, "file=deep", 0, "/a: among several models each needs a name");
    refuses(twice, "file=fast", 0, "two models are called \"fast\"");
    refuses(five, "file=a", 0, "more than 4 models");
    refuses(long_name, NULL, 0, "at most 31 bytes");
    refuses(two, "", 0, "\"\" is no rule");
    refuses(two, "file=deep,", 0, "\"\" is no rule");
    refuses(two, " live ", 0, "\"live\" is no rule");
    refuses(two, "=deep", 0, "before the '='");
    refuses(two, "file=", 0, "behind the '='");
    refuses(two, "file=deep fast", 0, "behind the '='");
    refuses(two, "file=deep else", 0, "behind the '='");
    refuses(two, "file=deep or fast", 0, "behind the '='");
    refuses(two, "file=deep else if late fast", 0, "behind the '='");
    refuses(two, "file=deep else if busy fast now", 0, "behind the '='");
    refuses(two, "file=slow", 0, "no --model is called \"slow\"");
    refuses(two, "file=deep else slow", 0, "no --model is called \"slow\"");
    refuses(two, "file=deep else deep", 0, "cannot stand in for itself");
    refuses(two, "file=fast", 0, "no rule names the model \"deep\"");
    refuses(two, "file=deep else fast", 1, "else if missing");
    refuses(two, "file=deep else if busy fast", 1, "else if missing");
    for (int i = 0; i < SL_ROUTE_RULES; i++) {
        strcat(many, ",file=deep");
    }
    refuses(two, many, 0, "more than 64 rules");
    memset(many, 'x', 5000);
    refuses(two, many, 0, "bytes");
    struct sl_route r;
    struct sl_error e = {0};
    assert_int_equal(read_route(&r, two, "file=deep else if missing fast", 1, &e), SL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_rule_that_fits),
        cmocka_unit_test(one_model_as_ever),
        cmocka_unit_test(ways_that_can_be_gone),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
