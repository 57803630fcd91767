/* Every metric of Signalbox: METRIC(id, tier, type, name, label, values, help).
 * label and values are NULL or a label name and its values, comma-separated, in the order of the enum that indexes
 * them. Included by metrics.h and metrics.c; no include guard on purpose. Names follow Prometheus conventions; the
 * autoscaling signals keep the names under which dashboards and autoscalers know them. */

#define METRIC_CLASSES "p0_control,p1_negotiation,p2_candidates,p3_membership,p4_ephemeral"

/* Process and loop */
METRIC(M_LOOP_LAG, TIER_BOTH, METRIC_HISTOGRAM, "signalbox_loop_lag_seconds", NULL, NULL,
       "How late the event loop was when a timer was due")
METRIC(M_LOOP_TURN, TIER_BOTH, METRIC_HISTOGRAM, "signalbox_loop_turn_seconds", NULL, NULL,
       "Time one turn of the event loop took, waiting excluded")
METRIC(M_ADMIN_REFUSED, TIER_BOTH, METRIC_COUNTER, "signalbox_admin_connections_refused_total", NULL, NULL,
       "Connections to the listener of probes and scrapers closed unread because 64 were open")
METRIC(M_LOG_SUPPRESSED, TIER_BOTH, METRIC_COUNTER, "signalbox_log_lines_suppressed_total", NULL, NULL,
       "Log lines held back by the per-site rate limit")

/* Bus */
METRIC(M_BUS_UP, TIER_BOTH, METRIC_GAUGE, "signalbox_bus_up", NULL, NULL, "1 while connected to a NATS server")
METRIC(M_BUS_LOSSES, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_losses_total", "reason",
       "closed,echo_timeout,outgoing_full,error", "Connections to NATS that were lost or given up")
METRIC(M_BUS_SENT, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_messages_sent_total", NULL, NULL,
       "Messages published on the bus")
METRIC(M_BUS_SENT_BYTES, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_sent_bytes_total", NULL, NULL,
       "Bytes published on the bus")
METRIC(M_BUS_RECEIVED, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_messages_received_total", NULL, NULL,
       "Messages received from the bus")
METRIC(M_BUS_RECEIVED_BYTES, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_received_bytes_total", NULL, NULL,
       "Bytes received from the bus")
METRIC(M_BUS_DROPPED, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_messages_dropped_total", "reason",
       "down,incoming_full,malformed,stale_sender,schema,held_full,too_large,fenced",
       "Bus messages refused: not connected, loop too far behind, undecodable, from a process that is not in the view, "
       "of a schema version this build cannot read, too many that wait for a newer view, larger than the server's "
       "max_payload, or for a shard that is not sure of its own place")
METRIC(M_BUS_UNREACHABLE, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_unreachable_total", NULL, NULL,
       "Messages to a process that no longer subscribes")
METRIC(M_BUS_ECHO, TIER_BOTH, METRIC_HISTOGRAM, "signalbox_bus_echo_seconds", NULL, NULL,
       "Round trip of the bus thread's liveness echo")

/* Links */
METRIC(M_LINK_GAPS, TIER_BOTH, METRIC_COUNTER, "signalbox_link_gaps_total", NULL, NULL,
       "Gaps seen in the numbering of a peer's messages, each repaired by a resync")
METRIC(M_LINK_DUPLICATES, TIER_BOTH, METRIC_COUNTER, "signalbox_link_duplicates_total", NULL, NULL,
       "Bus messages that had been seen before, dropped")
METRIC(M_LINK_ITEMS_DROPPED, TIER_BOTH, METRIC_COUNTER, "signalbox_link_items_dropped_total", NULL, NULL,
       "Items dropped because too much waited for one peer")
METRIC(M_LINK_ENVELOPES_LOST, TIER_BOTH, METRIC_COUNTER, "signalbox_link_envelopes_lost_total", NULL, NULL,
       "Envelopes that could not be published because the bus was down")

