/* As much of the Basic Encoding Rules (X.690) as LDAP needs: definite lengths, primitive strings, small integers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCE = 0x30, SET = 0x31, BOOLEAN = 0x01, INTEGER = 0x02, OCTETS = 0x04, ENUMERATED = 0x0a };
enum { LONGEST = 512, LONGEST_READ = 16384 }; /* bytes of a message that is written, and of one that is read */

/* what is written: a message grows from its end towards its beginning, so that lengths are known */

struct writer {
    unsigned char bytes[LONGEST];
    size_t at;
};

static void put(struct writer *writer, const void *bytes, size_t length)
{
    if (length > writer->at)
        abort(); /* LONGEST is too little */
    writer->at -= length;
    memcpy(writer->bytes + writer->at, bytes, length);
}

/* The header of all that has been written since the place was `end`. */
static void wrap(struct writer *writer, unsigned char tag, size_t end)
{
    size_t length = end - writer->at;
    unsigned char head[] = {tag, 0x82, length >> 8, length};
    if (length < 128)
        put(writer, (unsigned char[]){tag, length}, 2);
    else
        put(writer, head, sizeof head);
}

static void text(struct writer *writer, unsigned char tag, const char *words)
{
    size_t end = writer->at;
    put(writer, words, strlen(words));
    wrap(writer, tag, end);
}

/* An integer or the like, that is not negative. */
static void number(struct writer *writer, unsigned char tag, uint32_t value)
{
    size_t end = writer->at;
    do {
        put(writer, (unsigned char[]){value}, 1);
        value >>= 8;
    } while (value || writer->bytes[writer->at] & 0x80); /* its highest bit would be a sign */
    wrap(writer, tag, end);
}

/* what is read: a span of bytes, from which elements are taken */

struct span {
    const unsigned char *at, *end;
};

/* The next element, its tag, and what is in it. 1, or 0 where it is not complete, or -1 where its length is none. */
static int element(struct span *from, int *tag, struct span *in)
{
    size_t there = from->end - from->at, head = 2;
    if (there < head)
        return 0;
    size_t length = from->at[1];
    if (length & 0x80) {
        size_t octets = length & 0x7f;
        if (octets < 1 || octets > 4)
            return -1;
        if (there < (head += octets))
            return 0;
        length = 0;
        for (size_t index = 0; index < octets; index++)
            length = length << 8 | from->at[2 + index];
    }
    if (there - head < length)
        return head + length > LONGEST_READ ? -1 : 0;
    *tag = from->at[0];
    *in = (struct span){from->at + head, from->at + head + length};
    from->at = in->end;
    return 1;
}

/* The same, where it must be there with this tag. */
static int take(struct span *from, int tag, struct span *in)
{
    int found;
    return element(from, &found, in) == 1 && found == tag;
}

static long number_in(struct span in)
{
    long value = 0;
    while (in.at < in.end)
        value = value << 8 | *in.at++;
    return value;
}

static int is(struct span in, const char *words)
{
    return (size_t)(in.end - in.at) == strlen(words) && !memcmp(in.at, words, strlen(words));
}
