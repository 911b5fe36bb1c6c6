// SPDX-License-Identifier: Apache-2.0
#include "decode/hls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/opt.h>
#include <libavutil/time.h>

#include "decode/playlist.h"

enum { MAX_LIST = 1 << 20, MAX_URL = 4096 };

// The sender's clock drifts against ours: it is asked again after so long, and whenever PTS leap. While nothing is
// known, the sooner.
#define ASK_AGAIN_US INT64_C(600000000)
#define TRY_AGAIN_US INT64_C(30000000)
#define LEAP_US      1000000
// What nobody can see: the packager's clock, and the way to it. Some date the first segment when they write it.
#define DATE_ERROR_US 1000000
// Dates further away are of a clock that was never set.
#define DATE_LIMIT_US INT64_C(3600000000)
// How late a list may be known here, beyond the length of a segment.
#define LIST_LATE_US 1000000

static int open_and_note(AVFormatContext *format, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    struct sl_hls *hls = format->opaque;
    int code = hls->open(format, io, url, flags, options);
    char *copy = code >= 0 ? av_strdup(url) : NULL;
    if (copy != NULL) { // without memory the segment is not known again, and arrival counts
        char **place = &hls->opened[hls->open_count++ % SL_HLS_OPENED];
        av_free(*place);
        *place = copy;
    }
    return code;
}

int sl_hls_attach(struct sl_hls *hls, const char *url, AVFormatContext *format)
{
    hls->url = av_strdup(url);
    hls->open = format->io_open;
    hls->pts_us = SL_NO_TIME;
    format->io_open = open_and_note;
    format->opaque = hls;
    return hls->url != NULL ? 0 : AVERROR(ENOMEM);
}

void sl_hls_detach(struct sl_hls *hls)
{
    for (int i = 0; i < SL_HLS_OPENED; i++) {
        av_freep(&hls->opened[i]);
    }
    av_freep(&hls->url);
}

int sl_hls_options(AVDictionary **options)
{
    int code = av_dict_set(options, "http_persistent", "0", 0);             // else segments are opened behind our back,
    return code < 0 ? code : av_dict_set(options, "http_multiple", "0", 0); // or one too early
}

// ---- The playlist

// To be freed; NULL: it could not be read. *place is where it was found at last.
static char *read_list(const char *url, const AVIOInterruptCB *interrupt, char place[MAX_URL])
{
    AVIOContext *io = NULL;
    uint8_t *where = NULL;
    char *text = malloc(MAX_LIST + 1);
    if (text == NULL || avio_open2(&io, url, AVIO_FLAG_READ, interrupt, NULL) < 0) {
        free(text);
        return NULL;
    }
    int redirected = av_opt_get(io, "location", AV_OPT_SEARCH_CHILDREN, &where) >= 0 && where != NULL;
    snprintf(place, MAX_URL, "%s", redirected ? (const char *)where : url);
    av_free(where);
    int size = 0, code = 0;
    while (size < MAX_LIST && (code = avio_read_partial(io, (uint8_t *)text + size, MAX_LIST - size)) > 0) {
        size += code;
    }
    avio_closep(&io);
    text[size] = 0;
    return text;
}

static int find_in(const struct sl_hls *hls, const char *text, struct sl_playlist_place *place)
{
    for (int64_t i = hls->open_count - 1; i >= 0 && i >= hls->open_count - SL_HLS_OPENED; i--) {
        if (sl_playlist_find(text, hls->opened[i % SL_HLS_OPENED], place)) {
            return 1;
        }
    }
    return 0;
}

// Where the segment opened last stands. All variants have the same times: of several the first is asked.
static int find_place(const struct sl_hls *hls, const AVIOInterruptCB *interrupt, struct sl_playlist_place *place)
{
    char at[MAX_URL], variant[MAX_URL];
    char *text = read_list(hls->url, interrupt, at);
    if (text != NULL && sl_playlist_variant(text, at, variant, sizeof variant)) {
        free(text);
        text = read_list(variant, interrupt, at);
    }
    int found = text != NULL && find_in(hls, text, place);
    free(text);
    return found;
}

// ---- Telling the clock

static int is_time_to_ask(const struct sl_hls *hls, int64_t pts_us, const struct sl_liveclock *clock)
{
    int leapt = hls->pts_us != SL_NO_TIME && llabs(pts_us - hls->pts_us) > LEAP_US;
    return hls->asked_us == 0 || leapt ||
           av_gettime_relative() - hls->asked_us > (clock->is_stated ? ASK_AGAIN_US : TRY_AGAIN_US);
}

static void tell(const struct sl_playlist_place *place, int64_t pts_us, struct sl_liveclock *clock)
{
    int64_t now_us = av_gettime();
    if (place->date_us != SL_NO_TIME && llabs(place->date_us - now_us) < DATE_LIMIT_US) {
        sl_liveclock_state(clock, pts_us, place->date_us, DATE_ERROR_US, SL_LIVE_CAMERA);
        return;
    }
    // The list ended at some time within the last segment's length: half of that is the middle.
    int64_t half_us = (place->target_us + LIST_LATE_US) / 2;
    int64_t wall_us = now_us - place->behind_us - half_us;
    int64_t known_us = clock->is_stated ? sl_liveclock_wall_us(clock, pts_us) : SL_NO_TIME;
    if (known_us == SL_NO_TIME || llabs(known_us - wall_us) > 2 * half_us) {
        sl_liveclock_state(clock, pts_us, wall_us, half_us, SL_LIVE_ARRIVAL);
    }
}

void sl_hls_packet(struct sl_hls *hls, const AVPacket *packet, int64_t pts_us, const AVIOInterruptCB *interrupt,
                   struct sl_liveclock *clock)
{
    struct sl_playlist_place place;
    hls->begins = hls->begins || hls->open_count != hls->seen_count;
    hls->seen_count = hls->open_count;
    if (hls->begins && (packet->flags & AV_PKT_FLAG_KEY) != 0) {
        hls->begins = 0;
        if (is_time_to_ask(hls, pts_us, clock)) {
            hls->asked_us = av_gettime_relative();
            if (find_place(hls, interrupt, &place)) {
                tell(&place, pts_us, clock);
            }
        }
    }
    hls->pts_us = pts_us;
}
