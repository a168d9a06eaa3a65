/* The messages of LDAP (RFC 4511) that the clients say and hear; people are those of bench/ldap/directory.py. */
#include <stdint.h>
#include <stdio.h>

#include "ber.h"

enum { BIND_REQUEST = 0x60, BIND_RESPONSE = 0x61, UNBIND_REQUEST = 0x42, SEARCH_REQUEST = 0x63, SEARCH_ENTRY = 0x64 };
enum { SEARCH_DONE = 0x65, MODIFY_REQUEST = 0x66, MODIFY_RESPONSE = 0x67, SIMPLE = 0x80, EQUALITY = 0xa3 };
enum { SUBTREE = 2, REPLACE = 2, VERSION = 3 };

enum { NAME = 256 }; /* bytes of one that is built here */

static void write_bind(struct writer *writer, const char *dn, const char *password)
{
    size_t end = writer->at;
    text(writer, SIMPLE, password);
    text(writer, OCTETS, dn);
    number(writer, INTEGER, VERSION);
    wrap(writer, BIND_REQUEST, end);
}

static void write_search(struct writer *writer, const char *base, const char *uid)
{
    size_t end = writer->at;
    wrap(writer, SEQUENCE, writer->at); /* all attributes */
    size_t filter = writer->at;
    text(writer, OCTETS, uid);
    text(writer, OCTETS, "uid");
    wrap(writer, EQUALITY, filter);
    number(writer, BOOLEAN, 0); /* not types only */
    number(writer, INTEGER, 0); /* no limit of time */
    number(writer, INTEGER, 0); /* nor of size */
    number(writer, ENUMERATED, 0); /* aliases stay what they are */
    number(writer, ENUMERATED, SUBTREE);
    text(writer, OCTETS, base);
    wrap(writer, SEARCH_REQUEST, end);
}

static void write_modify(struct writer *writer, const char *dn, long id)
{
    char description[80];
    snprintf(description, sizeof description, "changed by operation %08ld of a load that is made for this", id);
    size_t end = writer->at;
    text(writer, OCTETS, description);
    wrap(writer, SET, end);
    text(writer, OCTETS, "description");
    wrap(writer, SEQUENCE, end);
    number(writer, ENUMERATED, REPLACE);
    wrap(writer, SEQUENCE, end);
    wrap(writer, SEQUENCE, end); /* one change of a list */
    text(writer, OCTETS, dn);
    wrap(writer, MODIFY_REQUEST, end);
}

/* Whether an entry is the person that was asked for, by its name and its mail. */
static int is_person(struct span entry, const char *people, uint32_t number)
{
    char dn[NAME], mail[NAME];
    snprintf(dn, sizeof dn, "uid=user%u,%s", number, people);
    snprintf(mail, sizeof mail, "user%u@example.net", number);
    struct span name, attributes, attribute, type, values, value;
    if (!take(&entry, OCTETS, &name) || !is(name, dn) || !take(&entry, SEQUENCE, &attributes))
        return 0;
    while (take(&attributes, SEQUENCE, &attribute))
        if (take(&attribute, OCTETS, &type) && is(type, "mail"))
            return take(&attribute, SET, &values) && take(&values, OCTETS, &value) && is(value, mail);
    return 0;
}
