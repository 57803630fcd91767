#include "gateway/front-private.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/problem.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    UPGRADE_TIMEOUT_MS = 10000,
    DEMO_TOKEN_TTL_S = 12 * 3600,
    DEMO_IDENTITY_DIGITS = 10,
    DEMO_NAME_MAX = 128,
};

struct api_handler {
    h2o_handler_t super;
    struct front *front;
};

/* Outlives the request, and the connection if that goes away first. */
struct upgrade {
    struct conn *conn; /* NULL once it is gone */
    struct jwt_claims *claims;
    enum encoding encoding;
};

static bool iovec_is(h2o_iovec_t iovec, const char *str)
{
    return h2o_memis(iovec.base, iovec.len, str, strlen(str));
}

static struct conn *conn_of(h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

static struct front *front_of(h2o_handler_t *handler, h2o_req_t *req, unsigned route)
{
    struct front *front = ((struct api_handler *)handler)->front;
    metric_add_at(M_HTTP_REQUESTS, route, 1);
    conn_of(req)->requested = true;
    conn_set_timer(conn_of(req), CONN_HTTP_SILENCE_MAX_MS);
    return front;
}

static struct ws_slice slice_of(h2o_iovec_t iovec)
{
    return (struct ws_slice){iovec.base, iovec.len};
}

static void respond(h2o_req_t *req, int status, const char *reason, const char *type, const char *body, size_t size)
{
    req->res.status = status;
    req->res.reason = reason;
    req->res.content_length = size;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, type, strlen(type));
    h2o_send_inline(req, body, size);
}

/* --- The access token that may come with an upgrade */

static bool hex_digit(char c, unsigned *ret_value)
{
    if (c >= '0' && c <= '9')
        *ret_value = (unsigned)(c - '0');
    else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        *ret_value = (unsigned)((c | 0x20) - 'a' + 10);
    else
        return false;
    return true;
}

static struct ws_slice percent_decode(h2o_req_t *req, struct ws_slice text)
{
    char *out = h2o_mem_alloc_pool(&req->pool, text.size + 1);
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned high, low;
        if (text.data[i] == '%' && i + 2 < text.size && hex_digit(text.data[i + 1], &high) &&
            hex_digit(text.data[i + 2], &low)) {
            out[size++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[size++] = text.data[i];
        }
    }
    return (struct ws_slice){out, size};
}

static struct ws_slice query_token(h2o_req_t *req)
{
    static const char name[] = "access_token=";
    const size_t name_size = sizeof(name) - 1;
    if (req->query_at == SIZE_MAX)
        return (struct ws_slice){0};
    const char *at = req->path.base + req->query_at + 1, *end = req->path.base + req->path.len;
    while (at < end) {
        const char *ampersand = memchr(at, '&', (size_t)(end - at));
        const char *stop = ampersand ? ampersand : end;
        if ((size_t)(stop - at) > name_size && memcmp(at, name, name_size) == 0)
            return percent_decode(req, (struct ws_slice){at + name_size, (size_t)(stop - at) - name_size});
        at = stop + 1;
    }
    return (struct ws_slice){0};
}

static struct ws_slice bearer_token(const h2o_req_t *req)
{
    static const char scheme[] = "bearer ";
    const size_t scheme_size = sizeof(scheme) - 1;
    ssize_t at = h2o_find_header(&req->headers, H2O_TOKEN_AUTHORIZATION, -1);
    if (at == -1)
        return (struct ws_slice){0};
    struct ws_slice value = slice_of(req->headers.entries[at].value);
    if (value.size <= scheme_size || strncasecmp(value.data, scheme, scheme_size) != 0)
        return (struct ws_slice){0};
    return (struct ws_slice){value.data + scheme_size, value.size - scheme_size};
}

/* The first of: Authorization, subprotocol, query. */
static struct ws_slice find_token(h2o_req_t *req, const struct ws_handshake *handshake)
{
    struct ws_slice token = bearer_token(req);
    if (token.size == 0)
        token = handshake->token;
    return token.size > 0 ? token : query_token(req);
}

/* --- GET /v1/connect */

