// SPDX-License-Identifier: Apache-2.0
#include "decode/losses.h"

#include <stddef.h>

#include "core/frame.h"

// A fault is at most this many pictures away from the report of it.
#define SUSPICION_PICTURES 64

void sl_losses_suspect(struct sl_losses *losses, const char *cause)
{
    losses->suspicion = SUSPICION_PICTURES;
    losses->cause = cause;
    losses->faults++;
}

void sl_losses_blame(struct sl_losses *losses, const char *cause)
{
    sl_losses_suspect(losses, cause);
    for (int i = 0; i < losses->count; i++) {
        struct sl_expected *entry = &losses->expected[i];
        if (entry->pts_us == losses->sent_us && entry->damage == NULL) {
            entry->damage = cause;
        }
    }
}

void sl_losses_expect(struct sl_losses *losses, int64_t pts_us, const char *damage)
{
    losses->sent_us = pts_us;
    if (pts_us != SL_NO_TIME && losses->count < SL_EXPECTED_MAX) {
        losses->expected[losses->count++] = (struct sl_expected){pts_us, damage};
    }
}

int64_t sl_losses_settle(struct sl_losses *losses, int64_t after_us, int64_t pts_us, const char **damage)
{
    int64_t first_lost_us = SL_NO_TIME;
    int kept = 0;
    *damage = NULL;
    for (int i = 0; i < losses->count; i++) {
        struct sl_expected *entry = &losses->expected[i];
        if (entry->pts_us > pts_us) {
            losses->expected[kept++] = *entry;
        } else if (entry->pts_us == pts_us) {
            *damage = entry->damage;
        } else if (entry->pts_us > after_us && (first_lost_us == SL_NO_TIME || entry->pts_us < first_lost_us)) {
            first_lost_us = entry->pts_us;
        }
    }
    losses->count = kept;
    return first_lost_us;
}

void sl_losses_forget(struct sl_losses *losses, int64_t pts_us)
{
    int kept = 0;
    for (int i = 0; i < losses->count; i++) {
        if (losses->expected[i].pts_us != pts_us) {
            losses->expected[kept++] = losses->expected[i];
        }
    }
    losses->count = kept;
}
