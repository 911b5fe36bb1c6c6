// SPDX-License-Identifier: Apache-2.0
// Which frame pairs of a window the model need not see, because nothing happens in them.
#ifndef SL_SRC_STILL_H
#define SL_SRC_STILL_H

#define SL_STILL_AUTO 2.0f // levels; below, compression and noise are all that differs

// `difference` as of core/device.h's pair_differences at this level. Fills kept[] with the pairs that are shown, in
// order, and returns their number: those that differ, and both ends of every still stretch, since the model knows times
// by what it sees: without the last still pair before a change, or before the window's end, it could not tell how long
// the stillness lasted.
int sl_still_keep(const float *difference, int pairs, float level, int *kept /* [pairs] */);

#endif
