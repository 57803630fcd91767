#include "gateway/forwarded.h"

#include <string.h>
#include <strings.h>

enum { PORT_DIGITS_MAX = 5 };

const char *forwarded_header_name(enum forwarded_form form)
{
    return form == FORWARDED_RFC7239 ? "forwarded" : "x-forwarded-for";
}

static struct ws_slice trim(struct ws_slice text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

/* Cuts the text up to the next `end` that is outside of quotes off `*text`; the whole rest if there is none. False if a
 * quotation does not end. */
static bool take_until(struct ws_slice *text, char end, struct ws_slice *ret_piece)
{
    bool quoted = false;
    size_t i = 0;

    for (; i < text->size && (quoted || text->data[i] != end); i++) {
        if (text->data[i] == '"')
            quoted = !quoted;
        else if (quoted && text->data[i] == '\\')
            i++;
    }
    if (quoted || i > text->size)
        return false;
    *ret_piece = trim((struct ws_slice){text->data, i});
    size_t taken = i < text->size ? i + 1 : i;
    *text = (struct ws_slice){text->data + taken, text->size - taken};
    return true;
}

static bool is_port(const char *text, size_t size)
{
    if (size == 0 || size > PORT_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

/* An address with or without a port: a.b.c.d, a.b.c.d:port, [v6], [v6]:port, and bare v6, as X-Forwarded-For has it. */
static bool parse_node(struct ws_slice node, struct net_address *ret_address)
{
    if (node.size > 0 && node.data[0] == '[') {
        const char *close = memchr(node.data, ']', node.size);
        if (close == NULL)
            return false;
        size_t inside = (size_t)(close - node.data) - 1, behind = node.size - inside - 2;
        if (behind > 0 && (close[1] != ':' || !is_port(close + 2, behind - 1)))
            return false;
        return memchr(node.data + 1, ':', inside) != NULL && net_address_parse(node.data + 1, inside, ret_address);
    }
    const char *colon = node.size > 0 ? memchr(node.data, ':', node.size) : NULL;
    size_t address_size = node.size;
    if (colon != NULL && memchr(colon + 1, ':', (size_t)(node.data + node.size - colon - 1)) == NULL) {
        address_size = (size_t)(colon - node.data);
        if (!is_port(colon + 1, node.size - address_size - 1))
            return false;
    }
    return net_address_parse(node.data, address_size, ret_address);
}

/* The `for` parameter of a forwarded-element. */
static bool parse_element(struct ws_slice element, struct net_address *ret_address)
{
    struct ws_slice pair;

    while (element.size > 0 && take_until(&element, ';', &pair)) {
        if (pair.size < 4 || strncasecmp(pair.data, "for=", 4) != 0)
            continue;
        struct ws_slice node = {pair.data + 4, pair.size - 4};
        if (node.size >= 2 && node.data[0] == '"' && node.data[node.size - 1] == '"')
            node = (struct ws_slice){node.data + 1, node.size - 2};
        return parse_node(node, ret_address);
    }
    return false;
}

struct hops {
    struct ws_slice elements[FORWARDED_HOPS_MAX];
    size_t count; /* of all, the last FORWARDED_HOPS_MAX of which are kept */
};

/* False if a value cannot be taken apart, which makes all elements before its end unknown. */
static bool collect(struct hops *hops, struct ws_slice value, enum forwarded_form form)
{
    while (value.size > 0) {
        struct ws_slice element;
        if (form == FORWARDED_RFC7239) {
            if (!take_until(&value, ',', &element))
                return false;
        } else {
            const char *comma = memchr(value.data, ',', value.size);
            size_t size = comma ? (size_t)(comma - value.data) : value.size;
            element = trim((struct ws_slice){value.data, size});
            size_t taken = comma ? size + 1 : size;
            value = (struct ws_slice){value.data + taken, value.size - taken};
        }
        if (element.size > 0)
            hops->elements[hops->count++ % FORWARDED_HOPS_MAX] = element;
    }
    return true;
}

struct net_address forwarded_client(const struct net_address *peer, const struct net_blocks *trusted,
                                    enum forwarded_form form, const struct ws_slice *values, size_t value_count)
{
    struct net_address client = *peer;
    struct hops hops = {.count = 0};

    for (size_t i = 0; i < value_count; i++)
        if (!collect(&hops, values[i], form))
            hops.count = 0;
    if (value_count > 0 && hops.count == 0)
        return client;

    size_t kept = hops.count < FORWARDED_HOPS_MAX ? hops.count : FORWARDED_HOPS_MAX;
    for (size_t i = 0; i < kept && net_blocks_contain(trusted, &client); i++) {
        struct ws_slice element = hops.elements[(hops.count - 1 - i) % FORWARDED_HOPS_MAX];
        struct net_address next;
        if (!(form == FORWARDED_RFC7239 ? parse_element(element, &next) : parse_node(element, &next)))
            break;
        client = next;
    }
    return client;
}
