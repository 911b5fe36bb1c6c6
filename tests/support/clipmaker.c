// SPDX-License-Identifier: Apache-2.0
#include "tests/support/clipmaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

enum { COLUMNS = 6, ROWS = 4, SOUND_RATE = 8000 };

// --- the clock ---

static unsigned clock_bits(unsigned value)
{
    value &= 0xffff;
    unsigned sum = (value ^ (value >> 8)) * 37 + 91;
    return value | (sum & 0xff) << 16;
}

// Writes one sample of a component, whatever the format.
static void put_sample(AVFrame *frame, const AVPixFmtDescriptor *d, int c, int x, int y, unsigned value8)
{
    const AVComponentDescriptor *component = &d->comp[c];
    uint8_t *place = frame->data[component->plane] + (ptrdiff_t)y * frame->linesize[component->plane] +
                     (ptrdiff_t)x * component->step + component->offset;
    unsigned value = value8 << (component->depth - 8) << component->shift;
    if (component->depth <= 8) {
        place[0] = (uint8_t)value;
    } else {
        int high = (d->flags & AV_PIX_FMT_FLAG_BE) != 0 ? 0 : 1;
        place[high] = (uint8_t)(value >> 8);
        place[1 - high] = (uint8_t)value;
    }
}

static unsigned level_of(const AVPixFmtDescriptor *d, int c, unsigned is_bright)
{
    static const unsigned differences[] = {0, 120, 136};
    int is_alpha = (d->flags & AV_PIX_FMT_FLAG_ALPHA) != 0 && c == d->nb_components - 1;
    unsigned light = is_bright ? 225 : 25;
    if (is_alpha) {
        return 255;
    }
    if ((d->flags & AV_PIX_FMT_FLAG_RGB) != 0) {
        return light + 4 * (unsigned)c;
    }
    return c == 0 ? light : differences[c];
}

static void draw_clock(AVFrame *frame, unsigned value, unsigned second_field_value)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(frame->format);
    for (int c = 0; c < d->nb_components; c++) {
        int is_chroma = (d->flags & AV_PIX_FMT_FLAG_RGB) == 0 && (c == 1 || c == 2);
        int width = is_chroma ? AV_CEIL_RSHIFT(frame->width, d->log2_chroma_w) : frame->width;
        int height = is_chroma ? AV_CEIL_RSHIFT(frame->height, d->log2_chroma_h) : frame->height;
        for (int y = 0; y < height; y++) {
            unsigned bits = clock_bits(y % 2 == 0 ? value : second_field_value);
            for (int x = 0; x < width; x++) {
                int block = y * ROWS / height * COLUMNS + x * COLUMNS / width;
                put_sample(frame, d, c, x, y, level_of(d, c, bits >> block & 1));
            }
        }
    }
}

static unsigned sample_at(const struct sl_frame *frame, int x, int y)
{
    const uint8_t *line = frame->plane[0] + (ptrdiff_t)y * frame->pitch[0];
    int step = frame->layout == SL_LAYOUT_RGB_PACKED ? 3 : 1;
    if (frame->bit_depth > 8) {
        return (unsigned)(((const uint16_t *)line)[x * step] >> frame->msb_shift >> (frame->bit_depth - 8));
    }
    return line[x * step];
}

int clip_read_clock(const struct sl_frame *frame)
{
    unsigned bits = 0;
    for (int block = 0; block < COLUMNS * ROWS; block++) {
        int x = (2 * (block % COLUMNS) + 1) * frame->width / (2 * COLUMNS);
        int y = (2 * (block / COLUMNS) + 1) * frame->height / (2 * ROWS);
        unsigned light = 0;
        for (int dy = -1; dy <= 1; dy++) {
            for (int dx = -1; dx <= 1; dx++) {
                light += sample_at(frame, x + dx, y + dy);
            }
        }
        bits |= (unsigned)(light > 9 * 125) << block;
    }
    return clock_bits(bits) == bits ? (int)(bits & 0xffff) : -1;
}

// --- the file ---

struct writer {
    const struct clip *clip;
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *video, *sound, *cover;
    AVPacket *packet;
    int64_t sound_written; // samples
};

