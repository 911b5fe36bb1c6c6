// SPDX-License-Identifier: Apache-2.0
// sl-live URL SECONDS [udp]: prints the samples of a live source, for tests of its time. One line each:
//   wall_us burnt_us origin error_us segment
// burnt_us is what the picture itself says, in the bars that rtsp_server.py paints: 48 bits of Unix milliseconds, the
// highest first, white is 1, in one row of squares over the whole width; -1 when it cannot be read.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/log.h>
#include <libavutil/time.h>

#include "decode/decode.h"

enum { BITS = 48 };

static int is_over(void *until_us)
{
    return av_gettime_relative() > *(int64_t *)until_us;
}

static long long burnt_ms(const struct sl_frame *frame)
{
    long long value = 0;
    const uint8_t *row = frame->plane[0] + frame->height / 2 * frame->pitch[0];
    for (int i = 0; i < BITS; i++) {
        int luma = row[(2 * i + 1) * frame->width / (2 * BITS)];
        if (luma > 80 && luma < 176) {
            return -1;
        }
        value = value * 2 + (luma >= 176);
    }
    return value;
}

int main(int argc, char **argv)
{
    struct sl_error error = {0};
    struct sl_live *live = NULL;
    struct sl_live_item item;
    if (argc < 3) {
        fputs("sl-live URL SECONDS [udp]\n", stderr);
        return 2;
    }
    av_log_set_level(AV_LOG_QUIET);
    int64_t until_us = av_gettime_relative() + (int64_t)(atof(argv[2]) * 1e6);
    struct sl_live_options options = {.fps_num = 2,
                                      .fps_den = 1,
                                      .timeout_us = 10000000,
                                      .over_udp = argc > 3 && strcmp(argv[3], "udp") == 0,
                                      .interrupted = is_over,
                                      .ctx = &until_us};
    int status = sl_live_open(argv[1], "live", &options, &live, &error);
    int segments = 0;
    while (status == SL_OK && (status = sl_live_next(live, &item, &error)) == SL_OK) {
        struct sl_live_segment segment = sl_live_segment(live);
        segments += item.kind == SL_LIVE_SEGMENT;
        if (item.kind == SL_LIVE_SAMPLE) {
            long long ms = burnt_ms(item.sample.frame);
            printf("%lld %lld %s %lld %d\n", (long long)item.sample.frame->wall_us, ms < 0 ? -1 : ms * 1000,
                   segment.origin == SL_LIVE_CAMERA ? "camera" : "arrival", (long long)segment.error_us, segments);
            fflush(stdout);
            sl_frame_unref(item.sample.frame);
        }
    }
    sl_live_close(live);
    if (status != SL_ERR_INTERRUPTED && status != SL_END) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    return 0;
}
