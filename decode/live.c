// SPDX-License-Identifier: Apache-2.0
// Live sources: packets and their arrival, one picture at a time, samples on a grid of wall time. See decode.h.
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libavutil/avstring.h>
#include <libavutil/time.h>

#include "decode/decode.h"
#include "decode/hls.h"
#include "decode/input.h"
#include "decode/liveclock.h"
#include "decode/surface.h"
#include "decode/v4l2.h"

// A read that took this long was waited for: its packet did not lie in a buffer of ours.
#define FRESH_US 2000
// So long after opening packets count as fresh even if none was waited for.
#define FRESH_ANYWAY_US 2000000
// Pictures further apart than this leave a hole: the one before was not true all the time.
#define GAP_US 2000000
// A wall clock that moves by this much against the monotonic one was set.
#define CLOCK_SET_US 200000
// So many packets without a time, and the stream has none.
#define UNDATED_PACKETS 50
#define PAUSE_US        10000
#define NO_PICTURES     "no pictures came"

struct sl_live {
    struct sl_live_options options;
    struct sl_source_options reading; // what the input needs of them
    struct sl_live_counts counts;
    struct sl_input input;
    struct sl_surfaces surfaces;
    AVCodecContext *codec;
    AVPacket *packet;
    char codec_text[96];
    int is_file, is_device, has_times, undated;
    int64_t opened_us; // monotonic
    int64_t set_us;    // Unix minus monotonic time, as last seen

    struct sl_hls hls; // of use when the stream is one
    struct sl_liveclock clock;
    int64_t base_us; // wall time minus media time, of the segment
    int64_t file_zero_us;
    int64_t next_report_us; // what the camera said of the next packet
    int step_pending;       // the next picture begins a segment
    int has_segment;
    struct sl_live_segment segment;

    AVFrame *shown, *ahead;
    int has_shown, has_ahead;
    int ahead_begins;           // a segment begins with it
    int hole_told;              // the gap before it was handed out
    int64_t shown_us, ahead_us; // media time
    int64_t step_us;            // between the last two pictures, at most half a second
    int64_t index;
    struct sl_frame *frame; // of `shown`, made when first asked for
};

void sl_live_redact(const char *url, char *out, size_t size)
{
    const char *rest = strstr(url, "://");
    size_t scheme = rest != NULL ? (size_t)(rest - url) + 3 : 0;
    const char *host = url + scheme;
    if (rest != NULL) {
        size_t authority = strcspn(host, "/?#");
        for (size_t i = 0; i < authority; i++) { // the last '@': a password may hold one
            host = url[scheme + i] == '@' ? url + scheme + i + 1 : host;
        }
    }
    size_t kept = rest != NULL ? strcspn(host, "?#") : strlen(host);
    snprintf(out, size, "%.*s%.*s", (int)scheme, url, (int)kept, host);
}

// ---- Opening

static int64_t monotonic_us(void)
{
    return av_gettime_relative();
}

static int is_over(void *opaque)
{
    return sl_input_check(opaque, NULL) != SL_OK;
}

static int scheme_is(const char *url, const char *scheme)
{
    return av_strstart(url, scheme, NULL);
}

// FFmpeg tells a name that cannot be resolved as an input/output error. `name` is the URL without its secrets.
static int host_is_known(const char *name)
{
    char host[256];
    const char *begin = strstr(name, "://");
    struct addrinfo *found = NULL;
    if (begin == NULL || begin[3] == '[') {
        return 1;
    }
    snprintf(host, sizeof host, "%.*s", (int)strcspn(begin + 3, ":/"), begin + 3);
    int known = getaddrinfo(host, NULL, NULL, &found) == 0;
    if (known) {
        freeaddrinfo(found);
    }
    return known;
}

