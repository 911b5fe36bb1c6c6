// SPDX-License-Identifier: Apache-2.0
// Private to db/: how events follow from windows and pieces. All of it inside the caller's write transaction.
//
// For a segment and task, each moment is answered for by the newest done window over it (table answer). A piece counts
// as far as its window answers. Two pieces of different answers are one event if their answers share an edge, both
// reach to within one frame-pair period of it, and both say the same (text_key); so are all that hang together thus. An
// event spans from the first start to the last end, takes text and model from its earliest piece and the least known
// confidence. It is open if a piece of it reaches to within that period of an edge beyond which no window has spoken,
// whatever it said, and the segment has not ended there. So events are a function of answers, pieces, windows' spans
// and segment ends alone; ids and revisions are history: an event that says the same and overlaps or touches (within
// the period) an old one keeps its id.
#ifndef SL_DB_DERIVE_H
#define SL_DB_DERIVE_H

#include "db/store.h"

// The window is done: from now on it answers for its span.
int derive_answer(struct sl_db *db, int64_t segment, int64_t task, int64_t window, int64_t start_us, int64_t end_us,
                  struct sl_error *e);
// Something else changed over the span (it may be empty, a moment): a window has failed there, a segment ends.
int derive_again(struct sl_db *db, int64_t segment, int64_t task, int64_t start_us, int64_t end_us, struct sl_error *e);
int derive_at_all_tasks(struct sl_db *db, int64_t segment, int64_t at_us, struct sl_error *e);

// Reading only: how many events of the index are missing, or differ from what follows from the pieces.
int derive_compare(struct sl_db *db, int64_t segment, int64_t task, int64_t *differences, struct sl_error *e);

#endif
