// SPDX-License-Identifier: Apache-2.0
// What the tower must know about a grid of patches, computed on the host: for each patch, in merge order (blocks of
// merge x merge in raster order, inside a block raster order again), its coordinates, and the corners and weights with
// which the learned position table is read at its place.
#ifndef SL_VISION_GRID_H
#define SL_VISION_GRID_H

#include <stdint.h>

struct sl_grid_row {
    int32_t position[2]; // row, column
    int32_t corner[4];   // rows of the position table
    float weight[4];     // of the corners
};

// Row `row` of rows x columns patches; the table is side x side.
struct sl_grid_row sl_grid_row(int rows, int columns, int merge, int side, int64_t row);

#endif
