/* Products of matrices in double and in single precision, with small whole numbers, so that they are exact. */

#include "suite.h"

enum { SIDE = 96 };

#define MATRIX(type)                                                                                       \
    static type type##_left[SIDE][SIDE], type##_right[SIDE][SIDE], type##_product[SIDE][SIDE];             \
                                                                                                           \
    static void prepare_##type(void)                                                                       \
    {                                                                                                      \
        for (int row = 0; row < SIDE; row++)                                                               \
            for (int column = 0; column < SIDE; column++) {                                                \
                type##_left[row][column] = (type)((row * 7 + column * 3) % 17 - 8);                        \
                type##_right[row][column] = (type)((row * 5 + column * 11) % 13 - 6);                      \
            }                                                                                              \
    }                                                                                                      \
                                                                                                           \
    static uint64_t unit_##type(void)                                                                      \
    {                                                                                                      \
        for (int row = 0; row < SIDE; row++)                                                               \
            for (int column = 0; column < SIDE; column++) {                                                \
                type sum = 0;                                                                              \
                for (int at = 0; at < SIDE; at++)                                                          \
                    sum += type##_left[row][at] * type##_right[at][column];                                \
                type##_product[row][column] = sum;                                                         \
            }                                                                                              \
        uint64_t answer = DIGEST_START;                                                                    \
        for (int row = 0; row < SIDE; row++)                                                               \
            for (int column = 0; column < SIDE; column++)                                                  \
                answer = digest(answer, (uint64_t)(int64_t)type##_product[row][column]);                   \
        return answer;                                                                                     \
    }

MATRIX(double)
MATRIX(float)

const struct program matrix_double = {"matrix-double", prepare_double, unit_double, 0x9ab95f78521cb384};
const struct program matrix_float = {"matrix-float", prepare_float, unit_float, 0x9ab95f78521cb384};
