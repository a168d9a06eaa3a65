/* A histogram of microseconds.
 *
 * Log-linear buckets as HdrHistogram has them: exact below 2 * HALF, then HALF buckets for each power of two, so that
 * three digits of a value are kept whatever its size. An hour of load takes no more memory than a second.
 */
#include <stdint.h>
#include <stdio.h>

enum { HALF_BITS = 10, HALF = 1 << HALF_BITS, DOUBLINGS = 22, BUCKETS = (DOUBLINGS + 1) * HALF }; /* up to 71 minutes */
struct histogram {
    uint32_t buckets[BUCKETS];
    int64_t count, max;
};

static void record(struct histogram *histogram, int64_t ns)
{
    uint64_t value = ns > 0 ? ns / 1000 : 0;
    int doubling = value < HALF ? 0 : 63 - __builtin_clzll(value) - HALF_BITS;
    uint64_t bucket = doubling * (uint64_t)HALF + (value >> doubling);
    histogram->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->count++;
    if ((int64_t)value > histogram->max)
        histogram->max = value;
}

/* The middle of a bucket, in microseconds. */
static int64_t value_of(int bucket)
{
    int doubling = bucket < 2 * HALF ? 0 : bucket / HALF - 1;
    int64_t low = (int64_t)(bucket - doubling * HALF) << doubling;
    return low + ((1LL << doubling) >> 1);
}

static int64_t median(const struct histogram *histogram)
{
    int64_t seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        if ((seen += histogram->buckets[bucket]) > histogram->count / 2)
            return value_of(bucket) < histogram->max ? value_of(bucket) : histogram->max;
    return 0;
}

/* As a member of a JSON object, with how many operations failed beside those that were timed. */
static void print_histogram(const char *name, const struct histogram *histogram, int64_t failed)
{
    printf("\"%s\": {\"count\": %lld, \"failed\": %lld, \"max\": %lld, \"buckets\": [", name,
        (long long)histogram->count, (long long)failed, (long long)histogram->max);
    const char *comma = "";
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        if (histogram->buckets[bucket]) {
            printf("%s[%lld, %u]", comma, (long long)value_of(bucket), histogram->buckets[bucket]);
            comma = ", ";
        }
    printf("]}");
}
