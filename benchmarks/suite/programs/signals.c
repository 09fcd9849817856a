/* Signals to the process itself: sent and handled, and blocked, sent and taken when unblocked. */

#include <signal.h>
#include <unistd.h>

#include "suite.h"

enum { SIGNALS = 2000 };

static volatile sig_atomic_t handled;

static void handle(int number)
{
    (void)number;
    handled++;
}

static void prepare(void)
{
    struct sigaction action = {.sa_handler = handle};
    if (sigaction(SIGUSR1, &action, NULL))
        refused("sigaction");
}

static uint64_t unit(void)
{
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    handled = 0;
    for (int at = 0; at < SIGNALS / 2; at++) {
        kill(getpid(), SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, &before);
        kill(getpid(), SIGUSR1);
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    return (uint64_t)handled;
}

const struct program signals = {"signals", prepare, unit, SIGNALS};
