#include "gateway/problem.h"

#include "common/ids.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *title_of(int status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 409:
        return "Conflict";
    case 413:
        return "Content Too Large";
    case 426:
        return "Upgrade Required";
    case 429:
        return "Too Many Requests";
    case 503:
        return "Service Unavailable";
    default:
        return "Refused";
    }
}

void problem_end_connection(h2o_req_t *req)
{
    req->http1_is_persistent = 0;
}

int problem_send(h2o_req_t *req, int status, const char *code, const char *detail, uint32_t retry_after_ms)
{
    /* A detail may have been cut within a character. */
    if (!utf8_valid(detail, strlen(detail)))
        detail = title_of(status);
    json_t *problem = json_pack("{s:s, s:s, s:i, s:s, s:s}", "type", "about:blank", "title", title_of(status), "status",
                                status, "detail", detail, "code", code);
    assert(problem != NULL);
    char *body = json_dumps(problem, JSON_COMPACT);
    char *seconds = h2o_mem_alloc_pool(&req->pool, 16);

    if (status == 429 || status == 503) {
        int size = snprintf(seconds, 16, "%u", retry_after_ms < 1000 ? 1 : (retry_after_ms - 1) / 1000 + 1);
        h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("retry-after"), 0, NULL, seconds, (size_t)size);
    }
    if (status == 401)
        h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("www-authenticate"), 0, NULL,
                              H2O_STRLIT("Bearer"));
    problem_end_connection(req);
    req->res.status = status;
    req->res.reason = title_of(status);
    req->res.content_length = strlen(body);
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CACHE_CONTROL, NULL, H2O_STRLIT("no-store"));
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, H2O_STRLIT("application/problem+json"));
    h2o_send_inline(req, body, strlen(body));
    free(body);
    json_decref(problem);
    return 0;
}

int problem_refusal(h2o_req_t *req, const struct refusal *refusal)
{
    const ProtobufCEnumValue *code =
        protobuf_c_enum_descriptor_get_value(&signalbox__v1__code__descriptor, refusal->code);
    return problem_send(req, refusal->http_status, code ? code->name : "UNSPECIFIED", refusal->detail,
                        refusal->retry_after_ms);
}

int problem_handshake(h2o_req_t *req, const struct ws_handshake_answer *answer)
{
    if (answer->header_name != NULL)
        h2o_add_header_by_str(&req->pool, &req->res.headers, answer->header_name, strlen(answer->header_name), 1, NULL,
                              answer->header_value, strlen(answer->header_value));
    return problem_send(req, (int)answer->status, answer->name, answer->detail, 0);
}
