/* Pointer chasing through rings of nodes in random order: 16 KiB, which a first-level cache holds, and 32 MiB. */

#include <stdlib.h>

#include "suite.h"

enum { LINE = 64, SMALL = (16 << 10) / LINE, LARGE = (32 << 20) / LINE, LAPS = 1000 };

struct node {
    struct node *next;
    uint64_t number;
    char rest[LINE - 16];
};

static struct node *ring;

/* Sattolo's algorithm: a random permutation that is one cycle. */
static void make_ring(size_t count)
{
    uint64_t state = 3;
    size_t *order = malloc(count * sizeof *order);
    ring = aligned_alloc(LINE, count * sizeof *ring);
    if (!order || !ring)
        refused("malloc");
    for (size_t at = 0; at < count; at++)
        order[at] = at;
    for (size_t at = count - 1; at > 0; at--) {
        size_t other = random_next(&state) % at, kept = order[at];
        order[at] = order[other];
        order[other] = kept;
    }
    for (size_t at = 0; at < count; at++) {
        ring[at].next = ring + order[at];
        ring[at].number = at;
    }
    free(order);
}

/* The sum of all numbers on the way. */
static uint64_t walk(size_t hops)
{
    uint64_t sum = 0;
    const struct node *node = ring;
    for (; hops; hops--) {
        sum += node->number;
        node = node->next;
    }
    return node == ring ? sum : 0;
}

static void prepare_small(void)
{
    make_ring(SMALL);
}

static void prepare_large(void)
{
    make_ring(LARGE);
}

static uint64_t unit_small(void)
{
    return walk((size_t)LAPS * SMALL);
}

static uint64_t unit_large(void)
{
    return walk(LARGE);
}

const struct program chase_l1 = {"chase-l1", prepare_small, unit_small,
                                 (uint64_t)LAPS * SMALL * (SMALL - 1) / 2};
const struct program chase_32m = {"chase-32m", prepare_large, unit_large, (uint64_t)LARGE * (LARGE - 1) / 2};
