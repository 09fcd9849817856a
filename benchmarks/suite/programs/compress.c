/* Compression-like bit work: 64 KiB of words as literals and matches in Elias' gamma code, there and back. */

#include <string.h>

#include "suite.h"

enum { SIZE = 65536, HASHES = 4096, LONGEST = 255, NONE = -1 };

static uint8_t text[SIZE], restored[SIZE];
static uint64_t packed[SIZE / 4];
static int newest[HASHES];
static size_t position;

static void put(uint64_t value, int bits)
{
    size_t word = position / 64, offset = position % 64;
    packed[word] |= value << offset;
    if (offset + (size_t)bits > 64)
        packed[word + 1] |= value >> (64 - offset);
    position += (size_t)bits;
}

static uint64_t get(int bits)
{
    size_t word = position / 64, offset = position % 64;
    uint64_t value = packed[word] >> offset;
    if (offset + (size_t)bits > 64)
        value |= packed[word + 1] << (64 - offset);
    position += (size_t)bits;
    return value & ((UINT64_C(1) << bits) - 1);
}

/* As many zeros as the number, at least 1, has binary digits behind the first; a one; those digits. */
static void put_gamma(uint64_t value)
{
    int digits = 0;
    while (value >> (digits + 1))
        digits++;
    put(UINT64_C(1) << digits, digits + 1);
    put(value & ((UINT64_C(1) << digits) - 1), digits);
}

static uint64_t get_gamma(void)
{
    int digits = 0;
    while (!get(1))
        digits++;
    return UINT64_C(1) << digits | get(digits);
}

static unsigned hash(const uint8_t *at)
{
    return ((unsigned)at[0] << 16 | (unsigned)at[1] << 8 | at[2]) * 2654435761u >> 20;
}

static void pack(void)
{
    memset(packed, 0, sizeof packed);
    for (int at = 0; at < HASHES; at++)
        newest[at] = NONE;
    position = 0;
    for (int at = 0; at < SIZE;) {
        int length = 0, distance = 0;
        if (at + 3 <= SIZE) {
            unsigned slot = hash(text + at);
            int before = newest[slot];
            newest[slot] = at;
            if (before != NONE) {
                distance = at - before;
                while (length < LONGEST && at + length < SIZE && text[before + length] == text[at + length])
                    length++;
            }
        }
        if (length >= 4) {
            put(1, 1);
            put_gamma((uint64_t)length);
            put_gamma((uint64_t)distance);
            at += length;
        } else {
            put(0, 1);
            put(text[at], 8);
            at++;
        }
    }
}

static void unpack(void)
{
    position = 0;
    for (size_t at = 0; at < SIZE;) {
        if (get(1)) {
            size_t length = get_gamma(), distance = get_gamma();
            for (; length; length--, at++)
                restored[at] = restored[at - distance];
        } else {
            restored[at++] = (uint8_t)get(8);
        }
    }
}

static void prepare(void)
{
    static const char *const words[] = {
        "hart ", "page ",  "table ", "walk ", "trap ", "fence ", "of ", "the ",
        "load ", "store ", "is ",    "to ",   "and ",  "frame ", "in ", "a ",
    };
    uint64_t state = 1;
    for (size_t at = 0; at < SIZE;) {
        const char *word = words[random_next(&state) % 16];
        for (; *word && at < SIZE; word++)
            text[at++] = (uint8_t)*word;
        if (at < SIZE && state >> 60 == 0)
            text[at++] = (uint8_t)state;
    }
}

static uint64_t unit(void)
{
    pack();
    size_t bits = position;
    unpack();
    return memcmp(text, restored, SIZE) ? 0 : bits;
}

const struct program compress = {"compress", prepare, unit, 0x3f23f};
