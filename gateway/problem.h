/* Answers that say what is wrong: application/problem+json (RFC 9457) with the members type, title, status, detail and
 * code, the last being a name of signalbox.v1.Code or of a fault of the upgrade request.
 *
 * After each of them the connection is closed, so that who keeps asking pays for a new one, which is limited by
 * address. All return 0, as a handler that has answered does.
 *
 * Threading: loop thread.
 */
#ifndef SBX_GATEWAY_PROBLEM_H
#define SBX_GATEWAY_PROBLEM_H

#include "gateway/gateway.h"
#include "gateway/ws_handshake.h"
#include <h2o.h>

/* 429 and 503 carry Retry-After: `retry_after_ms` in whole seconds, at least one. */
int problem_send(h2o_req_t *req, int status, const char *code, const char *detail, uint32_t retry_after_ms);
int problem_refusal(h2o_req_t *req, const struct refusal *refusal);
int problem_handshake(h2o_req_t *req, const struct ws_handshake_answer *answer);
void problem_end_connection(h2o_req_t *req);

#endif