static int fail_open(const struct sl_live *live, const char *name, int code, struct sl_error *error)
{
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    if (live->options.interrupted(live->options.ctx)) {
        return sl_fail(error, SL_ERR_INTERRUPTED, "%s: stopped while connecting", name);
    }
    if (code == AVERROR_EXIT) {
        return sl_fail(error, SL_ERR_IO, "%s: cannot connect: no answer within %.0f s", name,
                       (double)live->options.timeout_us / 1e6);
    }
    if (code == AVERROR(ENOMEM)) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", name);
    }
    if (live->is_device) {
        av_strerror(code, reason, sizeof reason);
        return sl_fail(error, SL_ERR_OPEN, "%s: cannot open the device: %s", name, reason);
    }
    if (code == AVERROR_HTTP_OTHER_4XX) {
        return sl_fail(error, SL_ERR_OPEN, "%s: cannot connect: the server refuses; has it video there?", name);
    }
    if (code == AVERROR(EIO) && !host_is_known(name)) {
        return sl_fail(error, SL_ERR_OPEN, "%s: cannot connect: no such host", name);
    }
    if (code == AVERROR_HTTP_UNAUTHORIZED || code == AVERROR_HTTP_FORBIDDEN) {
        return sl_fail(error, SL_ERR_OPEN, "%s: cannot connect: wrong user or password", name);
    }
    av_strerror(code, reason, sizeof reason);
    return sl_fail(error, SL_ERR_OPEN, "%s: cannot connect: %s", name, reason);
}

static int set_options(const struct sl_live *live, const char *url, AVDictionary **options)
{
    int code = 0;
    if (scheme_is(url, "rtsp")) {
        code = av_dict_set(options, "rtsp_transport", live->options.over_udp ? "udp" : "tcp", 0);
        code = code < 0 ? code : av_dict_set(options, "buffer_size", "1048576", 0);
        code = code < 0 ? code : av_dict_set(options, "allowed_media_types", "video", 0);
    }
    code = code < 0 ? code : sl_hls_options(options);
    code = code < 0 ? code : av_dict_set(options, "fpsprobesize", "1", 0); // no rate is asked for: time tells
    return code < 0 ? code : av_dict_set(options, "analyzeduration", "3000000", 0);
}

static int open_format(struct sl_live *live, const char *url, struct sl_error *error)
{
    struct sl_input *input = &live->input;
    AVDictionary *options = NULL;
    const AVInputFormat *of_device = NULL;
    const char *device = sl_v4l2_path(url);
    if (device != NULL && sl_v4l2_format(input->path, &of_device, error) != SL_OK) {
        return error->status;
    }
    input->give_up_us = monotonic_us() + live->options.timeout_us;
    input->format = avformat_alloc_context();
    int code = input->format == NULL ? AVERROR(ENOMEM) : sl_hls_attach(&live->hls, url, input->format);
    code = code < 0 ? code : set_options(live, url, &options);
    if (code >= 0) {
        input->format->interrupt_callback = (AVIOInterruptCB){is_over, input};
        input->format->flags |= device != NULL ? AVFMT_FLAG_NONBLOCK : 0; // nothing could interrupt its reads
        const char *place = device != NULL ? device : url;
        code = avformat_open_input(&input->format, place, of_device, &options); // frees the context when it fails
    }
    av_dict_free(&options); // what no part of FFmpeg knew
    if (code >= 0) {
        code = avformat_find_stream_info(input->format, NULL);
        code = code == AVERROR_EXIT ? code : 0; // others: what is known by now decides
    }
    return code < 0 ? fail_open(live, input->path, code, error) : SL_OK;
}

static int choose_stream(struct sl_live *live, struct sl_error *error)
{
    struct sl_input *input = &live->input;
    int index = av_find_best_stream(input->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (index < 0) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: sends no video", input->path);
    }
    input->stream = input->format->streams[index];
    for (unsigned i = 0; i < input->format->nb_streams; i++) {
        input->format->streams[i]->discard = (int)i == index ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    }
    if (input->stream->codecpar->codec_id == AV_CODEC_ID_NONE) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: its video is of a codec that this FFmpeg does not know",
                       input->path);
    }
    const char *name = avcodec_get_name(input->stream->codecpar->codec_id);
    input->decoder = avcodec_find_decoder(input->stream->codecpar->codec_id);
    if (input->decoder == NULL) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: its video (%s) has no decoder in this FFmpeg", input->path, name);
    }
    snprintf(live->codec_text, sizeof live->codec_text, "%s %dx%d", name, input->stream->codecpar->width,
             input->stream->codecpar->height);
    input->origin = 0;
    input->origin_base = input->stream->time_base;
    return SL_OK;
}

