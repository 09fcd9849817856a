/* Integer loops: how many steps numbers take to 1 when they are halved, or tripled and increased. */

#include "suite.h"

static uint64_t unit(void)
{
    uint64_t sum = DIGEST_START, last = hidden(20000);
    for (uint64_t start = 1; start < last; start++) {
        uint64_t steps = 0;
        for (uint64_t number = start; number != 1; steps++)
            number = number % 2 ? 3 * number + 1 : number / 2;
        sum = digest(sum, steps);
    }
    return sum;
}

const struct program collatz = {"collatz", NULL, unit, 0x46544de1ea0ee4df};
