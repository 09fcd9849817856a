/* Processes: programs started and waited for, and a number sent to and fro through pipes. */

#include <unistd.h>

#include "suite.h"

enum { STARTS = 10, TRIPS = 500, NOTHING = 42 };

static uint64_t start_programs(void)
{
    uint64_t right = 0;
    for (int at = 0; at < STARTS; at++) {
        pid_t child = fork();
        if (child < 0)
            refused("fork");
        if (child == 0) {
            execl("/proc/self/exe", "suite", "nothing", (char *)NULL);
            _exit(1);
        }
        right += exit_status(child) == NOTHING;
    }
    return right;
}

static int questions[2], answers[2];

/* A child that adds 1 to each number; it ends when nobody can send it one any more. */
static void start_partner(void)
{
    if (pipe(questions) || pipe(answers))
        refused("pipe");
    pid_t child = fork();
    if (child < 0)
        refused("fork");
    if (child)
        return;
    close(questions[1]);
    uint64_t number;
    while (read(questions[0], &number, sizeof number) == sizeof number) {
        number++;
        write_all(answers[1], &number, sizeof number);
    }
    _exit(0);
}

static uint64_t play(void)
{
    uint64_t number = 0;
    for (int at = 0; at < TRIPS; at++) {
        write_all(questions[1], &number, sizeof number);
        read_all(answers[0], &number, sizeof number);
    }
    return number;
}

const struct program fork_exec = {"fork-exec", NULL, start_programs, STARTS};
const struct program pipes = {"pipes", start_partner, play, TRIPS};
