/* Sorting: 20,000 numbers by quicksort, and again by heapsort. */

#include <string.h>

#include "suite.h"

enum { COUNT = 20000, FEW = 12 };

static uint64_t shuffled[COUNT], numbers[COUNT];

static void exchange(uint64_t *one, uint64_t *other)
{
    uint64_t kept = *one;
    *one = *other;
    *other = kept;
}

static void insertion_sort(uint64_t *from, size_t count)
{
    for (size_t at = 1; at < count; at++) {
        uint64_t number = from[at];
        size_t hole = at;
        for (; hole && from[hole - 1] > number; hole--)
            from[hole] = from[hole - 1];
        from[hole] = number;
    }
}

static void quicksort(uint64_t *from, size_t count)
{
    while (count > FEW) {
        uint64_t pivot = from[count / 2];
        size_t low = 0, high = count - 1;
        for (;; low++, high--) {
            while (from[low] < pivot)
                low++;
            while (from[high] > pivot)
                high--;
            if (low >= high)
                break;
            exchange(from + low, from + high);
        }
        quicksort(from, low);
        from += low;
        count -= low;
    }
    insertion_sort(from, count);
}

static void sift_down(size_t root, size_t count)
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && numbers[child] < numbers[child + 1])
            child++;
        if (numbers[root] >= numbers[child])
            return;
        exchange(numbers + root, numbers + child);
    }
}

static void heapsort(void)
{
    for (size_t root = COUNT / 2; root-- > 0;)
        sift_down(root, COUNT);
    for (size_t end = COUNT; end-- > 1;) {
        exchange(numbers, numbers + end);
        sift_down(0, end);
    }
}

/* 0 unless they are in order. */
static uint64_t digest_of_sorted(void)
{
    uint64_t sum = DIGEST_START;
    for (size_t at = 0; at < COUNT; at++) {
        if (at && numbers[at - 1] > numbers[at])
            return 0;
        sum = digest(sum, numbers[at]);
    }
    return sum;
}

static void prepare(void)
{
    uint64_t state = 2;
    for (size_t at = 0; at < COUNT; at++)
        shuffled[at] = random_next(&state);
}

static uint64_t unit(void)
{
    memcpy(numbers, shuffled, sizeof numbers);
    quicksort(numbers, COUNT);
    uint64_t first = digest_of_sorted();
    memcpy(numbers, shuffled, sizeof numbers);
    heapsort();
    return first == digest_of_sorted() ? first : 0;
}

const struct program sort = {"sort", prepare, unit, 0x190c212e1a2f2982};
