// SPDX-License-Identifier: Apache-2.0
#include "vision/grid.h"

// Two neighbours of the table along one axis. The grid's first and last patch lie on the table's first and last entry
// ("align corners"). In f32, as the reference computes it.
static void neighbours(int index, int count, int side, int *low, int *high, float *part)
{
    float place = (float)index * (float)(side - 1) / (float)(count > 1 ? count - 1 : 1);
    *low = (int)place;
    *high = *low + 1 < side ? *low + 1 : side - 1;
    *part = place - (float)*low;
}

struct sl_grid_row sl_grid_row(int rows, int columns, int merge, int side, int64_t row)
{
    int inside = (int)(row % (merge * merge)), blocks = columns / merge;
    int64_t block = row / (merge * merge);
    int y = (int)(block / blocks) * merge + inside / merge, x = (int)(block % blocks) * merge + inside % merge;
    int top, bottom, left, right;
    float down, across;
    neighbours(y, rows, side, &top, &bottom, &down);
    neighbours(x, columns, side, &left, &right, &across);
    return (struct sl_grid_row){
        .position = {y, x},
        .corner = {top * side + left, top * side + right, bottom * side + left, bottom * side + right},
        .weight = {(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across},
    };
}
