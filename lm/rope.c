// SPDX-License-Identifier: Apache-2.0
#include "lm/rope.h"

#include <math.h>

// The pair index at which `turns` full turns fit into the original context.
static double correction(const struct sl_text_config *c, double turns)
{
    return c->head_dim * log((double)c->yarn_original_positions / (turns * 2 * M_PI)) / (2 * log(c->rope_theta));
}

// YaRN (Peng et al. 2023): fast pairs stay, slow pairs are stretched by `factor`, between them a linear ramp.
static void stretch(const struct sl_text_config *c, float *inv_freq)
{
    double low = fmax(floor(correction(c, c->yarn_beta_fast)), 0);
    double high = fmin(ceil(correction(c, c->yarn_beta_slow)), c->head_dim - 1);
    if (low == high) {
        high += 0.001;
    }
    for (int j = 0; j < c->head_dim / 2; j++) {
        float ramp = fminf(fmaxf(((float)j - (float)low) / (float)(high - low), 0), 1);
        inv_freq[j] = inv_freq[j] / (float)c->yarn_factor * ramp + inv_freq[j] * (1 - ramp);
    }
}

float sl_rope_fill(const struct sl_text_config *config, float *inv_freq, int32_t *axis)
{
    for (int j = 0; j < config->head_dim / 2; j++) {
        inv_freq[j] = 1 / powf((float)config->rope_theta, (float)(2 * j) / (float)config->head_dim);
        // Sections of H and W take every third pair, from 1 and 2 on; what is left is T.
        int a = j % 3;
        axis[j] = a && j < 3 * config->mrope_section[a] ? a : 0;
    }
    if (!config->yarn) {
        return 1;
    }
    stretch(config, inv_freq);
    return (float)config->yarn_attention_factor;
}