static enum ws_handshake_result check_handshake(const struct front *front, h2o_req_t *req,
                                                struct ws_handshake *ret_handshake)
{
    size_t count = req->headers.size;
    struct ws_request_header *headers = h2o_mem_alloc_pool(&req->pool, (count + 1) * sizeof(*headers));

    for (size_t i = 0; i < count; i++) {
        const h2o_header_t *header = &req->headers.entries[i];
        headers[i] = (struct ws_request_header){slice_of(*header->name), slice_of(header->value)};
    }
    /* H2O takes the Upgrade header out of the list. */
    if (req->upgrade.base != NULL)
        headers[count++] = (struct ws_request_header){{"upgrade", 7}, slice_of(req->upgrade)};
    const struct ws_request request = {
        .method = slice_of(req->method), .http_version = req->version, .headers = headers, .header_count = count};
    return ws_handshake_check(&request, front->options.allowed_origins, ret_handshake);
}

/* A connection from a proxy of ours counts against the client behind it. */
static bool enter_forwarded(struct conn *conn, h2o_req_t *req)
{
    size_t count = 0;
    const char *name = forwarded_header_name(conn->front->options.forwarded_form);
    struct sockaddr_storage peername;
    struct net_address address;

    if (!conn->exempt)
        return true;
    if (req->conn->callbacks->get_peername(req->conn, (struct sockaddr *)&peername) == 0 ||
        !net_address_from_sockaddr((struct sockaddr *)&peername, &address))
        return true;
    /* All of them: the last is our own proxy's, whatever number of its own a client has sent before. */
    struct ws_slice *values = h2o_mem_alloc_pool(&req->pool, (req->headers.size + 1) * sizeof(*values));
    for (ssize_t at = -1; (at = h2o_find_header_by_str(&req->headers, name, strlen(name), at)) != -1;)
        values[count++] = slice_of(req->headers.entries[at].value);
    address = forwarded_client(&address, &conn->front->trusted, conn->front->options.forwarded_form, values, count);
    return net_blocks_contain(&conn->front->trusted, &address) || conn_enter(conn, &address);
}

void http_api_abandon(struct upgrade *upgrade)
{
    upgrade->conn = NULL;
}

static void on_upgraded(void *data, h2o_socket_t *sock, size_t request_size)
{
    struct upgrade *upgrade = data;
    struct conn *conn = upgrade->conn;

    if (sock == NULL || conn == NULL) {
        metric_add_at(M_UPGRADES, UPGRADE_LOST, 1);
        if (upgrade->claims != NULL)
            jwt_claims_done(upgrade->claims);
        free(upgrade->claims);
        /* H2O may still be closing the socket. */
        if (conn != NULL)
            conn->phase = CONN_SHUT;
    } else {
        metric_add_at(M_UPGRADES, WS_HANDSHAKE_OK, 1);
        h2o_buffer_consume(&sock->input, request_size);
        conn_open(conn, upgrade->encoding, upgrade->claims);
    }
    free(upgrade);
}

static void start_upgrade(struct conn *conn, h2o_req_t *req, const struct ws_handshake *handshake,
                          struct jwt_claims *take_claims)
{
    const char *protocol = ws_subprotocol_name(handshake->subprotocol);
    char *accept = h2o_strdup(&req->pool, handshake->accept, WS_ACCEPT_SIZE).base;
    struct upgrade *upgrade = mem_new(struct upgrade);

    upgrade->conn = conn;
    upgrade->claims = take_claims;
    upgrade->encoding = handshake->subprotocol == WS_SUBPROTOCOL_JSON ? ENCODING_JSON : ENCODING_PROTOBUF;
    conn->upgrade = upgrade;
    conn->phase = CONN_UPGRADING;
    conn_set_timer(conn, UPGRADE_TIMEOUT_MS);

    req->res.status = 101;
    req->res.reason = "Switching Protocols";
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_UPGRADE, NULL, H2O_STRLIT("websocket"));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("sec-websocket-accept"), 0, NULL, accept,
                          WS_ACCEPT_SIZE);
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("sec-websocket-protocol"), 0, NULL, protocol,
                          strlen(protocol));
    h2o_http1_upgrade(req, NULL, 0, on_upgraded, upgrade);
}