static void must(int code, const char *what, const char *path)
{
    if (code < 0) {
        fail_msg("%s: %s failed: %s", path, what, av_err2str(code));
    }
}

int clip_encoder_exists(const char *encoder)
{
    return avcodec_find_encoder_by_name(encoder) != NULL;
}

static void set_fields(const struct clip *clip, AVFrame *frame)
{
    if (clip->interlaced == 0) {
        return;
    }
#ifdef AV_FRAME_FLAG_INTERLACED // FFmpeg 6.1
    frame->flags |= AV_FRAME_FLAG_INTERLACED | (clip->interlaced == 1 ? AV_FRAME_FLAG_TOP_FIELD_FIRST : 0);
#else
    frame->interlaced_frame = 1;
    frame->top_field_first = clip->interlaced == 1;
#endif
}

static void open_codec(struct writer *w)
{
    const struct clip *clip = w->clip;
    const char *name = clip->encoder != NULL ? clip->encoder : "mpeg4";
    const AVCodec *encoder = avcodec_find_encoder_by_name(name);
    assert_non_null(encoder);
    AVCodecContext *codec = avcodec_alloc_context3(encoder);
    assert_non_null(codec);
    w->codec = codec;
    codec->width = clip->width > 0 ? clip->width : 192;
    codec->height = clip->height > 0 ? clip->height : 128;
    codec->pix_fmt = clip->pixel_format;
    codec->time_base = clip->time_base.num > 0 ? clip->time_base : (AVRational){1, 1000};
    codec->gop_size = clip->key_interval > 0 ? clip->key_interval : 12;
    codec->max_b_frames = clip->b_frames;
    codec->flags |= AV_CODEC_FLAG_QSCALE; // by bit rate, an encoder would starve at 90,000 ticks a second
    codec->global_quality = 3 * FF_QP2LAMBDA;
    codec->thread_count = 1;
    codec->sample_aspect_ratio = clip->sample_aspect;
    codec->strict_std_compliance = FF_COMPLIANCE_UNOFFICIAL;
    if (clip->interlaced != 0) {
        codec->flags |= AV_CODEC_FLAG_INTERLACED_DCT | AV_CODEC_FLAG_INTERLACED_ME;
        codec->field_order = clip->interlaced == 1 ? AV_FIELD_TT : AV_FIELD_BB;
    }
    if ((w->format->oformat->flags & AVFMT_GLOBALHEADER) != 0) {
        codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    AVDictionary *options = NULL;
    must(av_dict_parse_string(&options, clip->options, "=", ":", 0), "options", clip->path);
    must(avcodec_open2(codec, encoder, &options), "opening the encoder", clip->path);
    av_dict_free(&options);
}

static void set_display_matrix(const struct clip *clip, AVStream *stream)
{
    if (clip->turn[0] == 0 && clip->turn[1] == 0) {
        return;
    }
    int32_t one = 1 << 16; // 16.16 fixed point, and 2.30 in the last place
    int32_t matrix[9] = {
        clip->turn[0] * one, clip->turn[1] * one, 0, clip->turn[2] * one, clip->turn[3] * one, 0, 0, 0, 1 << 30};
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102)
    AVCodecParameters *codec = stream->codecpar;
    AVPacketSideData *data = av_packet_side_data_new(&codec->coded_side_data, &codec->nb_coded_side_data,
                                                     AV_PKT_DATA_DISPLAYMATRIX, sizeof matrix, 0);
    assert_non_null(data);
    memcpy(data->data, matrix, sizeof matrix);
#else
    uint8_t *data = av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, sizeof matrix);
    assert_non_null(data);
    memcpy(data, matrix, sizeof matrix);
#endif
}

static void add_sound(struct writer *w)
{
    w->sound = avformat_new_stream(w->format, NULL);
    assert_non_null(w->sound);
    AVCodecParameters *codec = w->sound->codecpar;
    codec->codec_type = AVMEDIA_TYPE_AUDIO;
    codec->codec_id = AV_CODEC_ID_PCM_S16LE;
    codec->format = AV_SAMPLE_FMT_S16;
    codec->sample_rate = SOUND_RATE;
    codec->bits_per_coded_sample = 16;
    codec->block_align = 2;
    codec->bit_rate = SOUND_RATE * 16;
    av_channel_layout_default(&codec->ch_layout, 1);
    w->sound->time_base = (AVRational){1, SOUND_RATE};
}

