// SPDX-License-Identifier: Apache-2.0
#include "decode/input.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <libavutil/avstring.h>
#include <libavutil/parseutils.h>
#include <libavutil/time.h>

// Errors in a row, without a packet between, after which reading is over. Some demuxers recover at the next packet.
#define READ_ATTEMPTS 64

// Between two looks at a device that does not block.
#define NONBLOCK_PAUSE_US 2000

// A container's "duration" that exceeds what was read by less than this says nothing: audio and video rarely end
// together.
#define TAIL_SLACK_US 500000

static int should_stop(void *opaque)
{
    const struct sl_input *input = opaque;
    const struct sl_source_options *options = input->options;
    if (options->interrupted != NULL && options->interrupted(options->ctx)) {
        return 1;
    }
    return input->give_up_us != 0 && av_gettime_relative() > input->give_up_us;
}

static void start_timer(struct sl_input *input, int64_t timeout_us)
{
    input->give_up_us = timeout_us > 0 ? av_gettime_relative() + timeout_us : 0;
}

int sl_input_check(const struct sl_input *input, struct sl_error *error)
{
    if (!should_stop((void *)input)) {
        return SL_OK;
    }
    return sl_fail(error, SL_ERR_INTERRUPTED, "stopped while reading: %s", input->path);
}

void sl_input_note(struct sl_input *input, enum sl_note kind, const char *format, ...)
{
    unsigned bit = 1u << kind;
    if (input->options->note == NULL || (input->said & bit) != 0) {
        return;
    }
    input->said |= bit;
    char text[240];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    input->options->note(input->options->ctx, text);
}

// The URL to give FFmpeg, for the caller to av_free(). A name that exists is a file even if it looks like "rtsp:...".
static int resolve_path(const char *path, char **url, int *is_local, struct sl_error *error)
{
    struct stat status;
    int found = stat(path, &status) == 0;
    int reason = errno;
    if (!found) {
        const char *protocol = avio_find_protocol_name(path);
        if (protocol == NULL || strcmp(protocol, "file") == 0) {
            return sl_fail(error, SL_ERR_OPEN, "cannot open %s: %s", path, strerror(reason));
        }
    } else if (S_ISDIR(status.st_mode)) {
        return sl_fail(error, SL_ERR_OPEN, "cannot open %s: it is a folder", path);
    } else if (S_ISREG(status.st_mode) && status.st_size == 0) {
        return sl_fail(error, SL_ERR_EMPTY, "%s is empty (zero bytes)", path);
    }
    *is_local = found;
    *url = av_asprintf("%s%s", found ? "file:" : "", path);
    if (*url == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    return SL_OK;
}

// 1 if the beginning of a local file is that of a container FFmpeg knows.
static int looks_like_container(struct sl_input *input, const char *url)
{
    AVIOContext *io = NULL;
    AVIOInterruptCB interrupt = {should_stop, input};
    if (avio_open2(&io, url, AVIO_FLAG_READ, &interrupt, NULL) < 0) {
        return 0;
    }
    const AVInputFormat *format = NULL;
    // No file name is given, so that an extension does not count as knowledge.
    int score = av_probe_input_buffer2(io, &format, "", NULL, 0, 0);
    avio_closep(&io);
    return score > AVPROBE_SCORE_RETRY;
}

static int fail_open(struct sl_input *input, const char *url, int is_local, int code, struct sl_error *error)
{
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(code, reason, sizeof reason);
    switch (should_stop(input) ? AVERROR_EXIT : code) { // some demuxers return another code then
    case AVERROR_EXIT:
        return sl_fail(error, SL_ERR_INTERRUPTED, "stopped while opening: %s", input->path);
    case AVERROR(ENOMEM):
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", input->path);
    case AVERROR(EACCES):
    case AVERROR(EPERM):
    case AVERROR(ENOENT):
    case AVERROR(ENXIO):
        return sl_fail(error, SL_ERR_OPEN, "cannot open %s: %s", input->path, reason);
    default:
        break;
    }
    if (!is_local) {
        return sl_fail(error, SL_ERR_OPEN, "cannot open %s: %s", input->path, reason);
    }
    if (looks_like_container(input, url)) {
        return sl_fail(error, SL_ERR_TRUNCATED, "%s is cut short or damaged: its header or index is missing (%s)",
                       input->path, reason);
    }
    return sl_fail(error, SL_ERR_NOT_VIDEO, "%s is not a video: no container that FFmpeg knows", input->path);
}

static int is_moving_video(const AVStream *stream)
{
    return stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
           (stream->disposition & (AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_TIMED_THUMBNAILS)) == 0;
}

// FFmpeg's choice, unless that is a cover picture; then the first stream that is none.
static int choose_stream(struct sl_input *input, struct sl_error *error)
{
    AVFormatContext *format = input->format;
    const char *undecodable = NULL;
    int index = av_find_best_stream(format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    for (unsigned i = 0; i <= format->nb_streams && input->stream == NULL; i++) {
        if (index >= 0 && is_moving_video(format->streams[index])) {
            AVStream *stream = format->streams[index];
            input->decoder = avcodec_find_decoder(stream->codecpar->codec_id);
            if (input->decoder != NULL) {
                input->stream = stream;
            } else if (undecodable == NULL) {
                undecodable = avcodec_get_name(stream->codecpar->codec_id);
            }
        }
        index = i < format->nb_streams ? (int)i : -1;
    }
    if (input->stream != NULL) {
        return SL_OK;
    }
    if (undecodable != NULL) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: its video (%s) has no decoder in this FFmpeg", input->path,
                       undecodable);
    }
    if (format->nb_streams == 0) {
        return sl_fail(error, SL_ERR_TRUNCATED, "%s is cut short or damaged: a %s container without any stream",
                       input->path, format->iformat->name);
    }
    if (format->probe_score <= AVPROBE_SCORE_RETRY) {
        return sl_fail(error, SL_ERR_NOT_VIDEO, "%s is not a video", input->path);
    }
    return sl_fail(error, SL_ERR_NO_VIDEO, "%s has no video stream (%s, %u other streams)", input->path,
                   format->iformat->name, format->nb_streams);
}