METRIC(M_REVOCATIONS, TIER_BOTH, METRIC_GAUGE, "signalbox_revocations", NULL, NULL,
       "Sessions remembered that were removed and must not be resumed")
METRIC(M_REVOCATIONS_FORGOTTEN, TIER_BOTH, METRIC_COUNTER, "signalbox_revocations_forgotten_total", NULL, NULL,
       "Removed sessions forgotten before their time because too many had to be remembered")

/* View */
METRIC(M_VIEW_GENERATION, TIER_BOTH, METRIC_GAUGE, "signalbox_view_generation", NULL, NULL,
       "Generation of the newest view known")
METRIC(M_VIEW_SEQ, TIER_BOTH, METRIC_GAUGE, "signalbox_view_sequence", NULL, NULL, "Sequence of the newest view known")
METRIC(M_VIEW_SHARDS, TIER_BOTH, METRIC_GAUGE, "signalbox_view_shards", NULL, NULL, "Shards in the newest view known")
METRIC(M_VIEW_GATEWAYS, TIER_BOTH, METRIC_GAUGE, "signalbox_view_gateways", NULL, NULL,
       "Gateways in the newest view known")
METRIC(M_VIEW_APPENDS, TIER_BOTH, METRIC_COUNTER, "signalbox_view_appends_total", "outcome",
       "ok,conflict,unknown,failed", "Entries that this process tried to append to the view log")
METRIC(
    M_VIEW_HISTORY_LOST, TIER_BOTH, METRIC_COUNTER, "signalbox_view_history_losses_total", NULL, NULL,
    "Times that the views since the last settled one could not be had: rooms are then taken for ones that anybody may "
    "have owned")
METRIC(
    M_VIEWS_LEFT_OUT, TIER_BOTH, METRIC_COUNTER, "signalbox_views_left_out_total", NULL, NULL,
    "Views left out of answers to processes that were behind, because not all fit in a message: those read them in the "
    "log")
METRIC(M_DETECTOR_FULL, TIER_BOTH, METRIC_COUNTER, "signalbox_detector_overflows_total", "what",
       "accused_said,accused_heard,starting",
       "What the detection of failures had no place for: processes held for gone beyond the 64 that a heartbeat names, "
       "said or heard, whose turn comes when those have been removed; the first of more than 32 processes that start")
METRIC(M_HEARTBEATS_STALE, TIER_BOTH, METRIC_COUNTER, "signalbox_heartbeats_stale_total", NULL, NULL,
       "Heartbeats that came after a later one of the same process, held up in a NATS server that stood still")

/* Rooms */
METRIC(M_ROOMS, TIER_SHARD, METRIC_GAUGE, "signalbox_rooms", "state", "held,rebuilding,settling,live,frozen",
       "Rooms by what they are to this shard: held = asked for and not here yet; frozen = on its way to its new owner")
METRIC(M_ROOM_TRANSITIONS, TIER_SHARD, METRIC_COUNTER, "signalbox_room_transitions_total", "edge",
       "absent_held,absent_rebuilding,absent_settling,absent_live,held_absent,held_rebuilding,held_settling,held_live,"
       "rebuilding_absent,rebuilding_settling,settling_absent,settling_live,settling_frozen,live_absent,live_settling,"
       "live_frozen,"
       "frozen_absent,frozen_settling,frozen_live",
       "Changes of what a room is to this shard: from one state to another")
METRIC(
    M_HANDOFFS, TIER_SHARD, METRIC_COUNTER, "signalbox_handoffs_total", "outcome",
    "started,installed,refused,not_mine,dropped,taken",
    "Rooms handed to their new owners: not_mine = the room had moved on and goes to another; dropped = the new owner "
    "was lost, and the room is rebuilt; taken = installed here")
METRIC(M_HANDOFF_CHUNKS, TIER_SHARD, METRIC_COUNTER, "signalbox_handoff_chunks_total", "direction", "sent,received",
       "Parts of rooms on their way, repeats included")
