// SPDX-License-Identifier: Apache-2.0
// The two picture operations of the device table; contracts in core/device.h and "Pictures" in ARCHITECTURE.md.
#ifndef SL_CPU_IMAGE_H
#define SL_CPU_IMAGE_H

#include "core/device.h"

void cpu_image_resize(struct sl_stream *stream, struct sl_frame *frame, const struct sl_tensor *out);
void cpu_patchify(struct sl_stream *stream, const struct sl_tensor *rgb, int n, int patch, int merge,
                  const float mean[3], const float std[3], const struct sl_tensor *out);

#endif
