// SPDX-License-Identifier: Apache-2.0
// The picture is resampled as stored and turned when its rows are written. The reference resamples the upright picture
// across, then down, and rounds in between; so a picture that lies on its side is resampled down first. Pixels that are
// not square need no step of their own: both axes are resampled to the target anyway, each at its own scale.
#include "cpu/image.h"

#include "core/half.h"
#include "cpu/colour.h"
#include "cpu/internal.h"
#include "cpu/resample.h"

static int64_t align_64(int64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

struct resize {
    struct cpu_colour colour;
    struct cpu_resample across, down;
    int turned;      // the stored rows are columns of the upright picture
    uint8_t *middle; // the frame's rows, resampled across already if not turned: [frame height, pitch]
    int64_t pitch;
    char *scratch; // scratch_bytes for each thread: two RGBx rows, then what colour or resampling needs
    int64_t scratch_bytes, row_bytes;
    int threads;
};

// Tables and buffers of one picture. 0, and the stream marked, when there is no memory.
static int prepare(struct sl_stream *stream, const struct sl_frame *frame, int width, int height, struct resize *r)
{
    int64_t across = align_64(cpu_resample_bytes(frame->width, width));
    int64_t down = align_64(cpu_resample_bytes(frame->height, height));
    char *tables = cpu_scratch(stream, CPU_SLOT_A, across + down + cpu_colour_table_bytes(frame));
    if (tables == NULL) {
        return 0;
    }
    cpu_resample_init(&r->across, frame->width, width, tables);
    cpu_resample_init(&r->down, frame->height, height, tables + across);
    cpu_colour_init(&r->colour, frame, tables + across + down);

    r->turned = sl_frame_lies_on_its_side(frame);
    int widest = frame->width > width ? frame->width : width;
    r->row_bytes = align_64(4 * (int64_t)widest);
    int64_t colour = cpu_colour_scratch_bytes(frame), resample = cpu_resample_scratch_bytes(&r->across);
    r->scratch_bytes = 2 * r->row_bytes + align_64(colour > resample ? colour : resample);
    r->threads = cpu_threads(stream, (int64_t)frame->width * frame->height);
    r->pitch = align_64(4 * (int64_t)(r->turned ? frame->width : width));
    r->scratch = cpu_scratch(stream, CPU_SLOT_B, r->scratch_bytes * r->threads);
    r->middle = cpu_scratch(stream, CPU_SLOT_C, r->pitch * frame->height);
    return r->scratch != NULL && r->middle != NULL;
}

struct placement {
    uint8_t *origin;
    int64_t along, below;
};

static struct placement place(const struct sl_frame *frame, const struct sl_tensor *out)
{
    struct sl_placement p = sl_frame_place(frame, out->shape[1], out->shape[0], out->stride[0], out->stride[1]);
    return (struct placement){.origin = (uint8_t *)out->data + p.origin, .along = p.along, .below = p.below};
}

static void write_row(const struct placement *p, int y, int width, const uint8_t *rgbx)
{
    uint8_t *to = p->origin + y * p->below;
    for (int x = 0; x < width; x++, to += p->along, rgbx += 4) {
        to[0] = rgbx[0];
        to[1] = rgbx[1];
        to[2] = rgbx[2];
    }
}

struct passes {
    const struct resize *resize;
    const struct placement *placement;
};

// The rows of one of `threads` parts, each part with its own scratch.
static void first_pass(void *passes, int64_t part, int worker)
{
    (void)worker;
    const struct resize *r = ((const struct passes *)passes)->resize;
    uint8_t *row = (uint8_t *)r->scratch + r->scratch_bytes * part;
    void *scratch = row + 2 * r->row_bytes;
    int64_t rows = r->down.in, end = rows * (part + 1) / r->threads;
    for (int64_t y = rows * part / r->threads; y < end; y++) {
        uint8_t *middle = r->middle + y * r->pitch;
        cpu_colour_row(&r->colour, (int)y, scratch, r->turned ? middle : row);
        if (!r->turned) {
            cpu_resample_row(&r->across, row, scratch, middle);
        }
    }
}

static void second_pass(void *passes, int64_t part, int worker)
{
    (void)worker;
    const struct resize *r = ((const struct passes *)passes)->resize;
    const struct placement *p = ((const struct passes *)passes)->placement;
    uint8_t *row = (uint8_t *)r->scratch + r->scratch_bytes * part, *across = row + r->row_bytes;
    void *scratch = row + 2 * r->row_bytes;
    int64_t rows = r->down.out, end = rows * (part + 1) / r->threads;
    for (int64_t y = rows * part / r->threads; y < end; y++) {
        cpu_resample_column(&r->down, (int)y, r->middle, r->pitch,
                            4 * (int64_t)(r->turned ? r->across.in : r->across.out), row);
        if (r->turned) {
            cpu_resample_row(&r->across, row, scratch, across);
        }
        write_row(p, (int)y, r->across.out, r->turned ? across : row);
    }
}

static void resize(struct sl_stream *stream, const struct resize *r, const struct placement *p)
{
    struct passes passes = {.resize = r, .placement = p};
    cpu_loop(stream, r->threads, r->threads, first_pass, &passes);
    cpu_loop(stream, r->threads, r->threads, second_pass, &passes);
}

void cpu_image_resize(struct sl_stream *stream, struct sl_frame *frame, const struct sl_tensor *out)
{
    if (!cpu_begin(stream)) {
        return;
    }
    int turned = sl_frame_lies_on_its_side(frame);
    struct resize r;
    if (frame->memory != SL_MEMORY_HOST) {
        cpu_fail(stream, SL_ERR_INTERNAL, "resize on the CPU: the frame is not in host memory");
    } else if (prepare(stream, frame, (int)out->shape[turned ? 0 : 1], (int)out->shape[turned ? 1 : 0], &r)) {
        struct placement p = place(frame, out);
        resize(stream, &r, &p);
    }
    cpu_end(stream);
}

// --- patches ---

struct patchify {
    const struct sl_tensor *rgb, *out;
    int n, patch, merge;
    float value[3][256]; // normalised value of every sample
    uint16_t half[3][256];
};

static void patch_row(const struct patchify *p, int64_t row, int64_t y0, int64_t x0)
{
    int64_t at = row * p->out->stride[0];
    float *full = p->out->data;
    uint16_t *half = p->out->data;
    for (int channel = 0; channel < 3; channel++) {
        for (int line = 0; line < p->n * p->patch; line++) {
            const struct sl_tensor *rgb = &p->rgb[line / p->patch];
            int64_t y = y0 + line % p->patch;
            const uint8_t *pixel = (const uint8_t *)rgb->data + y * rgb->stride[0] + x0 * rgb->stride[1] + channel;
            if (p->out->dtype == SL_BF16) {
                for (int x = 0; x < p->patch; x++, pixel += rgb->stride[1]) {
                    half[at++] = p->half[channel][*pixel];
                }
            } else {
                for (int x = 0; x < p->patch; x++, pixel += rgb->stride[1]) {
                    full[at++] = p->value[channel][*pixel];
                }
            }
        }
    }
}

// Rows: blocks of merge x merge patches in raster order, inside a block raster order again. A task is one such block.
static void patch_block(void *pointer, int64_t block, int worker)
{
    (void)worker;
    const struct patchify *p = pointer;
    int64_t columns = p->rgb[0].shape[1] / p->patch, merge = p->merge;
    for (int64_t inside = 0; inside < merge * merge; inside++) {
        int64_t y = block / (columns / merge) * merge + inside / merge;
        int64_t x = block % (columns / merge) * merge + inside % merge;
        patch_row(p, block * merge * merge + inside, y * p->patch, x * p->patch);
    }
}

void cpu_patchify(struct sl_stream *stream, const struct sl_tensor *rgb, int n, int patch, int merge,
                  const float mean[3], const float std[3], const struct sl_tensor *out)
{
    if (!cpu_begin(stream)) {
        return;
    }
    struct patchify p = {.rgb = rgb, .out = out, .n = n, .patch = patch, .merge = merge};
    for (int channel = 0; channel < 3; channel++) {
        for (int i = 0; i < 256; i++) {
            // Scaling folded into the mean and deviation, as the reference's processor computes it.
            p.value[channel][i] = ((float)i - mean[channel] * 255) / (std[channel] * 255);
            p.half[channel][i] = sl_bf16_from_f32(p.value[channel][i]);
        }
    }
    int64_t blocks = out->shape[0] / (merge * merge);
    cpu_loop(stream, cpu_threads(stream, out->shape[0] * out->shape[1]), blocks, patch_block, &p);
    cpu_end(stream);
}
