// SPDX-License-Identifier: Apache-2.0
#include "db/claim.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>

// --- Processes ---

// Where a pid means what it means here: boot id and pid namespace. Empty if the system does not say.
static void this_machine(char out[128])
{
    char boot[64] = "", space[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file) {
        if (!fgets(boot, sizeof boot, file))
            boot[0] = 0;
        fclose(file);
    }
    boot[strcspn(boot, "\n")] = 0;
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    space[length > 0 ? length : 0] = 0;
    out[0] = 0;
    if (boot[0] && space[0])
        snprintf(out, 128, "%s %s", boot, space);
}

// Clock ticks since boot at which the process started: field 22 of its stat, counted after the name in brackets, which
// may hold anything. -1 if there is no such process.
static int64_t process_start(int64_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return -1;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoll(at, NULL, 10) : -1;
}

int claim_is_live(sqlite3_stmt *row, int column)
{
    int64_t silent_us = store_now_us() - sqlite3_column_int64(row, column + 4);
    if (llabs(silent_us) > (int64_t)SL_DB_STALE_SECONDS * 1000000) // also after the clock was set back
        return 0;
    char here[128];
    this_machine(here);
    const char *there = store_text(row, column + 1);
    if (!here[0] || !there || strcmp(here, there) != 0)
        return 1; // elsewhere: only its silence would tell
    return process_start(sqlite3_column_int64(row, column + 2)) == sqlite3_column_int64(row, column + 3);
}

// --- Claims ---

static int refuse(sqlite3_stmt *row, struct sl_error *e)
{
    return sl_fail(e, SL_ERR_BUSY,
                   "source \"%s\" is being indexed with this task by process %lld on %s: wait or stop it",
                   store_text(row, 5), (long long)sqlite3_column_int64(row, 2), store_text(row, 0));
}

static int check_holder(struct sl_db *db, int64_t source, int64_t task, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row,
                               "SELECT host, machine, pid, process_start, heartbeat_us, name FROM claim"
                               " JOIN source ON source.id = claim.source"
                               " WHERE source = ?1 AND task = ?2 AND token IS NOT NULL",
                               BIND(bind_int(source), bind_int(task)), e);
    if (status != SL_OK)
        return status;
    status = store_step(db, row, e);
    if (status > 0)
        status = claim_is_live(row, 0) ? refuse(row, e) : SL_OK;
    store_done(db, row);
    return status;
}

static int take(struct sl_db *db, struct sl_db_claim *claim, struct sl_error *e)
{
    int status = check_holder(db, claim->source, claim->task, e);
    if (status != SL_OK)
        return status;
    struct utsname machine;
    char here[128];
    if (uname(&machine) != 0)
        strcpy(machine.nodename, "?");
    this_machine(here);
    return store_run(db,
                     "INSERT INTO claim (source, task, token, host, machine, pid, process_start, heartbeat_us)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET token = ?3, host = ?4,"
                     " machine = ?5, pid = ?6, process_start = ?7, heartbeat_us = ?8",
                     BIND(bind_int(claim->source), bind_int(claim->task), bind_int(claim->token),
                          bind_text(machine.nodename), bind_text(here[0] ? here : NULL), bind_int(getpid()),
                          bind_int(process_start(getpid())), bind_int(store_now_us())),
                     e);
}

int sl_db_claim(struct sl_db *db, int64_t source, int64_t task, struct sl_db_claim *out, struct sl_error *e)
{
    *out = (struct sl_db_claim){.source = source, .task = task};
    if (getrandom(&out->token, sizeof out->token, 0) != sizeof out->token)
        return sl_fail(e, SL_ERR_INTERNAL, "no random numbers: %s", strerror(errno));
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, take(db, out, e), e) : status;
}

int claim_keep(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e)
{
    int status = store_run(
        db, "UPDATE claim SET heartbeat_us = ?4 WHERE source = ?1 AND task = ?2 AND token = ?3",
        BIND(bind_int(claim->source), bind_int(claim->task), bind_int(claim->token), bind_int(store_now_us())), e);
    if (status == SL_OK && sqlite3_changes(db->sqlite) == 0)
        return sl_fail(e, SL_ERR_BUSY,
                       "another process has taken over this source and task, as we were silent for over"
                       " %d s: run again to go on",
                       SL_DB_STALE_SECONDS);
    return status;
}

int sl_db_heartbeat(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, claim_keep(db, claim, e), e) : status;
}

int sl_db_release(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e)
{
    return store_run(db,
                     "UPDATE claim SET token = NULL, host = NULL, machine = NULL, pid = NULL, process_start = NULL,"
                     " heartbeat_us = NULL WHERE source = ?1 AND task = ?2 AND token = ?3",
                     BIND(bind_int(claim->source), bind_int(claim->task), bind_int(claim->token)), e);
}
