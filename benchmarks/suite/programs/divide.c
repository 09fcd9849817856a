/* Division: greatest common divisors, decimal digits, and powers by a modulus, of 32 and of 64 bits. */

#include "suite.h"

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint64_t digit_sum(uint64_t number, uint64_t base)
{
    uint64_t sum = 0;
    for (; number; number /= base)
        sum += number % base;
    return sum;
}

static uint32_t power(uint32_t base, uint32_t exponent, uint32_t modulus)
{
    uint64_t result = 1, square = base;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1)
            result = result * square % modulus;
        square = square * square % modulus;
    }
    return (uint32_t)result;
}

static uint64_t unit(void)
{
    uint64_t sum = DIGEST_START, state = hidden(5);
    for (int round = 0; round < 1000; round++) {
        uint64_t one = random_next(&state), other = random_next(&state);
        sum = digest(sum, common_divisor(one, other));
        sum = digest(sum, digit_sum(one, 3 + round % 8));
        sum = digest(sum, power((uint32_t)one, (uint32_t)other, (uint32_t)(other >> 32) | 1));
        int32_t dividend = (int32_t)one, divisor = (int32_t)(other >> 48) + 1;
        sum = digest(sum, (uint64_t)(uint32_t)(dividend / divisor + dividend % divisor));
    }
    return sum;
}

const struct program divide = {"divide", NULL, unit, 0xff2abc4de29548dc};
