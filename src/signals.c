// SPDX-License-Identifier: Apache-2.0
#include "src/signals.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted, hung_up;

static void on_signal(int number)
{
    (void)number;
    if (interrupted) {
        _exit(130);
    }
    interrupted = 1;
}

static void on_hangup(int number)
{
    (void)number;
    hung_up = 1;
}

void sl_signals_install_hangup(void)
{
    struct sigaction action = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGHUP, &action, NULL);
}

int sl_signals_hung_up(void)
{
    int was = hung_up != 0;
    hung_up = 0;
    return was;
}

void sl_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL); // fails for impossible arguments only
    (void)sigaction(SIGTERM, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    (void)sigaction(SIGPIPE, &ignore, NULL); // a closed pipe is seen as a failed write
}

int sl_signals_interrupted(void)
{
    return interrupted != 0;
}