static int open_decoder(struct sl_live *live, struct sl_error *error)
{
    struct sl_input *input = &live->input;
    live->codec = avcodec_alloc_context3(input->decoder);
    int code =
        live->codec == NULL ? AVERROR(ENOMEM) : avcodec_parameters_to_context(live->codec, input->stream->codecpar);
    if (code >= 0) {
        live->codec->pkt_timebase = input->stream->time_base;
        live->codec->thread_count = 1; // each further thread would hold a picture back
        code = avcodec_open2(live->codec, input->decoder, NULL);
    }
    if (code == AVERROR(ENOMEM)) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", input->path);
    }
    return code < 0 ? sl_fail(error, SL_ERR_NO_VIDEO, "%s: its video (%s) cannot be decoded here", input->path,
                              live->codec_text)
                    : SL_OK;
}

static int allocate(const char *name, const struct sl_live_options *options, struct sl_live **out,
                    struct sl_error *error)
{
    struct sl_live *live = calloc(1, sizeof *live);
    if (live == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", name);
    }
    live->options = *options;
    sl_source_defaults(&live->reading);
    live->reading.read_timeout_us = options->timeout_us;
    live->reading.interrupted = options->interrupted;
    live->reading.note = options->note;
    live->reading.ctx = options->ctx;
    live->input.options = &live->reading;
    live->input.path = av_strdup(name); // what messages say
    live->surfaces.input = &live->input;
    live->packet = av_packet_alloc();
    live->shown = av_frame_alloc();
    live->ahead = av_frame_alloc();
    live->file_zero_us = live->next_report_us = SL_NO_TIME;
    *out = live;
    int whole = live->input.path != NULL && live->packet != NULL && live->shown != NULL && live->ahead != NULL;
    return whole ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory opening %s", name);
}

int sl_live_names_file(const char *url)
{
    const char *protocol = avio_find_protocol_name(url);
    return sl_v4l2_path(url) == NULL && protocol != NULL && strcmp(protocol, "file") == 0;
}

int sl_live_open(const char *url, const char *name, const struct sl_live_options *options, struct sl_live **live,
                 struct sl_error *error)
{
    struct sl_live *made = NULL;
    int status = allocate(name, options, &made, error);
    if (status == SL_OK) {
        made->is_device = sl_v4l2_path(url) != NULL;
        made->is_file = sl_live_names_file(url);
        status = open_format(made, url, error);
    }
    if (status == SL_OK) {
        status = choose_stream(made, error);
    }
    if (status == SL_OK) {
        status = open_decoder(made, error);
    }
    if (status != SL_OK) {
        sl_live_close(made);
        return status;
    }
    made->opened_us = monotonic_us();
    made->set_us = av_gettime() - made->opened_us;
    *live = made;
    return SL_OK;
}

void sl_live_close(struct sl_live *live)
{
    if (live == NULL) {
        return;
    }
    sl_frame_unref(live->frame);
    sl_surfaces_close(&live->surfaces);
    avcodec_free_context(&live->codec);
    sl_input_close(&live->input);
    sl_hls_detach(&live->hls);
    av_packet_free(&live->packet);
    av_frame_free(&live->shown);
    av_frame_free(&live->ahead);
    free(live);
}

// ---- Packets and their time

// FFmpeg counts from a report's RTP timestamp to the packet's as if neither ever wrapped around; they do, at some
// moment of every connection that lives for 13 hours.
static int64_t unwrapped(int64_t wall_us, int64_t arrival_us, AVRational ticks)
{
    int64_t around_us = av_rescale_q(INT64_C(1) << 32, ticks, AV_TIME_BASE_Q);
    if (wall_us - arrival_us > around_us / 2) {
        return wall_us - around_us;
    }
    return arrival_us - wall_us > around_us / 2 ? wall_us + around_us : wall_us;
}