METRIC(
    M_HANDOFF_CHUNKS_REFUSED, TIER_SHARD, METRIC_COUNTER, "signalbox_handoff_chunks_refused_total", "reason",
    "no_room,other_handoff,too_large,damaged,malformed",
    "Parts of rooms that were not used: no_room = limits.arrival_bytes are on their way in already, and it is sent "
    "again; other_handoff = it does not go with the parts before it; damaged = the checksum of the whole is another; "
    "malformed = no room could be made of it, and it is rebuilt from what gateways report")
METRIC(M_HANDOFF_BYTES, TIER_SHARD, METRIC_COUNTER, "signalbox_handoff_bytes_total", "direction", "sent,received",
       "Bytes of rooms on their way, repeats included")
METRIC(M_HANDOFF_PAUSE, TIER_SHARD, METRIC_HISTOGRAM, "signalbox_handoff_pause_seconds", NULL, NULL,
       "For how long a room was frozen until its new owner had it")
METRIC(M_PULLS, TIER_SHARD, METRIC_COUNTER, "signalbox_pulls_total", "result", "asked,coming,not_here,in_transit",
       "Requests for rooms that this shard owns and an earlier owner may hold, and what was answered to them")
METRIC(M_COMMANDS_WAITING, TIER_SHARD, METRIC_GAUGE, "signalbox_commands_waiting", NULL, NULL,
       "Session states that wait for their room to come from elsewhere")
METRIC(M_PARTICIPANTS, TIER_SHARD, METRIC_GAUGE, "signalbox_participants", "state", "attached,detached",
       "Participants in this shard's rooms; detached ones have lost their connection and may come back")
METRIC(M_SESSION_COMMANDS, TIER_SHARD, METRIC_COUNTER, "signalbox_session_commands_total", "outcome",
       "joined,rebound,updated,repeated,restored,departed,stale,refused,not_owner,held,older_view",
       "What became of the session states that gateways sent")
METRIC(M_SESSION_LISTS_DIFFER, TIER_SHARD, METRIC_COUNTER, "signalbox_session_lists_differ_total", NULL, NULL,
       "Comparisons in which a gateway held other sessions than were listed as attached there; what is on its way "
       "differs for a moment")
METRIC(M_SESSION_LISTS_CUT, TIER_BOTH, METRIC_COUNTER, "signalbox_session_lists_cut_total", "by", "owner,gateway",
       "Comparisons that a later one has to complete: the owner listed 4,096 sessions and no more, or the gateway "
       "named 64 that it lacks and no more")
METRIC(M_DEPARTURES, TIER_SHARD, METRIC_COUNTER, "signalbox_departures_total", "reason",
       "unspecified,client_left,replaced,duplicate_identity,removed,room_closed,token_expired,token_revoked,"
       "window_expired,gateway_draining,slow_consumer,protocol_error,abuse,capacity,server_error,disconnected,session_"
       "gone",
       "Participants that left for good")
METRIC(
    M_ABSENCES, TIER_SHARD, METRIC_COUNTER, "signalbox_absences_total", "outcome", "returned,window_over,ended",
    "Losses of a participant's connection, each counted once it is over: the participant came back, did not in time, "
    "or was removed meanwhile")
METRIC(M_ABSENCE, TIER_SHARD, METRIC_HISTOGRAM, "signalbox_absence_seconds", NULL, NULL,
       "From the loss of a participant's connection to its return")
METRIC(M_DEPARTURES_FORGOTTEN, TIER_BOTH, METRIC_COUNTER, "signalbox_departures_forgotten_total", NULL, NULL,
       "Departures forgotten before their time because too many had to be remembered: a shard keeps "
       "limits.departures of them, a gateway the latest 32 of each room")
METRIC(M_DECISIONS_FORGOTTEN, TIER_SHARD, METRIC_COUNTER, "signalbox_handoff_decisions_forgotten_total", NULL, NULL,
       "Outcomes of handoffs forgotten before their view had settled because too many had to be remembered")