// FFmpeg rounds the container's start to microseconds. The stream it came from knows it exactly.
static void find_origin(struct sl_input *input)
{
    AVFormatContext *format = input->format;
    input->origin = 0;
    input->origin_base = AV_TIME_BASE_Q;
    if (format->start_time != AV_NOPTS_VALUE) {
        input->origin = format->start_time;
    } else if (input->stream->start_time != AV_NOPTS_VALUE) {
        input->origin = input->stream->start_time;
        input->origin_base = input->stream->time_base;
        return;
    }
    for (int i = (int)format->nb_streams; i >= 0; i--) { // the video stream last: it wins
        const AVStream *stream = i > 0 ? format->streams[i - 1] : input->stream;
        if (stream->start_time != AV_NOPTS_VALUE && stream->time_base.num > 0 &&
            av_rescale_q(stream->start_time, stream->time_base, AV_TIME_BASE_Q) == format->start_time) {
            input->origin = stream->start_time;
            input->origin_base = stream->time_base;
        }
    }
}

// Packets of other streams are only of use to tell a file that was cut from one whose sound lasts longer.
static void discard_other_streams(struct sl_input *input)
{
    enum AVDiscard others = input->stream->duration > 0 ? AVDISCARD_ALL : AVDISCARD_DEFAULT;
    for (unsigned i = 0; i < input->format->nb_streams; i++) {
        AVStream *stream = input->format->streams[i];
        if (stream != input->stream) {
            stream->discard = others;
        }
    }
}

static int open_format(struct sl_input *input, const char *url, int is_local, struct sl_error *error)
{
    input->format = avformat_alloc_context();
    if (input->format == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", input->path);
    }
    input->format->interrupt_callback = (AVIOInterruptCB){should_stop, input};
    int code = avformat_open_input(&input->format, url, NULL, NULL); // frees the context when it fails
    if (code < 0) {
        return fail_open(input, url, is_local, code, error);
    }
    // FFmpeg can draw plain text as pictures; that is not what anyone means by a video.
    if (strcmp(input->format->iformat->name, "tty") == 0) {
        return sl_fail(error, SL_ERR_NOT_VIDEO, "%s is not a video but text", input->path);
    }
    code = avformat_find_stream_info(input->format, NULL);
    if (code < 0 && (code == AVERROR_EXIT || should_stop(input))) {
        return fail_open(input, url, is_local, code, error);
    }
    return choose_stream(input, error); // other errors: what is known by now decides
}