static int64_t carried_time(const AVPacket *packet, int64_t arrival_us, AVRational ticks)
{
    size_t size = 0;
    const uint8_t *data = av_packet_get_side_data(packet, AV_PKT_DATA_PRFT, &size);
    if (data == NULL || size < sizeof(AVProducerReferenceTime)) {
        return SL_NO_TIME;
    }
    AVProducerReferenceTime time;
    memcpy(&time, data, sizeof time);
    return unwrapped(time.wallclock, arrival_us, ticks);
}

// What the camera said of this packet. Where FFmpeg must find the ends of pictures itself, a packet ends only when the
// next one comes, and it is that one's report which it carries.
static int64_t camera_time(struct sl_live *live, int64_t arrival_us)
{
    int64_t carried_us = carried_time(live->packet, arrival_us, live->input.stream->time_base);
    enum AVCodecID codec = live->input.stream->codecpar->codec_id;
    if (codec != AV_CODEC_ID_H264 && codec != AV_CODEC_ID_HEVC && codec != AV_CODEC_ID_MPEG4) {
        return carried_us;
    }
    int64_t own_us = live->next_report_us;
    live->next_report_us = carried_us;
    return own_us;
}

// A file is read at its own pace: its packets arrive when their pictures are due.
static int pace(struct sl_live *live, int64_t pts_us, int64_t *arrival_us, struct sl_error *error)
{
    if (live->file_zero_us == SL_NO_TIME) {
        live->file_zero_us = *arrival_us - pts_us;
    }
    *arrival_us = live->file_zero_us + pts_us;
    while (av_gettime() < *arrival_us) {
        if (live->options.interrupted(live->options.ctx)) {
            return sl_fail(error, SL_ERR_INTERRUPTED, "%s: stopped", live->input.path);
        }
        av_usleep(PAUSE_US);
    }
    return SL_OK;
}

static void watch_system_clock(struct sl_live *live)
{
    int64_t set_us = av_gettime() - monotonic_us();
    int64_t moved_us = set_us - live->set_us;
    live->set_us = set_us;
    if (!live->is_file && (moved_us > CLOCK_SET_US || moved_us < -CLOCK_SET_US)) {
        sl_liveclock_moved(&live->clock, moved_us);
    }
}

// Some streams carry no times at all (MJPEG over HTTP): a picture's is when it came. SL_NO_TIME: this one packet has
// none, as it happens at the beginning.
static int64_t packet_time(struct sl_live *live, AVPacket *packet, int64_t arrival_us)
{
    int64_t pts_us = sl_input_media_us(&live->input, packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts);
    const AVInputFormat *format = live->input.format->iformat;
    int has_times = (format->flags & AVFMT_NOTIMESTAMPS) == 0 && strcmp(format->name, "mpjpeg") != 0;
    if (has_times && (pts_us != SL_NO_TIME || live->has_times || ++live->undated < UNDATED_PACKETS)) {
        live->has_times = live->has_times || pts_us != SL_NO_TIME;
        return pts_us;
    }
    packet->pts = av_rescale_q(arrival_us, AV_TIME_BASE_Q, live->input.stream->time_base);
    packet->dts = packet->pts;
    return arrival_us;
}

static void describe_segment(struct sl_live *live)
{
    live->segment.origin = live->clock.origin;
    live->segment.error_us = sl_liveclock_error_us(&live->clock);
}

