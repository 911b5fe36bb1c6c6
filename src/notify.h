// SPDX-License-Identifier: Apache-2.0
// Words to the service manager, systemd's protocol: READY=1, STATUS=..., WATCHDOG=1, RELOADING=1, STOPPING=1.
#ifndef SL_SRC_NOTIFY_H
#define SL_SRC_NOTIFY_H

// Does nothing where $NOTIFY_SOCKET is not set. A manager that does not listen is no error. Any thread.
void sl_notify(const char *state);

#endif
