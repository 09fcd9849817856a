/* Context switches: a token around a ring of processes, processes that yield, threads that wake each other. */

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "suite.h"

enum { RING = 4, LAPS = 100, YIELDERS = 2, YIELDS = 400, TURNS = 400 };

static pid_t start(void (*work)(int), int argument)
{
    pid_t child = fork();
    if (child < 0)
        refused("fork");
    if (child == 0) {
        work(argument);
        _exit(0);
    }
    return child;
}

static int ring[RING][2];

static void pass_token(int place)
{
    uint64_t token;
    for (int lap = 0; lap < LAPS; lap++) {
        read_all(ring[place][0], &token, sizeof token);
        token++;
        write_all(ring[(place + 1) % RING][1], &token, sizeof token);
    }
}

static void yield(int times)
{
    for (; times; times--)
        sched_yield();
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turns;

/* Two of these alternate, one with the even turns, one with the odd. */
static void *take_turns(void *parity)
{
    pthread_mutex_lock(&mutex);
    while (turns < TURNS) {
        if (turns % 2 == (int)(intptr_t)parity) {
            turns++;
            pthread_cond_signal(&changed);
        } else {
            pthread_cond_wait(&changed, &mutex);
        }
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void prepare(void)
{
    for (int place = 0; place < RING; place++)
        if (pipe(ring[place]))
            refused("pipe");
}

static uint64_t unit(void)
{
    pid_t children[RING - 1 + YIELDERS];
    int started = 0;
    for (int place = 1; place < RING; place++)
        children[started++] = start(pass_token, place);
    for (int at = 0; at < YIELDERS; at++)
        children[started++] = start(yield, YIELDS);
    turns = 0;
    pthread_t even, odd;
    if (pthread_create(&even, NULL, take_turns, (void *)0) ||
        pthread_create(&odd, NULL, take_turns, (void *)1))
        refused("pthread_create");
    uint64_t token = 0;
    for (int lap = 0; lap < LAPS; lap++) {
        write_all(ring[1][1], &token, sizeof token);
        read_all(ring[0][0], &token, sizeof token);
    }
    pthread_join(even, NULL);
    pthread_join(odd, NULL);
    for (int at = 0; at < started; at++)
        if (exit_status(children[at]))
            return 0;
    return token + (uint64_t)turns;
}

const struct program switches = {"switches", prepare, unit, LAPS * (RING - 1) + TURNS};