static int date_packet(struct sl_live *live, int64_t waited_us, struct sl_error *error)
{
    watch_system_clock(live);
    int64_t arrival_us = av_gettime();
    int64_t pts_us = packet_time(live, live->packet, arrival_us);
    int64_t camera_us = camera_time(live, arrival_us);
    if (pts_us == SL_NO_TIME) {
        return SL_OK;
    }
    int fresh = live->is_file || waited_us >= FRESH_US || monotonic_us() - live->opened_us > FRESH_ANYWAY_US;
    int64_t shift_us = 0;
    if (live->is_file) {
        int64_t due_us = sl_input_media_us(&live->input, live->packet->dts);
        int64_t at_us = arrival_us;
        int status = pace(live, due_us != SL_NO_TIME ? due_us : pts_us, &at_us, error);
        if (status != SL_OK) {
            return status;
        }
        arrival_us = live->file_zero_us + pts_us; // whatever the order of decoding
    } else if (strcmp(live->input.format->iformat->name, "hls") == 0) {
        sl_hls_packet(&live->hls, live->packet, pts_us, &live->input.format->interrupt_callback, &live->clock);
    }
    switch (sl_liveclock_packet(&live->clock, pts_us, arrival_us, fresh, camera_us, &shift_us)) {
    case SL_LIVECLOCK_STEP:
        live->step_pending = 1;
        break;
    case SL_LIVECLOCK_SHIFT: // a segment that is still to begin takes its time from the clock
        live->base_us += live->step_pending ? 0 : shift_us;
        live->segment.wall_start_us += live->step_pending ? 0 : shift_us;
        break;
    case SL_LIVECLOCK_ON:
        break;
    }
    if (!live->step_pending && !live->ahead_begins) { // else it is of the next segment that the clock tells
        describe_segment(live);
    }
    return SL_OK;
}

static int send_packet(struct sl_live *live, struct sl_error *error)
{
    int code = avcodec_send_packet(live->codec, live->packet);
    av_packet_unref(live->packet);
    if (code == AVERROR(ENOMEM)) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory decoding %s", live->input.path);
    }
    live->counts.damaged += code < 0 && code != AVERROR(EAGAIN); // but it goes on
    return SL_OK;
}

static int read_packet(struct sl_live *live, struct sl_error *error)
{
    int64_t before_us = monotonic_us();
    int status = sl_input_read(&live->input, live->packet, error);
    if (status == SL_ERR_INTERRUPTED && !live->options.interrupted(live->options.ctx)) {
        return sl_fail(error, SL_ERR_IO, "%s: no data for %.0f s", live->input.path,
                       (double)live->options.timeout_us / 1e6);
    }
    if (status == SL_END && !live->is_file) {
        return sl_fail(error, SL_ERR_IO, "%s: the connection was closed", live->input.path);
    }
    if (status != SL_OK) {
        return status;
    }
    live->counts.packets++;
    live->counts.bytes += live->packet->size;
    status = date_packet(live, monotonic_us() - before_us, error);
    return status == SL_OK ? send_packet(live, error) : status;
}

// ---- Pictures

static void begin_segment(struct sl_live *live, int64_t wall_us)
{
    int64_t media_us = 0;
    if (live->has_segment) { // media time goes on with the time that passed
        int64_t passed_us = live->step_us > 0 ? live->step_us : 40000;
        media_us = live->shown_us + passed_us;
    }
    live->base_us = wall_us - media_us;
    live->ahead_us = media_us;
    live->ahead_begins = 1;
    live->step_pending = 0;
}

// 1 if the picture in `ahead` is to be shown.
static int accept_picture(struct sl_live *live)
{
    AVFrame *frame = live->ahead;
    int64_t pts_us = sl_input_media_us(&live->input, frame->best_effort_timestamp);
    if ((frame->flags & AV_FRAME_FLAG_CORRUPT) != 0 || frame->decode_error_flags != 0) {
        live->counts.damaged++;
        return 0;
    }
    if (pts_us == SL_NO_TIME || !live->clock.is_set) {
        return 0;
    }
    int64_t wall_us = sl_liveclock_wall_us(&live->clock, pts_us);
    live->ahead_begins = 0;
    live->hole_told = 0;
    if (live->step_pending) {
        begin_segment(live, wall_us);
        live->counts.decoded++;
        return 1;
    }
    live->ahead_us = wall_us - live->base_us;
    if (live->has_shown && live->ahead_us <= live->shown_us) {
        live->counts.backward++;
        return 0;
    }
    live->counts.decoded++;
    return 1;
}