// One grey JPEG, marked as a cover.
static void add_cover(struct writer *w)
{
    w->cover = avformat_new_stream(w->format, NULL);
    assert_non_null(w->cover);
    AVCodecParameters *codec = w->cover->codecpar;
    codec->codec_type = AVMEDIA_TYPE_VIDEO;
    codec->codec_id = AV_CODEC_ID_MJPEG;
    codec->width = codec->height = 64;
    w->cover->disposition = AV_DISPOSITION_ATTACHED_PIC;
}

static void write_cover(struct writer *w)
{
    AVCodecContext *codec = avcodec_alloc_context3(avcodec_find_encoder(AV_CODEC_ID_MJPEG));
    AVFrame *frame = av_frame_alloc();
    assert_true(codec != NULL && frame != NULL);
    codec->width = frame->width = 64;
    codec->height = frame->height = 64;
    codec->pix_fmt = AV_PIX_FMT_YUVJ420P;
    frame->format = AV_PIX_FMT_YUVJ420P;
    codec->time_base = (AVRational){1, 25};
    must(avcodec_open2(codec, NULL, NULL), "opening the cover's encoder", w->clip->path);
    must(av_frame_get_buffer(frame, 0), "the cover", w->clip->path);
    for (int plane = 0; plane < 3; plane++) {
        memset(frame->data[plane], 128, (size_t)frame->linesize[plane] * (plane == 0 ? 64 : 32));
    }
    frame->pts = 0;
    must(avcodec_send_frame(codec, frame), "encoding the cover", w->clip->path);
    must(avcodec_send_frame(codec, NULL), "encoding the cover", w->clip->path);
    must(avcodec_receive_packet(codec, w->packet), "encoding the cover", w->clip->path);
    w->packet->stream_index = w->cover->index;
    must(av_interleaved_write_frame(w->format, w->packet), "writing the cover", w->clip->path);
    av_frame_free(&frame);
    avcodec_free_context(&codec);
}

// Sound up to `until_ms`, so that both streams lie side by side in the file.
static void write_sound(struct writer *w, int64_t until_ms)
{
    int64_t all = w->clip->sound_ms;
    until_ms = until_ms < all ? until_ms : all;
    while (w->sound != NULL && w->sound_written < until_ms * SOUND_RATE / 1000) {
        int samples = SOUND_RATE / 20;
        must(av_new_packet(w->packet, samples * 2), "sound", w->clip->path);
        memset(w->packet->data, 0, (size_t)samples * 2);
        w->packet->stream_index = w->sound->index;
        w->packet->pts = w->packet->dts = w->sound_written;
        w->packet->duration = samples;
        w->packet->flags |= AV_PKT_FLAG_KEY;
        av_packet_rescale_ts(w->packet, (AVRational){1, SOUND_RATE}, w->sound->time_base);
        must(av_interleaved_write_frame(w->format, w->packet), "writing sound", w->clip->path);
        w->sound_written += samples;
    }
}

static void open_file(struct writer *w)
{
    const struct clip *clip = w->clip;
    must(avformat_alloc_output_context2(&w->format, NULL, clip->container, clip->path), "choosing the container",
         clip->path);
    w->packet = av_packet_alloc();
    assert_non_null(w->packet);
    if (clip->cover) {
        add_cover(w);
    }
    if (clip->count > 0) {
        open_codec(w);
        w->video = avformat_new_stream(w->format, NULL);
        assert_non_null(w->video);
        must(avcodec_parameters_from_context(w->video->codecpar, w->codec), "parameters", clip->path);
        w->video->time_base = w->codec->time_base;
        w->video->sample_aspect_ratio = clip->sample_aspect;
        set_display_matrix(clip, w->video);
    }
    if (clip->sound_ms > 0) {
        add_sound(w);
    }
    if (clip->cut_at_zero || clip->shift_ms != 0) {
        w->format->avoid_negative_ts = AVFMT_AVOID_NEG_TS_DISABLED;
    }
    must(avio_open(&w->format->pb, clip->path, AVIO_FLAG_WRITE), "creating the file", clip->path);
    AVDictionary *options = NULL;
    must(av_dict_parse_string(&options, clip->muxer_options, "=", ":", 0), "muxer options", clip->path);
    must(avformat_write_header(w->format, &options), "the header", clip->path);
    av_dict_free(&options);
}

