// SPDX-License-Identifier: Apache-2.0
// Time zones: Unix time to local time and back, from the system's zone files (TZif, RFC 9636), read once. The C library
// keeps one zone for the whole process; this one is a value, so several can be open.
//
// Immutable after opening; any thread. A NULL zone is UTC everywhere.
#ifndef SL_CORE_ZONE_H
#define SL_CORE_ZONE_H

#include <stdint.h>

#include "core/error.h"

struct sl_zone;

// name: as in /usr/share/zoneinfo ("Europe/Berlin"), "UTC", a fixed "+05:30", or a POSIX rule
// ("CET-1CEST,M3.5.0,M10.5.0/3"); NULL: this machine's own ($TZ, then /etc/localtime, then UTC). Errors: SL_ERR_USAGE
// (no such zone, not a zone file).
int sl_zone_open(const char *name, struct sl_zone **out, struct sl_error *error);
void sl_zone_close(struct sl_zone *zone); // accepts NULL

// Seconds to add to Unix time to get local time.
int sl_zone_offset(const struct sl_zone *zone, int64_t unix_s);

// From a local time, written as if it were UTC. One that happens twice, as clocks go back, means the first; one that
// never happens, as they go forward, is read on the clock of before.
int64_t sl_zone_to_unix(const struct sl_zone *zone, int64_t local_s);

#endif
