// SPDX-License-Identifier: Apache-2.0
// The device operations on a CPU: oneDNN for matrix products where it was built in, plain C with kernels chosen at
// run time otherwise. Every operation has happened when its call returns. Streams of one device may be used by
// several threads; operations then take turns, each with all `threads`.
#ifndef SL_CPU_CPU_H
#define SL_CPU_CPU_H

#include "core/device.h"

// threads: 0 means one for each core this process may use. Free with device->ops->destroy(device).
int sl_cpu_create(int threads, struct sl_device **out, struct sl_error *error);

#endif
