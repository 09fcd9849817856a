/* Page faults: memory mapped, every page touched, unmapped; and a copy on write after each fork. */

#include <sys/mman.h>
#include <unistd.h>

#include "suite.h"

enum { PAGE = 4096, PAGES = 1024, SHARED = 128 };

static uint64_t touch(volatile uint64_t *memory, int pages, uint64_t before)
{
    uint64_t right = 0;
    for (int page = 0; page < pages; page++) {
        volatile uint64_t *word = memory + page * (PAGE / sizeof *memory);
        right += *word == before;
        *word = before + 1;
    }
    return right;
}

static uint64_t unit(void)
{
    uint64_t *memory =
        mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        refused("mmap");
    uint64_t right = touch(memory, PAGES, 0);
    pid_t child = fork();
    if (child < 0)
        refused("fork");
    if (child == 0)
        _exit(touch(memory, SHARED, 1) == SHARED ? 0 : 1);
    right += exit_status(child) == 0;
    right += touch(memory, PAGES, 1);
    if (munmap(memory, (size_t)PAGES * PAGE))
        refused("munmap");
    return right;
}

const struct program page_faults = {"page-faults", NULL, unit, 2 * PAGES + 1};