int sl_input_open(struct sl_input *input, const char *path, const struct sl_source_options *options,
                  struct sl_error *error)
{
    input->options = options;
    input->read_error = 0;
    input->read_end_us = SL_NO_TIME;
    input->path = av_strdup(path);
    if (input->path == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", path);
    }
    start_timer(input, options->open_timeout_us);
    char *url = NULL;
    int status = resolve_path(path, &url, &input->is_local, error);
    if (status == SL_OK) {
        status = open_format(input, url, input->is_local, error);
    }
    av_freep(&url);
    if (status != SL_OK) {
        sl_input_close(input);
        return status;
    }
    find_origin(input);
    discard_other_streams(input);
    if ((input->format->iformat->flags & AVFMT_NOTIMESTAMPS) != 0) {
        sl_input_note(input, SL_NOTE_COUNTED_TIME, "%s holds no times: FFmpeg counts them from the nominal rate",
                      input->format->iformat->name);
    }
    return SL_OK;
}

void sl_input_close(struct sl_input *input)
{
    avformat_close_input(&input->format);
    av_freep(&input->path);
    input->stream = NULL;
    input->decoder = NULL;
}

static void remember_end(struct sl_input *input, const AVPacket *packet)
{
    const AVStream *stream = input->format->streams[packet->stream_index];
    int64_t pts = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
    if (pts == AV_NOPTS_VALUE) {
        return;
    }
    int64_t start_us = av_rescale_q(input->origin, input->origin_base, AV_TIME_BASE_Q);
    int64_t end_us = av_rescale_q(av_sat_add64(pts, packet->duration), stream->time_base, AV_TIME_BASE_Q);
    end_us = av_sat_sub64(end_us, start_us);
    if (end_us > input->read_end_us) {
        input->read_end_us = end_us;
    }
}

int sl_input_read(struct sl_input *input, AVPacket *packet, struct sl_error *error)
{
    int attempts = 0, waits = 0;
    for (;;) {
        if (!waits) {
            start_timer(input, input->options->read_timeout_us);
        }
        int status = sl_input_check(input, error);
        if (status != SL_OK) {
            return status;
        }
        int code = av_read_frame(input->format, packet);
        waits = code == AVERROR(EAGAIN) && (input->format->flags & AVFMT_FLAG_NONBLOCK) != 0;
        if (waits) {
            av_usleep(NONBLOCK_PAUSE_US);
        } else if (code >= 0) {
            attempts = 0;
            remember_end(input, packet);
            if (packet->stream_index == input->stream->index) {
                return SL_OK;
            }
            av_packet_unref(packet);
        } else if (code == AVERROR_EOF) {
            return SL_END;
        } else if (code == AVERROR_EXIT) {
            return sl_fail(error, SL_ERR_INTERRUPTED, "stopped while reading: %s", input->path);
        } else if (code == AVERROR(ENOMEM)) {
            return sl_fail(error, SL_ERR_MEMORY, "out of memory reading %s", input->path);
        } else if (++attempts == READ_ATTEMPTS) {
            char reason[AV_ERROR_MAX_STRING_SIZE] = "";
            av_strerror(code, reason, sizeof reason);
            sl_input_note(input, SL_NOTE_READ_ERROR, "reading stopped early: %s", reason);
            input->read_error = 1;
            return SL_END;
        }
    }
}

int sl_input_read_key(struct sl_input *input, int64_t *key_us, struct sl_error *error)
{
    AVPacket *packet = av_packet_alloc();
    if (packet == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory reading %s", input->path);
    }
    int status = SL_OK;
    int is_key = 0;
    while (status == SL_OK && !is_key) {
        av_packet_unref(packet);
        status = sl_input_read(input, packet, error);
        is_key = status == SL_OK && (packet->flags & AV_PKT_FLAG_KEY) != 0;
    }
    *key_us = is_key ? sl_input_media_us(input, packet->pts) : SL_NO_TIME;
    av_packet_free(&packet);
    return status < 0 ? status : *key_us != SL_NO_TIME;
}

