/* A join token as text: "cairn1." and base64url of a CRC32C and a packed JoinToken (proto/cairn.proto). */
#ifndef CAIRN_CLIENT_CLI_TOKEN_H
#define CAIRN_CLIENT_CLI_TOKEN_H

#include "base/err.h"
#include "base/ids.h"
#include "base/slice.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

#define TOKEN_TEXT_BYTES 8192u

/* Writes the text, wiping what it was made from. */
void token_encode(const Cairn__JoinToken *token, char ret_text[TOKEN_TEXT_BYTES]);
/* INVALID: no token, or not a whole one. The message lives in the arena. */
MUST_CHECK enum err token_decode(const char *text, struct proto_arena *arena, Cairn__JoinToken **ret_token);
/* SHA-256 of the authority's certificate. */
struct sha256 token_fingerprint(const Cairn__JoinToken *token);

#endif
