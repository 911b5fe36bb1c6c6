// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies of the decoder: interleaved MRoPE, with YaRN where the config says so. Plain arithmetic.
#ifndef SL_LM_ROPE_H
#define SL_LM_ROPE_H

#include "core/config.h"

// Fills inv_freq [head_dim / 2] and axis [head_dim / 2] (0 T, 1 H, 2 W); returns the factor of cos and sin.
// Computed in float, as the reference does: the last bits of a frequency matter at position 100,000.
float sl_rope_fill(const struct sl_text_config *config, float *inv_freq, int32_t *axis);

#endif
