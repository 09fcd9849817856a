/* String work with the C library: formatting, splitting, searching, comparing, converting back. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { LINES = 200 };

static char text[LINES * 64], words[LINES * 64];

static void write_text(void)
{
    char *end = text;
    uint64_t state = 6;
    for (int line = 0; line < LINES; line++)
        end += sprintf(end, "%s=%d;%08x;%.3s\n", line % 3 ? "address" : "length", line * 37 - 500,
                       (unsigned)random_next(&state), "abcdef" + line % 4);
}

static uint64_t unit(void)
{
    uint64_t sum = DIGEST_START;
    write_text();
    strcpy(words, text);
    int addresses = 0;
    for (const char *at = text; (at = strstr(at, "address=")); at++)
        addresses++;
    char *rest = NULL;
    const char *longest = "";
    for (char *word = strtok_r(words, "=;\n", &rest); word; word = strtok_r(NULL, "=;\n", &rest)) {
        if (strlen(word) > strlen(longest) || strcmp(word, longest) > 0)
            longest = word;
        sum = digest(sum, (uint64_t)strtol(word, NULL, 16));
    }
    for (const char *at = longest; *at; at++)
        sum = digest(sum, (uint64_t)*at);
    return digest(digest(sum, strlen(text)), (uint64_t)addresses);
}

const struct program strings = {"strings", NULL, unit, 0xcee595df20786c1e};