static int on_connect(h2o_handler_t *handler, h2o_req_t *req)
{
    struct front *front = front_of(handler, req, ROUTE_CONNECT);
    struct conn *conn = conn_of(req);
    struct ws_handshake handshake;
    struct refusal refusal;
    struct jwt_claims *claims = NULL;

    enum ws_handshake_result result = check_handshake(front, req, &handshake);
    if (result != WS_HANDSHAKE_OK) {
        metric_add_at(M_UPGRADES, result, 1);
        return problem_handshake(req, ws_handshake_answer(result));
    }
    if (!enter_forwarded(conn, req)) {
        metric_add_at(M_UPGRADES, UPGRADE_ADDRESS_BUSY, 1);
        return problem_send(req, 429, "THROTTLED", "Too many connections from this address.", 1000);
    }
    if (!gateway_ready(front->gateway, &refusal)) {
        metric_add_at(M_UPGRADES, UPGRADE_NOT_READY, 1);
        return problem_refusal(req, &refusal);
    }
    struct ws_slice token = find_token(req, &handshake);
    /* Who shows no access token may be about to resume. */
    if (token.size > 0 && !gateway_admits(front->gateway, &refusal)) {
        metric_add_at(M_UPGRADES, UPGRADE_NOT_READY, 1);
        return problem_refusal(req, &refusal);
    }
    if (token.size > 0) {
        claims = mem_new(struct jwt_claims);
        if (!gateway_check_token(front->gateway, token.data, token.size, NULL, claims, &refusal)) {
            metric_add_at(M_UPGRADES, UPGRADE_TOKEN_REFUSED, 1);
            free(claims);
            return problem_refusal(req, &refusal);
        }
        if (!gateway_has_capacity(front->gateway, claims, claims->video.room, &refusal)) {
            metric_add_at(M_UPGRADES, UPGRADE_NOT_READY, 1);
            jwt_claims_done(claims);
            free(claims);
            return problem_refusal(req, &refusal);
        }
    }
    start_upgrade(conn, req, &handshake, claims);
    return 0;
}

/* --- POST /v1/leave */

static bool require_post(h2o_req_t *req)
{
    if (iovec_is(req->method, "POST"))
        return true;
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("allow"), 0, NULL, H2O_STRLIT("POST"));
    problem_send(req, 405, "INVALID", "Only POST is served here.", 0);
    return false;
}

static int on_leave(h2o_handler_t *handler, h2o_req_t *req)
{
    struct front *front = front_of(handler, req, ROUTE_LEAVE);
    if (!require_post(req))
        return 0;
    if (!gateway_leave_by_token(front->gateway, req->entity.base, req->entity.len, loop_now_ms(front->loop)))
        return problem_send(req, 401, "UNAUTHENTICATED", "The body is not a valid resume token.", 0);
    problem_end_connection(req);
    req->res.status = 204;
    req->res.reason = "No Content";
    h2o_send_inline(req, "", 0);
    return 0;
}

/* --- POST /demo/token */

static const struct front_demo_key *find_demo_key(const struct front *front, const char *key_id)
{
    for (size_t i = 0; i < front->options.demo_key_count; i++)
        if (strcmp(front->options.demo_keys[i].key_id, key_id) == 0)
            return &front->options.demo_keys[i];
    return NULL;
}

struct demo_request {
    const char *invite, *room, *name;
};

/* The strings live as long as the result; NULL if the body is not as it should be. */
static json_t *parse_demo_request(const h2o_req_t *req, struct demo_request *ret_request)
{
    struct demo_request request = {.room = "", .name = ""};
    json_t *body = json_loadb(req->entity.base, req->entity.len, JSON_REJECT_DUPLICATES, NULL);
    if (body != NULL &&
        json_unpack(body, "{s:s, s?s, s?s}", "invite", &request.invite, "room", &request.room, "name", &request.name) ==
            0 &&
        (request.name[0] == '\0' || name_valid(request.name, DEMO_NAME_MAX))) {
        *ret_request = request;
        return body;
    }
    json_decref(body);
    return NULL;
}

