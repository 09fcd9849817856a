/* Indirect dispatch: an interpreter of bytecode for a stack machine, which counts primes by trial division. */

#include "suite.h"

enum operation { PUSH, LOAD, STORE, ADD, MULTIPLY, LESS, EQUAL, REMAINDER, JUMP, JUMP_IF, HALT };
enum variable { NUMBER, DIVISOR, PRIMES };
enum { LIMIT = 1500 };

/* Odd numbers below the limit are divided by odd numbers up to their root; jumps name what they go to. */
static const int32_t code[] = {
    /*  0 */ PUSH, 1, STORE, PRIMES, PUSH, 3, STORE, NUMBER,
    /*  8 */ LOAD, NUMBER, PUSH, LIMIT, LESS, JUMP_IF, 18, JUMP,
    /* 16 */ 67, HALT, PUSH, 3, STORE, DIVISOR,
    /* 22 */ LOAD, NUMBER, LOAD, DIVISOR, LOAD, DIVISOR, MULTIPLY, LESS, JUMP_IF, 51,
    /* 32 */ LOAD, NUMBER, LOAD, DIVISOR, REMAINDER, PUSH, 0, EQUAL, JUMP_IF, 58,
    /* 42 */ LOAD, DIVISOR, PUSH, 2, ADD, STORE, DIVISOR, JUMP, 22,
    /* 51 */ LOAD, PRIMES, PUSH, 1, ADD, STORE, PRIMES,
    /* 58 */ LOAD, NUMBER, PUSH, 2, ADD, STORE, NUMBER, JUMP, 8,
    /* 67 */ LOAD, PRIMES, HALT,
};

static int64_t interpret(const int32_t *program)
{
    int64_t stack[16], variables[4] = {0}, *top = stack;
    const int32_t *next = program;
    for (;;) {
        switch (*next++) {
        case PUSH: *++top = *next++; break;
        case LOAD: *++top = variables[*next++]; break;
        case STORE: variables[*next++] = *top--; break;
        case ADD: top--; top[0] += top[1]; break;
        case MULTIPLY: top--; top[0] *= top[1]; break;
        case LESS: top--; top[0] = top[0] < top[1]; break;
        case EQUAL: top--; top[0] = top[0] == top[1]; break;
        case REMAINDER: top--; top[0] %= top[1]; break;
        case JUMP: next = program + *next; break;
        case JUMP_IF: next = *top-- ? program + *next : next + 1; break;
        case HALT: return *top;
        default: return -1;
        }
    }
}

static uint64_t unit(void)
{
    return (uint64_t)interpret(code);
}

/* Primes below 1500. */
const struct program bytecode = {"bytecode", NULL, unit, 239};
