// SPDX-License-Identifier: Apache-2.0
// scenelog's version and those of the libraries it runs with.
#ifndef SL_SRC_VERSION_H
#define SL_SRC_VERSION_H

int sl_version_print(void); // to stdout; returns the exit code

#endif
