/* suite NAME UNITS [PROCESSES]: does the work and prints "NAME seconds answer". */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "suite.h"

extern const struct program
    collatz, sieve, sha256, compress, sort, calls, bytecode, chase_l1, chase_32m, copy, divide,
    nbody, matrix_double, matrix_float, strings, syscalls, fork_exec, pipes, page_faults, signals,
    switches, build;

static const struct program *const programs[] = {
    &collatz, &sieve, &sha256, &compress, &sort, &calls, &bytecode, &chase_l1, &chase_32m, &copy,
    &divide, &nbody, &matrix_double, &matrix_float, &strings, &syscalls, &fork_exec, &pipes,
    &page_faults, &signals, &switches, &build,
};

_Noreturn void refused(const char *what)
{
    perror(what);
    exit(1);
}

void write_all(int file, const void *data, size_t size)
{
    if (write(file, data, size) != (ssize_t)size)
        refused("write");
}

void read_all(int file, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(file, (char *)data + done, size - done);
        if (got <= 0)
            refused("read");
        done += (size_t)got;
    }
}

int exit_status(int child)
{
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        refused("a child process");
    return WEXITSTATUS(status);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void work(const struct program *program, long units)
{
    for (long unit = 0; unit < units; unit++) {
        uint64_t answer = program->unit();
        if (answer != program->answer) {
            printf("%s: wrong answer %016" PRIx64 " instead of %016" PRIx64 "\n", program->name, answer,
                   program->answer);
            exit(1);
        }
    }
}

static void work_in_processes(const struct program *program, long units, long processes)
{
    pid_t children[64];
    for (long at = 0; at < processes; at++) {
        children[at] = fork();
        if (children[at] < 0)
            refused("fork");
        if (children[at] == 0) {
            work(program, units);
            exit(0);
        }
    }
    for (long at = 0; at < processes; at++)
        if (exit_status(children[at]))
            exit(1);
}

int main(int count, char **arguments)
{
    /* What fork-exec starts. */
    if (count == 2 && !strcmp(arguments[1], "nothing"))
        return 42;
    long units = count >= 3 ? atol(arguments[2]) : 0, processes = count >= 4 ? atol(arguments[3]) : 1;
    const struct program *program = NULL;
    for (size_t at = 0; count >= 3 && at < sizeof programs / sizeof *programs; at++)
        if (!strcmp(arguments[1], programs[at]->name))
            program = programs[at];
    if (!program || units < 1 || processes < 1 || processes > 64) {
        fprintf(stderr, "usage: suite NAME UNITS [PROCESSES]\n");
        return 2;
    }
    if (program->prepare)
        program->prepare();
    double began = now();
    if (processes == 1)
        work(program, units);
    else
        work_in_processes(program, units, processes);
    printf("%s %.6f %016" PRIx64 "\n", program->name, now() - began, program->answer);
    return 0;
}