static int64_t next_pts(const struct clip *clip, int64_t pts)
{
    for (int i = 0; i + 1 < clip->count; i++) {
        if (clip->pts[i] == pts) {
            return clip->pts[i + 1];
        }
    }
    return clip->count > 1 ? pts + clip->pts[clip->count - 1] - clip->pts[clip->count - 2] : pts + 1;
}

static void write_packets(struct writer *w)
{
    AVRational base = w->codec->time_base;
    for (;;) {
        int code = avcodec_receive_packet(w->codec, w->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) {
            return;
        }
        must(code, "encoding", w->clip->path);
        int64_t shift = av_rescale_q(w->clip->shift_ms, (AVRational){1, 1000}, base);
        w->packet->duration = next_pts(w->clip, w->packet->pts) - w->packet->pts;
        w->packet->pts += shift;
        w->packet->dts += shift;
        w->packet->stream_index = w->video->index;
        av_packet_rescale_ts(w->packet, base, w->video->time_base);
        must(av_interleaved_write_frame(w->format, w->packet), "writing", w->clip->path);
    }
}

static void write_picture(struct writer *w, int64_t pts)
{
    AVFrame *frame = av_frame_alloc();
    assert_non_null(frame);
    frame->format = w->codec->pix_fmt;
    frame->width = w->codec->width;
    frame->height = w->codec->height;
    frame->pts = pts;
    must(av_frame_get_buffer(frame, 0), "a picture", w->clip->path);
    unsigned ms = (unsigned)av_rescale_q(pts, w->codec->time_base, (AVRational){1, 1000});
    int first_is_odd = w->clip->interlaced == 2;
    unsigned later = ms + (w->clip->interlaced != 0 ? 1000 : 0);
    draw_clock(frame, first_is_odd ? later : ms, first_is_odd ? ms : later);
    set_fields(w->clip, frame);
    frame->quality = w->codec->global_quality;
    must(avcodec_send_frame(w->codec, frame), "encoding", w->clip->path);
    av_frame_free(&frame);
    write_packets(w);
    write_sound(w, (int64_t)ms + w->clip->shift_ms);
}

void clip_make(const struct clip *clip)
{
    struct writer w = {.clip = clip};
    open_file(&w);
    if (clip->cover) {
        write_cover(&w);
    }
    for (int i = 0; i < clip->count; i++) {
        write_picture(&w, clip->pts[i]);
    }
    if (w.codec != NULL) {
        must(avcodec_send_frame(w.codec, NULL), "encoding", clip->path);
        write_packets(&w);
    }
    write_sound(&w, clip->sound_ms);
    must(av_write_trailer(w.format), "the trailer", clip->path);
    must(avio_closep(&w.format->pb), "closing", clip->path);
    avcodec_free_context(&w.codec);
    av_packet_free(&w.packet);
    avformat_free_context(w.format);
}

void clip_make_sound(const char *path, int sound_ms)
{
    clip_make(&(struct clip){.path = path, .sound_ms = sound_ms});
}

void clip_grid(int64_t *pts, int count, AVRational rate, AVRational time_base)
{
    for (int i = 0; i < count; i++) {
        pts[i] = av_rescale_q(i, av_inv_q(rate), time_base);
    }
}

// x265 leaves some of its memory behind; AddressSanitizer asks here.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libx265";
}

// --- the folder ---

static char folder[64];

const char *clip_folder_make(void)
{
    snprintf(folder, sizeof folder, P_tmpdir "/scenelog-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

void clip_folder_remove(void)
{
    if (getenv("KEEP_CLIPS") != NULL) {
        print_message("clips are kept in %s\n", folder);
        return;
    }
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

const char *clip_path(const char *name)
{
    static char paths[8][128];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

void clip_write_bytes(const char *path, const void *bytes, size_t size_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

void *clip_read_bytes(const char *path, size_t *size_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size_bytes = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*size_bytes);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size_bytes, file), *size_bytes);
    fclose(file);
    return bytes;
}