METRIC(
    M_VIEWS_FORGOTTEN, TIER_BOTH, METRIC_COUNTER, "signalbox_views_forgotten_total", NULL, NULL,
    "Views dropped from the history before they had settled because 64 came after them; rooms are then taken for ones "
    "that anybody may have owned")
METRIC(M_ROOM_EVENTS, TIER_SHARD, METRIC_COUNTER, "signalbox_room_events_total", NULL, NULL,
       "Room events published, after coalescing")
METRIC(M_FANOUT_BATCHES, TIER_SHARD, METRIC_COUNTER, "signalbox_fanout_batches_total", NULL, NULL,
       "Batches of room traffic sent to gateways")
METRIC(M_FANOUT_QUEUE_DEPTH, TIER_BOTH, METRIC_GAUGE, "fanout_queue_depth", NULL, NULL,
       "Messages that wait to be sent: room events and bus items in a shard, queued client messages in a gateway")
METRIC(M_CLIENT_QUEUE_BYTES, TIER_GATEWAY, METRIC_GAUGE, "signalbox_client_queue_bytes", NULL, NULL,
       "Frames that wait to be sent to clients; one that many share counts for each")
METRIC(M_ROOM_WAIT, TIER_SHARD, METRIC_HISTOGRAM, "signalbox_room_wait_seconds", NULL, NULL,
       "From a room having something to publish to its next publication: its pace, its budget, other rooms' turns")
METRIC(
    M_ROOM_MEMORY, TIER_SHARD, METRIC_GAUGE, "signalbox_room_memory_bytes", "use",
    "recent_events,held_messages,arriving_rooms",
    "What rooms keep beside their members: events for those who missed some, messages for those who are away, parts of "
    "rooms on their way here")
METRIC(
    M_SIGNALS_COALESCED, TIER_BOTH, METRIC_COUNTER, "signalbox_signals_coalesced_total", NULL, NULL,
    "Ephemeral signals replaced by a later one of the same sender and key before they were sent: in a room, or in the "
    "queue of a client that is behind")
METRIC(M_UPDATES_DROPPED, TIER_BOTH, METRIC_COUNTER, "rtc_room_updates_dropped_total", "class", METRIC_CLASSES,
       "Updates dropped because a budget or a queue was short, by class")
METRIC(M_UPDATES_DROPPED_REASON, TIER_BOTH, METRIC_COUNTER, "signalbox_updates_dropped_total", "reason",
       "room_budget,room_queue,receiver_away,client_queue,gateway_memory,client_budget",
       "The same, by what was short: the room's budget, the room's waiting updates, the receiver's connection, the "
       "client's queue, the gateway's memory, the budget of the sender's connection")
METRIC(M_ROOM_THROTTLED, TIER_SHARD, METRIC_COUNTER, "signalbox_room_throttled_total", "budget",
       "joins,p1_negotiation,p2_candidates,p3_membership,p4_ephemeral,bytes,delivery",
       "What rooms asked for beyond their budgets: joins and changes wait, messages are refused with a time, signals "
       "are dropped")
METRIC(M_ROOM_TURNS_CUT, TIER_SHARD, METRIC_COUNTER, "signalbox_room_turns_cut_total", NULL, NULL,
       "Times that a room had more to publish than its share of a turn and let others go first")
METRIC(M_RELAYS, TIER_SHARD, METRIC_COUNTER, "signalbox_relays_total", "kind",
       "unspecified,offer,answer,candidate,candidates_done,application,ack", "Directed messages passed on")
METRIC(M_RELAYS_REFUSED, TIER_SHARD, METRIC_COUNTER, "signalbox_relays_refused_total", "reason",
       "stale_sender,no_receiver,receiver_detached,throttled", "Directed messages that could not be passed on")