/* The invite's rights in the room, for somebody new; never its administrator's rights. */
static char *mint_demo_token(const struct front_demo_key *key, const struct jwt_claims *invite, const char *identity,
                             const char *room, const char *name)
{
    const struct jwt_grants *video = &invite->video;
    int64_t now_s = clock_wall_s(), expires_s = now_s + DEMO_TOKEN_TTL_S;
    if (expires_s > invite->expires_s)
        expires_s = invite->expires_s;
    json_t *claims =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:{s:b, s:s, s:b, s:b, s:b}}", "iss", key->key_id, "sub", identity, "name",
                  name, "nbf", (json_int_t)now_s, "exp", (json_int_t)expires_s, "video", "roomJoin", 1, "room", room,
                  "canPublish", video->can_publish != GRANT_NO, "canSubscribe", video->can_subscribe != GRANT_NO,
                  "canPublishData", video->can_publish_data != GRANT_NO);
    assert(claims != NULL);
    char *token = jwt_mint(key->secret, claims);
    json_decref(claims);
    return token;
}

static int respond_demo_token(h2o_req_t *req, const struct front_demo_key *key, const struct jwt_claims *invite,
                              const char *room, const char *name)
{
    struct sid random;
    char text[SID_TEXT_SIZE + 1], identity[sizeof("guest-") + DEMO_IDENTITY_DIGITS];
    sid_random(&random);
    sid_format(&random, text);
    snprintf(identity, sizeof(identity), "guest-%.*s", DEMO_IDENTITY_DIGITS, text);

    char *token = mint_demo_token(key, invite, identity, room, name[0] != '\0' ? name : identity);
    json_t *answer = json_pack("{s:s, s:s, s:s}", "token", token, "identity", identity, "room", room);
    assert(answer != NULL);
    char *body = json_dumps(answer, JSON_COMPACT);
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CACHE_CONTROL, NULL, H2O_STRLIT("no-store"));
    problem_end_connection(req);
    respond(req, 200, "OK", "application/json", body, strlen(body));
    free(body);
    json_decref(answer);
    free(token);
    return 0;
}

static int exchange_invite(h2o_req_t *req, struct front *front, const struct demo_request *request)
{
    struct jwt_claims invite = {0};
    struct refusal refusal;
    int result;

    if (!gateway_check_invite(front->gateway, request->invite, strlen(request->invite), request->room, &invite,
                              &refusal))
        return problem_refusal(req, &refusal);
    const char *room = request->room[0] != '\0' ? request->room : invite.video.room;
    const struct front_demo_key *key = find_demo_key(front, invite.key_id);
    if (key == NULL)
        result = problem_send(req, 403, "FORBIDDEN", "The invite is not one of the demo's project.", 0);
    else if (!name_valid(room, ROOM_NAME_MAX))
        result = problem_send(req, 400, "INVALID", "Name a room: the invite does not.", 0);
    else
        result = respond_demo_token(req, key, &invite, room, request->name);
    jwt_claims_done(&invite);
    return result;
}

static int on_demo_token(h2o_handler_t *handler, h2o_req_t *req)
{
    struct front *front = front_of(handler, req, ROUTE_DEMO_TOKEN);
    struct demo_request request;

    if (!require_post(req))
        return 0;
    json_t *body = parse_demo_request(req, &request);
    if (body == NULL)
        return problem_send(req, 400, "INVALID",
                            "Send {\"invite\": ..., \"room\": ..., \"name\": ...}, the last two optional.", 0);
    int result = exchange_invite(req, front, &request);
    json_decref(body);
    return result;
}

/* --- Files, and what is left */