static int decode(struct sl_live *live, struct sl_error *error)
{
    for (;;) {
        int code = avcodec_receive_frame(live->codec, live->ahead);
        int status = SL_OK;
        if (code >= 0 && accept_picture(live)) {
            live->has_ahead = 1;
            return SL_OK;
        }
        if (code == AVERROR(EAGAIN)) {
            status = read_packet(live, error);
        } else if (code == AVERROR_EOF) {
            return SL_END;
        } else if (code < 0) {
            live->counts.damaged++;
            status = read_packet(live, error);
        }
        if (status == SL_END) {
            (void)avcodec_send_packet(live->codec, NULL); // the last pictures; fails only when it was told before
            status = SL_OK;
        }
        if (status != SL_OK) {
            return status;
        }
    }
}

// ---- Samples

static int64_t next_sample_us(const struct sl_live *live)
{
    return live->segment.start_us +
           av_rescale_rnd(live->index, INT64_C(1000000) * live->options.fps_den, live->options.fps_num, AV_ROUND_DOWN);
}

static void show_ahead(struct sl_live *live)
{
    if (live->has_shown && live->ahead_us > live->shown_us) {
        int64_t step_us = live->ahead_us - live->shown_us;
        live->step_us = step_us < 500000 ? step_us : 500000;
    }
    AVFrame *passed = live->shown;
    live->shown = live->ahead;
    live->shown_us = live->ahead_us;
    live->ahead = passed;
    live->has_shown = 1;
    live->has_ahead = 0;
    sl_frame_unref(live->frame);
    live->frame = NULL;
}

static void hand_segment(struct sl_live *live, struct sl_live_item *item)
{
    *item =
        (struct sl_live_item){.kind = SL_LIVE_SEGMENT, .end_us = live->has_segment ? sl_live_end_us(live) : SL_NO_TIME};
    live->segment.start_us = live->ahead_us;
    live->segment.wall_start_us = live->ahead_us + live->base_us;
    describe_segment(live);
    live->has_segment = 1;
    live->index = 0;
    live->ahead_begins = 0;
    show_ahead(live);
}

static int hand_sample(struct sl_live *live, struct sl_live_item *item, struct sl_error *error)
{
    if (live->frame == NULL) {
        int status = sl_surface_make(&live->surfaces, live->shown, live->shown_us, &live->frame, error);
        if (status != SL_OK) {
            return status;
        }
        live->frame->wall_us = live->shown_us + live->base_us;
    }
    *item = (struct sl_live_item){.kind = SL_LIVE_SAMPLE, .end_us = SL_NO_TIME};
    item->sample = (struct sl_sample){live->index, next_sample_us(live), sl_frame_ref(live->frame)};
    live->index++;
    live->counts.sampled++;
    return SL_OK;
}

int sl_live_next(struct sl_live *live, struct sl_live_item *item, struct sl_error *error)
{
    for (;;) {
        if (!live->has_ahead) {
            int status = decode(live, error);
            if (status != SL_OK) {
                return status;
            }
        }
        if (live->ahead_begins) {
            hand_segment(live, item);
            return SL_OK;
        }
        if (live->ahead_us - live->shown_us > GAP_US && !live->hole_told) {
            live->hole_told = 1;
            *item = (struct sl_live_item){.kind = SL_LIVE_HOLE, .end_us = SL_NO_TIME};
            item->hole = (struct sl_hole){live->shown_us + live->step_us, live->ahead_us, NO_PICTURES};
            return SL_OK;
        }
        if (next_sample_us(live) < live->ahead_us) {
            return hand_sample(live, item, error);
        }
        show_ahead(live);
    }
}

// ---- What it is

struct sl_live_segment sl_live_segment(const struct sl_live *live)
{
    return live->segment;
}

int64_t sl_live_end_us(const struct sl_live *live)
{
    return live->shown_us + (live->step_us > 0 ? live->step_us : 40000);
}

int sl_live_is_file(const struct sl_live *live)
{
    return live->is_file;
}

const char *sl_live_codec(const struct sl_live *live)
{
    return live->codec_text;
}

const char *sl_live_container(const struct sl_live *live)
{
    return live->input.format->iformat->name;
}

struct sl_live_counts sl_live_counts(const struct sl_live *live)
{
    return live->counts;
}
