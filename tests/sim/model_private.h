/* What the parts of a model client share: model_client.c (connection and session), model_roster.c (who is in the room)
 * and model_messages.c (what is said). For those three only.
 */
#ifndef SBX_TESTS_SIM_MODEL_PRIVATE_H
#define SBX_TESTS_SIM_MODEL_PRIVATE_H

#include "model_client.h"

typedef Signalbox__V1__ClientMessage Request;
typedef Signalbox__V1__ServerMessage Message;

/* The first one counts. `invariant`: a literal. */
void model_violated(struct model_client *client, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void model_copy_text(char *to, size_t size, const char *from);

/* Asks for what the client misses of the room, unless that is on its way. */
void roster_ask(struct model_client *client, bool position_known, const char *cursor);
/* Later owners have greater epochs, whichever gateway tells of them. */
void roster_take_epoch(struct model_client *client, const char *text);
void roster_take_snapshot(struct model_client *client, const Signalbox__V1__Snapshot *snapshot);
void roster_take_events(struct model_client *client, const Signalbox__V1__RoomEvents *events);
void roster_take_pong(struct model_client *client, const Signalbox__V1__Pong *pong);
/* What time brings, with a connection. */
void roster_keep_up(struct model_client *client, int64_t now_ms);

void messages_take_directed(struct model_client *client, const Message *message);
void messages_take_from_room(struct model_client *client, const Signalbox__V1__Message *message);
void messages_take_ack(struct model_client *client, const Signalbox__V1__Route *route);
/* Nothing more goes to that session, which has left. */
void messages_end_pair(struct model_client *client, const char *peer);
/* Everything that is not acknowledged, to an owner that may not have it. */
void messages_resend_all(struct model_client *client);
void messages_keep_up(struct model_client *client, int64_t now_ms);

#endif