METRIC(
    M_RELAYS_HELD, TIER_SHARD, METRIC_COUNTER, "signalbox_relays_held_total", "outcome", "kept,repeated,full,passed_on",
    "Directed messages for somebody whose connection is lost: kept, kept already, too many to be kept, and passed on "
    "after the return")
METRIC(M_SYNCS, TIER_SHARD, METRIC_COUNTER, "signalbox_syncs_total", "answer",
       "replay,snapshot,page,cursor_gone,no_room", "What was sent to those who had missed something")
METRIC(M_ICE_STATES, TIER_SHARD, METRIC_COUNTER, "signalbox_ice_states_total", "state",
       "unspecified,checking,connected,disconnected,failed,closed",
       "States of peer connections as clients reported them")
METRIC(M_TIME_TO_CONNECTED, TIER_SHARD, METRIC_HISTOGRAM, "signalbox_time_to_connected_seconds", NULL, NULL,
       "From the first offer to a connected peer connection")
METRIC(M_NEGOTIATIONS, TIER_SHARD, METRIC_COUNTER, "signalbox_negotiations_total", "outcome",
       "connected,failed,closed,superseded,forgotten",
       "Negotiations by how they ended: closed = by an end before it connected; superseded = by a newer offer; "
       "forgotten = "
       "not followed to its end")
METRIC(M_NEGOTIATION_GLARE, TIER_SHARD, METRIC_COUNTER, "signalbox_negotiation_glare_total", NULL, NULL,
       "Offers of both ends of a pair that crossed")
METRIC(M_CANDIDATES_STALE, TIER_SHARD, METRIC_COUNTER, "signalbox_candidates_stale_total", NULL, NULL,
       "Candidates of an earlier negotiation or ICE generation, passed on and dropped by the receiver")
METRIC(M_ITEMS_INVALID, TIER_BOTH, METRIC_COUNTER, "signalbox_bus_items_invalid_total", NULL, NULL,
       "Items from the bus that broke the cluster protocol, or that nobody here knows")

/* Clients' connections */
METRIC(M_WEBSOCKETS, TIER_GATEWAY, METRIC_GAUGE, "active_websocket_connections", NULL, NULL,
       "WebSocket connections that are open")
METRIC(M_CLIENT_SOCKETS, TIER_GATEWAY, METRIC_GAUGE, "signalbox_client_sockets", NULL, NULL,
       "TCP connections on the clients' listener, in whatever state")
METRIC(M_ACCEPTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_accepts_total", "outcome",
       "accepted,address_connections,address_rate",
       "Connections accepted, or refused because of their address's limits")
METRIC(M_ACCEPT_PAUSES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_accept_pauses_total", "reason",
       "full,no_descriptors,paced", "Times that the gateway stopped accepting for a moment")
METRIC(M_PROXY_HEADERS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_proxy_headers_total", "outcome",
       "ok,malformed,untrusted,timeout,lost", "PROXY protocol headers at the start of connections")
METRIC(M_TLS_HANDSHAKES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_tls_handshakes_total", "outcome",
       "full,resumed,failed,timeout", "TLS handshakes with clients")
METRIC(M_UPGRADES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_upgrades_total", "outcome",
       "ok,method_not_get,http_version,not_an_upgrade,websocket_version,websocket_key,origin_not_allowed,"
       "no_subprotocol,malformed_subprotocols,address_busy,not_ready,token_refused,lost",
       "Requests to open a WebSocket, by what became of them")
METRIC(M_HTTP_REQUESTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_http_requests_total", "route",
       "connect,leave,demo_token,file,root,other,malformed",
       "HTTP requests on the clients' listener; malformed: one that could not be parsed, or a connection that ended "
       "before one was whole")
METRIC(M_WS_CLOSED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_closed_total", "cause",
       "client_left,client_closed,lost,gateway,slow,ping_timeout,protocol_error,abuse,shutdown",
       "WebSocket connections that ended, by what ended them")