int sl_input_can_seek(const struct sl_input *input)
{
    const AVFormatContext *format = input->format;
    // Where times are counted, not stored, they are wrong after a jump; and animated PNG calls every picture a key
    // picture.
    return (format->iformat->flags & AVFMT_NOTIMESTAMPS) == 0 &&
           input->stream->codecpar->codec_id != AV_CODEC_ID_APNG && format->pb != NULL &&
           (format->pb->seekable & AVIO_SEEKABLE_NORMAL) != 0;
}

int sl_input_seek(struct sl_input *input, int64_t media_us)
{
    AVRational base = input->stream->time_base;
    int64_t ticks = av_rescale_q_rnd(media_us, AV_TIME_BASE_Q, base, AV_ROUND_DOWN);
    ticks += av_rescale_q_rnd(input->origin, input->origin_base, base, AV_ROUND_DOWN);
    start_timer(input, input->options->read_timeout_us);
    return av_seek_frame(input->format, input->stream->index, ticks, AVSEEK_FLAG_BACKWARD) >= 0;
}

int64_t sl_input_media_us(const struct sl_input *input, int64_t pts)
{
    AVRational base = input->stream->time_base;
    AVRational zero = input->origin_base;
    // Times of more than 100,000 years are noise; without them 128 bits hold every product below.
    const double limit = 3.2e12;
    double seconds = (double)pts * base.num / base.den;
    double zero_seconds = (double)input->origin * zero.num / zero.den;
    if (pts == AV_NOPTS_VALUE || seconds > limit || seconds < -limit || zero_seconds > limit || zero_seconds < -limit) {
        return SL_NO_TIME;
    }
    __int128 denominator = (__int128)base.den * zero.den;
    __int128 numerator = (__int128)pts * base.num * zero.den - (__int128)input->origin * zero.num * base.den;
    numerator *= AV_TIME_BASE;
    __int128 us = numerator / denominator;
    if (numerator % denominator < 0) {
        us--; // C rounds towards zero; time is rounded down
    }
    return (int64_t)us;
}

int64_t sl_input_length_us(const struct sl_input *input, int64_t ticks)
{
    AVRational base = input->stream->time_base;
    const double one_day = 24 * 3600;
    if (ticks <= 0 || (double)ticks * base.num / base.den > one_day) {
        return 0;
    }
    return av_rescale_q(ticks, base, AV_TIME_BASE_Q);
}

int64_t sl_input_duration_us(const struct sl_input *input)
{
    const AVFormatContext *format = input->format;
    if (format->duration <= 0) {
        return SL_NO_TIME;
    }
    // MP4 counts its length from the zero of its own clock, and so does Matroska as most programs write it.
    int64_t start_us = av_rescale_q(input->origin, input->origin_base, AV_TIME_BASE_Q);
    int is_from_zero = format->duration_estimation_method == AVFMT_DURATION_FROM_STREAM;
    if (is_from_zero && start_us > 0 && start_us < format->duration) {
        return format->duration - start_us;
    }
    return format->duration;
}

// Matroska states each stream's end as a tag.
static int64_t tagged_end_us(const AVStream *stream)
{
    const AVDictionaryEntry *tag = av_dict_get(stream->metadata, "DURATION", NULL, AV_DICT_IGNORE_SUFFIX);
    int64_t end_us = 0;
    if (tag == NULL || av_parse_time(&end_us, tag->value, 1) < 0 || end_us <= 0) {
        return SL_NO_TIME;
    }
    return end_us;
}

int64_t sl_input_stated_end_us(const struct sl_input *input)
{
    const AVStream *stream = input->stream;
    if (stream->duration > 0 && stream->start_time != AV_NOPTS_VALUE) {
        return sl_input_media_us(input, av_sat_add64(stream->start_time, stream->duration));
    }
    int64_t tagged_us = tagged_end_us(stream);
    if (tagged_us != SL_NO_TIME) {
        return tagged_us - av_rescale_q(input->origin, input->origin_base, AV_TIME_BASE_Q);
    }
    // The container's own duration may be that of its sound. If all of it was read, the pictures ended where they
    // ended.
    int64_t duration_us = sl_input_duration_us(input);
    if (duration_us == SL_NO_TIME || input->format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE ||
        input->read_end_us == SL_NO_TIME || input->read_end_us + TAIL_SLACK_US >= duration_us) {
        return SL_NO_TIME;
    }
    return duration_us;
}
