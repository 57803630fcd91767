/* What requests.c, which has the table of handlers, and requests_participant.c share. */
#ifndef SBX_GATEWAY_REQUESTS_PRIVATE_H
#define SBX_GATEWAY_REQUESTS_PRIVATE_H

#include "gateway/internal.h"

/* One message while it is being handled. */
struct request {
    struct client *client;
    struct session *session;
    const Signalbox__V1__ClientMessage *message;
    int64_t now_ms;
    Signalbox__V1__Code code;
    const char *text;
    uint32_t retry_after_ms;
    bool deferred; /* the result comes with the owner's acknowledgement */
    bool closed;   /* the client's session has ended: touch nothing */
    bool unwanted; /* the room takes no more of these for now */
};

/* The result: not done, and why. `text` must outlive the request. */
static inline void refuse(struct request *request, Signalbox__V1__Code code, const char *text)
{
    request->code = code;
    request->text = text;
}

/* requests_participant.c: the result comes with the owner's acknowledgement, unless they refuse. */
void request_publish_track(struct request *request);
void request_unpublish_track(struct request *request);
void request_mute(struct request *request);
void request_set_metadata(struct request *request);

#endif
