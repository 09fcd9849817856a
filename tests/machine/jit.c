/* A program that makes code while it runs: functions in a ring of buffers, made, run and changed over and over,
   each checked against what it must compute. Prints "jit ok" and the number of calls. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { BUFFERS = 24, WORDS = 64, SIZE = 4096 };

static uint32_t addi(int rd, int rs1, int imm) { return (uint32_t)imm << 20 | rs1 << 15 | rd << 7 | 0x13; }
static uint32_t xori(int rd, int rs1, int imm) { return addi(rd, rs1, imm) | 4 << 12; }
static uint32_t slli(int rd, int rs1, int by) { return addi(rd, rs1, by) | 1 << 12; }
static uint32_t add(int rd, int rs1, int rs2) { return rs2 << 20 | rs1 << 15 | rd << 7 | 0x33; }
static uint32_t bne_back(int rs1, int rs2, int words)
{
    uint32_t d = -4 * words;
    return (d >> 12 & 1) << 31 | (d >> 5 & 63) << 25 | rs2 << 20 | rs1 << 15 | (d >> 1 & 15) << 8 | (d >> 11 & 1) << 7 | 1 << 12 | 0x63;
}
#define RET 0x8067u
#define A0 10
#define A1 11
#define T0 5

struct op { int kind, imm; };

static uint64_t state = 88172645463325252u;
static uint32_t roll(uint32_t n)
{
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state % n;
}

static struct op pick(void)
{
    struct op o = { roll(4), roll(2000) };
    if (o.kind == 2) o.imm = 1 + o.imm % 5;
    return o;
}

static uint32_t encode(struct op o)
{
    switch (o.kind) {
    case 0: return addi(A0, A0, o.imm);
    case 1: return xori(A0, A0, o.imm);
    case 2: return slli(T0, A0, o.imm);
    default: return add(A0, A0, T0);
    }
}

static uint64_t model(const struct op *ops, int count, uint64_t a0, uint64_t rounds)
{
    uint64_t t0 = 0;
    do {
        for (int i = 0; i < count; i++) switch (ops[i].kind) {
            case 0: a0 += ops[i].imm; break;
            case 1: a0 ^= ops[i].imm; break;
            case 2: t0 = a0 << ops[i].imm; break;
            default: a0 += t0;
        }
    } while (--rounds);
    return a0;
}

int main(int argc, char **argv)
{
    static struct op ops[BUFFERS][WORDS];
    int counts[BUFFERS], calls = 0, changes = argc > 1 ? atoi(argv[1]) : 3000;
    uint32_t *code = mmap(0, BUFFERS * SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return 2;
    memset(counts, 0, sizeof counts);
    for (int change = 0; change < changes; change++) {
        int b = roll(BUFFERS);
        /* Two functions share a page: the second half belongs to another buffer. */
        uint32_t *at = code + b / 2 * (SIZE / 2) + b % 2 * 256;
        if (!counts[b] || roll(3) == 0) {
            int n = counts[b] = 4 + roll(WORDS - 10);
            uint32_t *w = at;
            *w++ = addi(T0, 0, 0);
            for (int i = 0; i < n; i++) *w++ = encode(ops[b][i] = pick());
            *w++ = addi(A1, A1, -1);
            *w = bne_back(A1, 0, n + 1); w++;
            *w++ = RET;
        } else {
            int i = roll(counts[b]);
            at[1 + i] = encode(ops[b][i] = pick());
        }
        __builtin___clear_cache((char *)at, (char *)(at + WORDS + 4));
        for (int k = 0; k < 3; k++) {
            uint64_t rounds = k == 2 && roll(8) == 0 ? 20000 : 1 + roll(60), a0 = roll(1000000);
            uint64_t got = ((uint64_t (*)(uint64_t, uint64_t))at)(a0, rounds);
            uint64_t wanted = model(ops[b], counts[b], a0, rounds);
            calls++;
            if (got != wanted) {
                printf("jit wrong: change %d buffer %d: %#lx instead of %#lx\n", change, b, (long)got, (long)wanted);
                return 1;
            }
        }
        /* Another buffer, unchanged since. */
        b = roll(BUFFERS);
        if (counts[b]) {
            at = code + b / 2 * (SIZE / 2) + b % 2 * 256;
            if (((uint64_t (*)(uint64_t, uint64_t))at)(7, 5) != model(ops[b], counts[b], 7, 5)) {
                printf("jit wrong: change %d, buffer %d is another\n", change, b);
                return 1;
            }
        }
    }
    printf("jit ok %d\n", calls);
    return 0;
}
