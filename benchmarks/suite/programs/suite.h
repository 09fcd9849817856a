/* What a program of the suite is: work in equal units, each of which must give a known answer. */

#ifndef SUITE_H
#define SUITE_H

#include <stddef.h>
#include <stdint.h>

struct program {
    const char *name;
    void (*prepare)(void); /* before the clock starts; NULL if there is nothing to prepare */
    uint64_t (*unit)(void);
    uint64_t answer;
};

/* Ends the process with a message about what the system refused. */
_Noreturn void refused(const char *what);

/* Writes or reads exactly that many bytes. */
void write_all(int file, const void *data, size_t size);
void read_all(int file, void *data, size_t size);

/* Waits for a child and gives its exit status. */
int exit_status(int child);

/* A value of which the compiler knows nothing. */
static inline uint64_t hidden(uint64_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

/* Marsaglia's xorshift64. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* One step of FNV-1a, eight bytes at a time. */
static inline uint64_t digest(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x100000001b3;
}

#define DIGEST_START 0xcbf29ce484222325

#endif