METRIC(M_WS_ERRORS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_errors_total", "code", "1002,1003,1007,1009",
       "WebSocket connections failed because the client broke RFC 6455, by close code")
METRIC(M_WS_MESSAGES_RECEIVED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_messages_received_total", "encoding",
       "protobuf,json", "Messages received from clients")
METRIC(M_WS_MESSAGES_UNDECODABLE, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_messages_undecodable_total",
       "encoding", "protobuf,json", "Messages from clients that could not be decoded")
METRIC(M_WS_MESSAGES_SENT, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_messages_sent_total", "encoding",
       "protobuf,json", "Messages sent to clients")
METRIC(M_WS_RECEIVED_BYTES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_received_bytes_total", NULL, NULL,
       "Bytes of WebSocket frames received from clients")
METRIC(M_WS_SENT_BYTES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_sent_bytes_total", NULL, NULL,
       "Bytes of WebSocket frames sent to clients")
METRIC(M_WS_FLUSHES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_flushes_total", NULL, NULL,
       "Writes to clients, each of everything that waited for one of them")
METRIC(M_WS_READ_PAUSES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_read_pauses_total", NULL, NULL,
       "Times that a client was not read from because too much waited for it")
METRIC(M_WS_READ_RESTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_websocket_read_rests_total", NULL, NULL,
       "Times that a client was left unread for a moment because it was over a budget")
METRIC(M_MESSAGES_NOT_CONVERTED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_messages_not_converted_total", NULL, NULL,
       "Messages from shards that this build could not write as JSON")

METRIC(M_MEMORY_CEILING, TIER_GATEWAY, METRIC_GAUGE, "signalbox_memory_ceiling_bytes", NULL, NULL,
       "Resident memory that this process may take; it gives things up before it gets there")
METRIC(
    M_SHED_LEVEL, TIER_GATEWAY, METRIC_GAUGE, "signalbox_shed_level", NULL, NULL,
    "What is being given up for want of memory: 0 nothing, 1 new joins, 2 signals too, 3 the slowest connections too")
METRIC(M_SHED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_shed_total", "what", "join,signal,connection",
       "What was given up for want of memory: joins refused, signals dropped, slow connections closed")

/* Clients and sessions */
METRIC(M_CLIENT_MESSAGES, TIER_GATEWAY, METRIC_COUNTER, "signalbox_client_messages_total", NULL, NULL,
       "Messages from clients that were carried out or refused with a result")
METRIC(M_CLIENT_MALFORMED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_client_messages_malformed_total", NULL, NULL,
       "Messages from clients that could not be decoded")
METRIC(M_CLIENT_RESULTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_client_refusals_total", "code",
       "unspecified,ok,invalid,unknown_message,not_joined,forbidden,not_found,too_large,limit_reached,throttled,"
       "would_block,undeliverable,retry,no_capacity,unavailable,internal,already_exists,unauthenticated",
       "Requests of clients that were refused, by result code")
METRIC(M_CLIENTS_ENDED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_clients_ended_total", "reason",
       "unspecified,client_left,replaced,duplicate_identity,removed,room_closed,token_expired,token_revoked,"
       "window_expired,gateway_draining,slow_consumer,protocol_error,abuse,capacity,server_error,disconnected,session_"
       "gone",
       "Connections that the gateway has closed, by the reason given to the client")
METRIC(M_JOINS_DEFERRED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_joins_deferred_total", "reason", "connections,rate",
       "Joins told to come later, because what is left of connections or handshakes is kept for those who resume")
METRIC(M_DRAINED_CLIENTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_drained_clients_total", "how", "told,closed",
       "Clients that a drain sent away: told to resume elsewhere, or closed because they did not go in time or had "
       "nowhere "
       "to go")
METRIC(M_THROTTLED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_client_throttled_total", "budget",
       "messages,bytes,room,signals",
       "Messages from clients that were over the connection's budget of messages or bytes, or over their room's")
