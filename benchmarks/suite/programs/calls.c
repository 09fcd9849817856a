/* Recursion and calls: Fibonacci's numbers, Ackermann's function, Takeuchi's function. */

#include "suite.h"

static uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t ackermann(uint64_t m, uint64_t n)
{
    if (!m)
        return n + 1;
    return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

static int64_t takeuchi(int64_t x, int64_t y, int64_t z)
{
    if (y >= x)
        return z;
    return takeuchi(takeuchi(x - 1, y, z), takeuchi(y - 1, z, x), takeuchi(z - 1, x, y));
}

static uint64_t unit(void)
{
    uint64_t sum = DIGEST_START;
    sum = digest(sum, fibonacci(hidden(22)));
    sum = digest(sum, ackermann(2, hidden(60)));
    return digest(sum, (uint64_t)takeuchi((int64_t)hidden(13), 8, 3));
}

const struct program calls = {"calls", NULL, unit, 0x4902dc609de0a8b5};
