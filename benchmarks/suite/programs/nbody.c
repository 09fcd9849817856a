/* Double precision: the sun and four planets under gravity; the answer is their energy. */

#include <math.h>

#include "suite.h"

enum { BODIES = 5, STEPS = 5000 };

struct body {
    double place[3], speed[3], mass;
};

/* Units in which the sun's mass is 1 and the planets' circular orbits need no conversion. */
static const struct {
    double radius, tilt, mass;
} planets[BODIES - 1] = {{1.0, 0.02, 3e-3}, {1.9, -0.05, 8e-4}, {3.1, 0.01, 2e-3}, {4.7, 0.08, 5e-4}};

static struct body bodies[BODIES];

static void start(void)
{
    bodies[0] = (struct body){.mass = 1.0};
    for (int at = 1; at < BODIES; at++) {
        double radius = planets[at - 1].radius, speed = sqrt(1.0 / radius);
        bodies[at] = (struct body){
            {radius, 0.0, radius * planets[at - 1].tilt}, {0.0, speed, 0.0}, planets[at - 1].mass};
        bodies[0].speed[1] -= speed * planets[at - 1].mass;
    }
}

static void advance(double step)
{
    for (int at = 0; at < BODIES; at++) {
        struct body *one = bodies + at;
        for (int after = at + 1; after < BODIES; after++) {
            struct body *other = bodies + after;
            double apart[3], square = 0.0;
            for (int axis = 0; axis < 3; axis++) {
                apart[axis] = one->place[axis] - other->place[axis];
                square += apart[axis] * apart[axis];
            }
            double pull = step / (square * sqrt(square));
            for (int axis = 0; axis < 3; axis++) {
                one->speed[axis] -= apart[axis] * other->mass * pull;
                other->speed[axis] += apart[axis] * one->mass * pull;
            }
        }
    }
    for (int at = 0; at < BODIES; at++)
        for (int axis = 0; axis < 3; axis++)
            bodies[at].place[axis] += step * bodies[at].speed[axis];
}

static double energy(void)
{
    double sum = 0.0;
    for (int at = 0; at < BODIES; at++) {
        for (int axis = 0; axis < 3; axis++)
            sum += 0.5 * bodies[at].mass * bodies[at].speed[axis] * bodies[at].speed[axis];
        for (int after = at + 1; after < BODIES; after++) {
            double square = 0.0;
            for (int axis = 0; axis < 3; axis++) {
                double apart = bodies[at].place[axis] - bodies[after].place[axis];
                square += apart * apart;
            }
            sum -= bodies[at].mass * bodies[after].mass / sqrt(square);
        }
    }
    return sum;
}

static uint64_t unit(void)
{
    start();
    for (int step = 0; step < STEPS; step++)
        advance(0.001);
    /* Rounded, because with fused multiplication and addition the last digits differ. */
    return (uint64_t)llround(energy() * -1e12);
}

const struct program nbody = {"nbody", NULL, unit, 0x7c02c774};
