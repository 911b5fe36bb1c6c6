// SPDX-License-Identifier: Apache-2.0
#include "decode/playlist.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/avstring.h>
#include <libavutil/parseutils.h>

#include "core/frame.h"

// A day: a segment is shorter.
#define LONGEST_S 86400.0

struct text {
    const char *begin;
    size_t size;
};

// The next line without its end; 0: there is none.
static int next_line(const char **rest, struct text *line)
{
    if (**rest == 0) {
        return 0;
    }
    *line = (struct text){*rest, strcspn(*rest, "\r\n")};
    *rest += line->size;
    *rest += strspn(*rest, "\r\n");
    return 1;
}

// What follows the tag, at most up to the line's end: copied, so that no number is read beyond it.
static int tag_value(const struct text *line, const char *tag, char out[64])
{
    size_t skipped = strlen(tag);
    if (line->size < skipped || strncmp(line->begin, tag, skipped) != 0) {
        return 0;
    }
    snprintf(out, 64, "%.*s", (int)(line->size - skipped < 63 ? line->size - skipped : 63), line->begin + skipped);
    return 1;
}

static int64_t span_us(const char *text)
{
    double seconds = strtod(text, NULL);
    return seconds > 0 && seconds < LONGEST_S ? (int64_t)(seconds * 1e6) : 0;
}

static int64_t date_us(const char *text)
{
    int64_t us = 0;
    int is_date = isdigit((unsigned char)text[0]) && av_parse_time(&us, text, 0) >= 0; // it knows "now", too
    return is_date ? us : SL_NO_TIME;
}

// Name and query: hosts and folders may be written in several ways.
static struct text name_of(const char *url, size_t size)
{
    size_t path = 0, begin = 0;
    while (path < size && url[path] != '?' && url[path] != '#') {
        begin = url[path] == '/' ? path + 1 : begin;
        path++;
    }
    return (struct text){url + begin, size - begin};
}

int sl_playlist_find(const char *text, const char *url, struct sl_playlist_place *place)
{
    struct text wanted = name_of(url, strlen(url)), line;
    int64_t at_us = 0, length_us = 0, date = SL_NO_TIME, begins_us = -1;
    char value[64];
    *place = (struct sl_playlist_place){.date_us = SL_NO_TIME};
    while (next_line(&text, &line)) {
        if (tag_value(&line, "#EXTINF:", value)) {
            length_us = span_us(value);
        } else if (tag_value(&line, "#EXT-X-PROGRAM-DATE-TIME:", value)) {
            date = date_us(value);
        } else if (tag_value(&line, "#EXT-X-TARGETDURATION:", value)) {
            place->target_us = span_us(value);
        } else if (tag_value(&line, "#EXT-X-ENDLIST", value)) {
            return 0;
        } else if (tag_value(&line, "#EXT-X-DISCONTINUITY", value) && value[0] == 0) {
            date = SL_NO_TIME; // does not count on
        } else if (line.size > 0 && line.begin[0] != '#') {
            struct text name = name_of(line.begin, line.size);
            if (name.size == wanted.size && strncmp(name.begin, wanted.begin, name.size) == 0) {
                begins_us = at_us;
                place->date_us = date;
            }
            at_us += length_us;
            date += date != SL_NO_TIME ? length_us : 0;
            length_us = 0;
        }
    }
    place->behind_us = at_us - begins_us;
    return begins_us >= 0;
}

static void make_absolute(const char *base, const struct text *uri, char *out, size_t size)
{
    const char *host = strstr(base, "://");
    size_t kept = 0;
    if (av_stristr(uri->begin, "://") != NULL && av_stristr(uri->begin, "://") < uri->begin + uri->size) {
        kept = 0;
    } else if (uri->begin[0] == '/' && host != NULL) {
        kept = (size_t)(host + 3 - base) + strcspn(host + 3, "/?#");
    } else {
        kept = (size_t)(name_of(base, strlen(base)).begin - base);
    }
    snprintf(out, size, "%.*s%.*s", (int)kept, base, (int)uri->size, uri->begin);
}

int sl_playlist_variant(const char *text, const char *base, char *out, size_t size)
{
    struct text line;
    char ignored[64];
    int follows = 0;
    while (next_line(&text, &line)) {
        if (tag_value(&line, "#EXT-X-STREAM-INF:", ignored)) {
            follows = 1;
        } else if (follows && line.size > 0 && line.begin[0] != '#') {
            make_absolute(base, &line, out, size);
            return 1;
        }
    }
    return 0;
}
