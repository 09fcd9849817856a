/* Integer loops over bytes: primes below a million by the sieve of Eratosthenes. */

#include <string.h>

#include "suite.h"

enum { LIMIT = 1000000 };

static char composite[LIMIT];

static uint64_t unit(void)
{
    uint64_t primes = 0;
    memset(composite, 0, sizeof composite);
    for (size_t number = 2; number < LIMIT; number++) {
        if (composite[number])
            continue;
        primes++;
        for (size_t multiple = number * number; multiple < LIMIT; multiple += number)
            composite[multiple] = 1;
    }
    return primes;
}

const struct program sieve = {"sieve", NULL, unit, 78498};
