// SPDX-License-Identifier: Apache-2.0
#include "src/still.h"

int sl_still_keep(const float *difference, int pairs, float level, int *kept)
{
    int count = 0;
    for (int i = 0; i < pairs; i++) {
        int still = i > 0 && difference[i] <= level;
        int last_still = i + 1 == pairs || difference[i + 1] > level;
        if (!still || last_still) {
            kept[count++] = i;
        }
    }
    return count;
}