static int before_file(h2o_handler_t *handler, h2o_req_t *req)
{
    static const char policy[] = "default-src 'self'; connect-src 'self' https: wss:; img-src 'self' data: blob:; "
                                 "media-src 'self' blob: mediastream:; style-src 'self'; object-src 'none'; "
                                 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    front_of(handler, req, ROUTE_FILE);
    /* Revalidated by ETag each time: a page and the SDK that it loads must be of one release. */
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CACHE_CONTROL, NULL, H2O_STRLIT("no-cache"));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("x-content-type-options"), 0, NULL,
                          H2O_STRLIT("nosniff"));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("content-security-policy"), 0, NULL,
                          H2O_STRLIT(policy));
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("referrer-policy"), 0, NULL,
                          H2O_STRLIT("no-referrer"));
    /* The SDK may be imported by pages from anywhere. */
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("access-control-allow-origin"), 0, NULL,
                          H2O_STRLIT("*"));
    return -1; /* on to the file */
}

static int on_no_file(h2o_handler_t *handler, h2o_req_t *req)
{
    req->res.headers = (h2o_headers_t){NULL};
    return problem_send(req, 404, "NOT_FOUND", "There is no such file.", 0);
}

static int on_root(h2o_handler_t *handler, h2o_req_t *req)
{
    bool root = iovec_is(req->path_normalized, "/");
    struct front *front = front_of(handler, req, root ? ROUTE_ROOT : ROUTE_OTHER);
    if (!root)
        return problem_send(req, 404, "NOT_FOUND", "Clients connect to /v1/connect.", 0);
    if (front->options.demo) {
        h2o_send_redirect(req, 302, "Found", H2O_STRLIT("/demo/"));
        return 0;
    }
    static const char text[] = "Signalbox gateway. Clients connect to /v1/connect.\n";
    respond(req, 200, "OK", "text/plain; charset=utf-8", text, sizeof(text) - 1);
    return 0;
}

static void add_handler(struct front *front, h2o_pathconf_t *path, int (*on_req)(h2o_handler_t *, h2o_req_t *))
{
    struct api_handler *handler = (struct api_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = on_req;
    handler->front = front;
}

static void add_files(struct front *front, h2o_hostconf_t *host, const char *directory)
{
    static const char *index_files[] = {"index.html", NULL};
    char real_path[4096];

    snprintf(real_path, sizeof(real_path), "%s%s", front->options.web_root, directory);
    h2o_pathconf_t *path = h2o_config_register_path(host, directory, 0);
    add_handler(front, path, before_file);
    h2o_mimemap_t *types = h2o_file_get_mimemap(h2o_file_register(path, real_path, index_files, NULL, 0));
    h2o_mimemap_define_mimetype(types, "js", "text/javascript; charset=utf-8", NULL);
    h2o_mimemap_define_mimetype(types, "mjs", "text/javascript; charset=utf-8", NULL);
    h2o_mimemap_define_mimetype(types, "ts", "text/plain; charset=utf-8", NULL); /* .d.ts, not a video */
    h2o_mimemap_define_mimetype(types, "map", "application/json", NULL);
    h2o_mimemap_define_mimetype(types, "html", "text/html; charset=utf-8", NULL);
    h2o_mimemap_define_mimetype(types, "css", "text/css; charset=utf-8", NULL);
    add_handler(front, path, on_no_file);
}

/* A request that H2O could parse, but refuses by itself (400, 413), ends up at the fallback path. */
static void on_refused(h2o_logger_t *logger, h2o_req_t *req)
{
    metric_add_at(M_HTTP_REQUESTS, ROUTE_MALFORMED, 1);
    conn_of(req)->requested = true;
}

/* The first path that matches counts. */
void http_api_register(struct front *front, h2o_hostconf_t *host)
{
    add_handler(front, h2o_config_register_path(host, "/v1/connect", 0), on_connect);
    add_handler(front, h2o_config_register_path(host, "/v1/leave", 0), on_leave);
    if (front->options.demo)
        add_handler(front, h2o_config_register_path(host, "/demo/token", 0), on_demo_token);
    if (front->options.demo && front->options.web_root != NULL)
        add_files(front, host, "/demo/");
    if (front->options.web_root != NULL)
        add_files(front, host, "/sdk/");
    add_handler(front, h2o_config_register_path(host, "/", 0), on_root);
    h2o_create_logger(&host->fallback_path, sizeof(h2o_logger_t))->log_access = on_refused;
}
