// SPDX-License-Identifier: Apache-2.0
// From a window's answer to its row in the index: pieces, holes, and why it failed. A row is the caller's and refers to
// the window, which must outlive it.
#ifndef SL_SRC_ROW_H
#define SL_SRC_ROW_H

#include "src/event.h"
#include "src/window.h"

struct sl_row {
    struct sl_db_window db; // segment and run are the caller's to fill in
    struct sl_db_piece *pieces;
    struct sl_event_list events;
    struct sl_error cause;
};

// `row` is all zero before; sl_row_finish() also after a failure. What the model said wrong is a failed row, not an
// error. `meant`: the model of a window that was given to none.
int sl_row_fill(struct sl_row *row, struct sl_window *window, const struct sl_model *meant, struct sl_error *error);
void sl_row_finish(struct sl_row *row);

#endif
