/* What the workers tell the coordinator, and what it tells them: one struct per worker in memory that both share.
 *
 * Threading: each field has one writer (`wanted...`: the coordinator; everything else: the worker) and is a machine
 * word, so that the coordinator's progress line may read it at any time; totals count once the worker has reached the
 * phase.
 */
#ifndef SBX_LOAD_STATS_H
#define SBX_LOAD_STATS_H

#include "tests/load/histogram.h"
#include <stdint.h>

/* In the order in which a run goes through them; CHECK comes after JOIN and at the end, before LEAVE. */
enum phase {
    PHASE_WAIT,
    PHASE_JOIN,
    PHASE_IDLE,
    PHASE_HOLD,
    PHASE_STORM_FULL,
    PHASE_STORM_RESUMED,
    PHASE_CHECK,
    PHASE_LEAVE
};

/* X(name, what it counts) */
#define SWARM_COUNTERS(X)                                                                                              \
    X(connects, "connections attempted")                                                                               \
    X(handshakes_full, "TLS handshakes, full")                                                                         \
    X(handshakes_resumed, "TLS handshakes, resumed")                                                                   \
    X(joins, "sessions joined: hello_ok and a complete snapshot")                                                      \
    X(resumes, "sessions resumed")                                                                                     \
    X(resumes_recovered, "of these, by events instead of a snapshot")                                                  \
    X(cuts, "connections cut here, in storms")                                                                         \
    X(sessions_lost, "sessions that could not be resumed")                                                             \
    X(connect_failures, "connections that failed before the upgrade")                                                  \
    X(upgrades_refused, "upgrades that were answered with another status than 101")                                    \
    X(timeouts, "connections given up because nothing came")                                                           \
    X(disconnects_unexpected, "joined connections that ended without being cut here")                                  \
    X(leaves_received, "leave messages of the server")                                                                 \
    X(churned, "participants that left and joined anew")                                                               \
    X(directed_sent, "directed messages sent, each counted once")                                                      \
    X(directed_delivered, "directed messages delivered in order")                                                      \
    X(directed_repeats, "directed messages sent again")                                                                \
    X(directed_duplicates, "directed messages received again and dropped")                                             \
    X(directed_early, "directed messages received ahead of their turn, or of their sender, and dropped")               \
    X(directed_undeliverable, "receivers declared gone")                                                               \
    X(directed_blocked, "directed messages not sent because the window was full")                                      \
    X(mutes_sent, "mute toggles sent")                                                                                 \
    X(mutes_seen, "mute toggles seen by the others of the room")                                                       \
    X(signals_sent, "speaking signals sent")                                                                           \
    X(signals_received, "speaking signals received by the others of the room")                                         \
    X(room_events, "room events received")                                                                             \
    X(snapshots, "snapshot pages received")                                                                            \
    X(resyncs, "sync_state sent because of a gap")                                                                     \
    X(refusals, "requests that the server refused")                                                                    \
    X(dropped, "updates that the server says it left out")                                                             \
    X(violations_roster, "G1: entries of rosters that differ from the truth, sids that came back")                     \
    X(violations_order, "G2: directed messages lost, doubled, changed or out of order")                                \
    X(violations_protocol, "messages that the protocol does not allow")

#define SWARM_HISTOGRAMS(X)                                                                                            \
    X(handshake, "TCP, TLS and upgrade, from connect()")                                                               \
    X(join, "due by the schedule to a complete roster")                                                                \
    X(resume, "cut or due to hello_ok")                                                                                \
    X(message, "directed message, due by the schedule to delivered")                                                   \
    X(event, "mute toggle, due by the schedule to seen by each of the room")

/* How connections ended that were not cut here: their close codes, of which those from 4000 are Signalbox's own, and
 * enum conn_end for those that had none. */
enum { END_CODES = 400, END_CODE_FIRST = 4000, END_OTHER = 3, END_KINDS = 4 };

struct worker_stats {
    int wanted;          /* enum phase */
    int wanted_serial;   /* grows with each order */
    int wanted_renewals; /* how often every other participant of each room was to change its network */
    int reached_serial;
    int64_t tls_bytes;     /* that OpenSSL holds */
    int64_t phase_took_us; /* of the phase reached last; JOIN and STORM: until the last participant was there */
    uint64_t joined;       /* right now */
    uint64_t unconverged;  /* in CHECK: participants that are not there yet */
#define X(name, what) uint64_t name;
    SWARM_COUNTERS(X)
#undef X
    uint64_t ends[END_KINDS + END_CODES];
#define X(name, what) struct histogram name##_us;
    SWARM_HISTOGRAMS(X)
#undef X
};

/* Where in `ends` a code of conn_handlers.ended() counts. */
static inline unsigned stats_end_index(int code)
{
    if (code >= END_CODE_FIRST && code < END_CODE_FIRST + END_CODES)
        return END_KINDS + (unsigned)(code - END_CODE_FIRST);
    return code < END_OTHER ? (unsigned)code : END_OTHER;
}

#endif
