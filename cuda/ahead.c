// SPDX-License-Identifier: Apache-2.0
#include "cuda/ahead.h"

#include "cuda/linear.h"

void cuda_ahead_follow(struct cuda_device *device, struct cuda_ahead *own, struct sl_linear *linear)
{
    if (device->newest != NULL && linear != NULL) {
        device->newest->linear = linear;
        linear->named_by = device->newest;
    }
    device->newest = own;
}

void cuda_ahead_forget(struct cuda_device *device, struct cuda_ahead *own, struct sl_linear *linear)
{
    if (own->linear != NULL) {
        own->linear->named_by = NULL;
    }
    if (linear != NULL && linear->named_by != NULL) {
        linear->named_by->linear = NULL;
    }
    if (device->newest == own) {
        device->newest = NULL;
    }
}
