// SPDX-License-Identifier: Apache-2.0
// Ctrl-C and SIGTERM: the first asks for a clean stop, the second aborts at once (exit code 130).
//
// A signal handler can only reach a global: the flags of the program live in signals.c.
#ifndef SL_SRC_SIGNALS_H
#define SL_SRC_SIGNALS_H

void sl_signals_install(void);
int sl_signals_interrupted(void); // any thread

// SIGHUP: asks for the settings to be read again.
void sl_signals_install_hangup(void);
int sl_signals_hung_up(void); // 1 once after each; one thread

#endif
