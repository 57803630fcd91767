/* Tokens of one project with one secret, which may be wrong in every way, and what becomes of them. */
#ifndef SBX_TESTS_JWT_FIXTURE_H
#define SBX_TESTS_JWT_FIXTURE_H

#include "common/buf.h"
#include "common/jwt.h"
#include <sodium.h>

enum { NOW_S = 1900000000, LEEWAY_S = 10, BASE64URL = sodium_base64_VARIANT_URLSAFE_NO_PADDING };

#define SECRET "0123456789abcdef0123456789abcdef"
#define HS256_HEADER "{\"alg\":\"HS256\"}"
#define GOOD_CLAIMS "{\"iss\":\"API1\",\"sub\":\"alice\",\"exp\":1900000100}"

/* Each test program has one, with SECRET as "API1" of project "acme". */
extern struct jwt_keyring *ring;
extern char error[512];

void setup(void);
void teardown(void);

/* The caller frees what these return. */
struct buf unsigned_token(const char *header, const char *claims);
struct buf hs256_token(const char *header, const char *claims, const char *secret);
/* A part of a token in base64url. */
void append_part(struct buf *buf, const void *data, size_t size);

/* All of them check that claims are left alone on failure. The buffer is freed. */
enum jwt_result verify_at(const char *token, size_t size, int64_t wall_s);
enum jwt_result verify_text(const char *token);
enum jwt_result verify_buf(struct buf token);
enum jwt_result verify_claims_at(const char *claims, int64_t wall_s);
/* iss and exp, plus `more`. */
enum jwt_result verify_with(const char *more);

#endif
