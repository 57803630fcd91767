#include "common/clock.h"
#include "common/ids.h"
#include "common/jwt.h"
#include "ctl/ctl.h"
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TTL_DEFAULT_S = 6 * 3600, TTL_MAX_S = 10 * 366 * 86400 };

struct token_request {
    const char *key, *secret, *room, *identity, *name, *metadata;
    int64_t ttl_s;
    int invite;
    int admin, hidden, sfu;
    int publish, subscribe, data; /* enum jwt_tristate */
};

/* "90s", "30m", "6h", "7d", or seconds; 0 if it is none of these. */
static int64_t parse_ttl(const char *text)
{
    static const struct {
        const char *unit;
        int64_t seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || value <= 0 || value > TTL_MAX_S)
        return 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) == 0)
            return value <= TTL_MAX_S / units[i].seconds ? value * units[i].seconds : 0;
    }
    return 0;
}

static void set_tristate(json_t *object, const char *name, int value)
{
    if (value != GRANT_ABSENT)
        json_object_set_new(object, name, json_boolean(value == GRANT_YES));
}

static void set_flag(json_t *object, const char *name, int value)
{
    if (value != 0)
        json_object_set_new(object, name, json_true());
}

static void set_text(json_t *object, const char *name, const char *text)
{
    if (text != NULL)
        json_object_set_new(object, name, json_string(text));
}

static json_t *make_claims(const struct token_request *request)
{
    json_t *claims = json_object(), *video = json_object();
    int64_t now_s = clock_wall_s();

    set_text(claims, "iss", request->key);
    set_text(claims, "sub", request->identity);
    set_text(claims, "name", request->name);
    set_text(claims, "metadata", request->metadata);
    json_object_set_new(claims, "nbf", json_integer(now_s));
    json_object_set_new(claims, "exp", json_integer(now_s + request->ttl_s));
    set_text(video, "room", request->room);
    set_flag(video, "roomJoin", 1);
    set_flag(video, "roomAdmin", request->admin);
    set_flag(video, "hidden", request->hidden);
    set_flag(video, "sfu", request->sfu);
    set_flag(video, "agent", request->sfu);
    set_tristate(video, "canPublish", request->publish);
    set_tristate(video, "canSubscribe", request->subscribe);
    set_tristate(video, "canPublishData", request->data);
    json_object_set_new(claims, "video", video);
    return claims;
}

static enum ctl_exit check(const struct ctl_command *command, const struct token_request *request)
{
    if (request->key == NULL || request->key[0] == '\0' || strlen(request->key) > JWT_KEY_ID_MAX)
        return ctl_usage(command, "give an API key of up to %d bytes by --key or $SIGNALBOX_API_KEY", JWT_KEY_ID_MAX);
    if (request->secret == NULL || strlen(request->secret) < JWT_SECRET_MIN)
        return ctl_usage(command, "give the key's secret, at least %d bytes, by --secret or $SIGNALBOX_API_SECRET",
                         JWT_SECRET_MIN);
    if (request->room == NULL || !name_valid(request->room, ROOM_NAME_MAX))
        return ctl_usage(command, "--room takes a name of 1 to %d bytes", ROOM_NAME_MAX);
    if (request->invite && request->identity != NULL)
        return ctl_usage(command, "--invite is a token without --identity");
    if (!request->invite && (request->identity == NULL || !name_valid(request->identity, IDENTITY_MAX)))
        return ctl_usage(command, "--identity takes 1 to %d bytes (or give --invite)", IDENTITY_MAX);
    if ((request->name != NULL && !utf8_valid(request->name, strlen(request->name))) ||
        (request->metadata != NULL && !utf8_valid(request->metadata, strlen(request->metadata))))
        return ctl_usage(command, "--name and --metadata take UTF-8");
    if (request->ttl_s == 0)
        return ctl_usage(command, "--ttl takes a time like 90s, 30m, 6h or 7d");
    return CTL_OK;
}

enum ctl_exit ctl_token(const struct ctl_command *command, int argc, char **argv)
{
    struct token_request request = {
        .key = getenv("SIGNALBOX_API_KEY"), .secret = getenv("SIGNALBOX_API_SECRET"), .ttl_s = TTL_DEFAULT_S};
    const struct option options[] = {
        {"key", required_argument, NULL, 'k'},
        {"secret", required_argument, NULL, 's'},
        {"room", required_argument, NULL, 'r'},
        {"identity", required_argument, NULL, 'i'},
        {"name", required_argument, NULL, 'n'},
        {"metadata", required_argument, NULL, 'm'},
        {"ttl", required_argument, NULL, 't'},
        {"invite", no_argument, &request.invite, 1},
        {"admin", no_argument, &request.admin, 1},
        {"hidden", no_argument, &request.hidden, 1},
        {"sfu", no_argument, &request.sfu, 1},
        {"can-publish", no_argument, &request.publish, GRANT_YES},
        {"no-publish", no_argument, &request.publish, GRANT_NO},
        {"no-subscribe", no_argument, &request.subscribe, GRANT_NO},
        {"no-data", no_argument, &request.data, GRANT_NO},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 0:
            break;
        case 'k':
            request.key = optarg;
            break;
        case 's':
            request.secret = optarg;
            break;
        case 'r':
            request.room = optarg;
            break;
        case 'i':
            request.identity = optarg;
            break;
        case 'n':
            request.name = optarg;
            break;
        case 'm':
            request.metadata = optarg;
            break;
        case 't':
            request.ttl_s = parse_ttl(optarg);
            break;
        case 'h':
            ctl_print_help(command);
            return CTL_OK;
        default:
            return ctl_usage(command, "unknown option");
        }
    }
    if (optind < argc)
        return ctl_usage(command, "'%s' is not an option", argv[optind]);
    enum ctl_exit code = check(command, &request);
    if (code != CTL_OK)
        return code;
    json_t *claims = make_claims(&request);
    char *token = jwt_mint(request.secret, claims);
    puts(token);
    free(token);
    json_decref(claims);
    return CTL_OK;
}
