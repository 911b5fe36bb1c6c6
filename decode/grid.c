// SPDX-License-Identifier: Apache-2.0
#include "decode/grid.h"

#include <libavutil/mathematics.h>

int64_t sl_grid_us(const struct sl_source_options *options, int64_t index)
{
    return av_rescale_rnd(index, INT64_C(1000000) * options->fps_den, options->fps_num, AV_ROUND_DOWN);
}

int64_t sl_grid_first(const struct sl_source_options *options, int64_t us)
{
    if (us == SL_NO_TIME || us <= 0) {
        return 0;
    }
    return av_rescale_rnd(us, options->fps_num, INT64_C(1000000) * options->fps_den, AV_ROUND_UP);
}
