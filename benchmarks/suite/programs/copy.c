/* memcpy: blocks from 16 bytes to 256 KiB, aligned and not. */

#include <string.h>

#include "suite.h"

enum { LARGEST = 256 << 10, TOTAL = 1 << 20, SLACK = 64 };

static uint8_t from[LARGEST + SLACK], to[LARGEST + SLACK];

static void prepare(void)
{
    uint64_t state = 4;
    for (size_t at = 0; at < sizeof from; at++)
        from[at] = (uint8_t)random_next(&state);
}

static uint64_t unit(void)
{
    uint64_t sum = DIGEST_START;
    for (size_t size = 16; size <= LARGEST; size *= 4) {
        for (size_t copied = 0; copied < TOTAL; copied += size) {
            size_t shift = copied / size % 4 ? 0 : 5;
            memcpy(to + shift, from + copied % 32, size);
            sum = digest(sum, to[shift + size - 1]);
        }
    }
    return sum;
}

const struct program copy = {"copy", prepare, unit, 0xf209c5c1b631def9};
