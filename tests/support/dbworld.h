// SPDX-License-Identifier: Apache-2.0
// A small index for the tests of db/: one source of one file, one task with a frame-pair period of 1 s, claimed.
// Times are whole or half seconds. Everything fails the test when it cannot.
#ifndef SL_TESTS_SUPPORT_DBWORLD_H
#define SL_TESTS_SUPPORT_DBWORLD_H

#include <stdio.h>

#include "db/db.h"

struct world {
    char folder[64], index[96];
    struct sl_db *db;
    struct sl_db_media media;
    int64_t segment, task, run;
    struct sl_db_claim claim;
};

struct said {
    double start_s, end_s;
    const char *text;
};

void world_open(struct world *world);
void world_close(struct world *world); // and deletes the folder
void world_reopen(struct world *world, enum sl_db_mode mode);
// Another source of its own file beside the first: the world's ids and claim are now its.
void world_add_source(struct world *world, const char *name);
void world_write_file(const struct world *world, const char *name, const char *content, char path[96]);

void world_done(struct world *world, double start_s, double end_s, const struct said *said, int count);
void world_not_done(struct world *world, double start_s, double end_s, enum sl_db_state state, const char *cause);
int world_commit(struct world *world, double start_s, double end_s, enum sl_db_state state, const char *cause,
                 const struct said *said, int count, struct sl_error *e);

// Answers as text, to be compared whole.
char *world_events(struct world *world, const struct sl_db_query *query); // "start-end text|" each; free it
char *world_coverage(struct world *world);                                // "seen 0-30|failed 30-60|"; free it
void world_assert_whole(struct world *world);                             // sl_db_verify finds nothing

#endif