METRIC(M_TOKENS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_access_tokens_total", "outcome",
       "ok,malformed,too_large,algorithm,unknown_key,signature,expired,not_yet_valid,claims",
       "Access tokens checked, by outcome")
METRIC(M_RESUME_TOKENS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_resume_tokens_total", "outcome",
       "ok,malformed,forged,expired,version", "Resume tokens checked, by outcome")
METRIC(
    M_JOINS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_joins_total", "outcome",
    "joined,recovered,resumed,refused,timeout",
    "Outcomes of hello: a new session, an old one with every event replayed, an old one with a snapshot, refused, or "
    "not answered by any shard in time")
METRIC(M_JOIN_LATENCY, TIER_GATEWAY, METRIC_HISTOGRAM, "signalbox_join_latency_seconds", NULL, NULL,
       "From hello to hello_ok, of new sessions")
METRIC(M_RESUME_LATENCY, TIER_GATEWAY, METRIC_HISTOGRAM, "signalbox_resume_latency_seconds", NULL, NULL,
       "From hello to hello_ok, of sessions that were resumed")
METRIC(
    M_RECONNECTS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_reconnects_total", "outcome",
    "recovered,resumed,unavailable,timeout,window_over,ended,revoked,invalid,refused,abandoned",
    "Attempts to resume a session, each counted once it is decided: with every event, with a snapshot; no shards or no "
    "capacity at the moment; no answer in time; after its window; the session has ended or was replaced; its access "
    "was "
    "withdrawn; not a token of this cluster; a request that breaks the protocol; the client went away meanwhile")
METRIC(M_SESSION_REPEATS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_session_repeats_total", NULL, NULL,
       "Session states that were said again because no acknowledgement came")
METRIC(M_SESSIONS_FORGOTTEN, TIER_GATEWAY, METRIC_COUNTER, "signalbox_sessions_forgotten_total", NULL, NULL,
       "Sessions without a connection that gave way to newer ones before their owners had acknowledged them")
METRIC(
    M_ACKS_STALE, TIER_GATEWAY, METRIC_COUNTER, "signalbox_acknowledgements_stale_total", NULL, NULL,
    "Acknowledgements, commands and lists of sessions that came from a former owner, for a session that has moved on, "
    "or in answer to an earlier comparison")
METRIC(M_BATCHES_STALE, TIER_GATEWAY, METRIC_COUNTER, "signalbox_room_batches_stale_total", NULL, NULL,
       "Room batches of a former owner, an older epoch, or for a room that nobody here is in")
METRIC(M_SESSIONS_REPAIRED, TIER_GATEWAY, METRIC_COUNTER, "signalbox_sessions_repaired_total", "what",
       "missed,repeated",
       "Sessions that an owner listed and this gateway did not hold, and those that were said again because the owner "
       "lacked them")
METRIC(M_NOT_OWNER, TIER_GATEWAY, METRIC_COUNTER, "signalbox_not_owner_total", NULL, NULL,
       "Session states that went to a shard which did not own the room")
METRIC(M_EPOCHS, TIER_GATEWAY, METRIC_COUNTER, "signalbox_epochs_total", "outcome",
       "handed_over,same_roster,differs,stale",
       "Rooms with another owner: handed over whole, or put together with the same roster, and adopted in silence; "
       "different, so that the clients got the room's state anew; or said by an owner that is none any more")
METRIC(M_RELAYS_UNHEARD, TIER_GATEWAY, METRIC_COUNTER, "signalbox_relays_unheard_total", NULL, NULL,
       "Directed messages for a session that has no connection here at the moment")
METRIC(M_SESSIONS, TIER_GATEWAY, METRIC_GAUGE, "signalbox_sessions", NULL, NULL,
       "Sessions that this gateway holds: attached, detached, and those whose departure is not yet acknowledged")
METRIC(M_GATEWAY_ROOMS, TIER_GATEWAY, METRIC_GAUGE, "signalbox_gateway_rooms", NULL, NULL,
       "Rooms that have sessions on this gateway")
