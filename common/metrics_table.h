/* Every metric of Signalbox: METRIC(id, tier, type, name, label, values, help).
 * label and values are NULL or a label name and its values, comma-separated, in the order of the enum that indexes them.
 * Included by metrics.h and metrics.c; no include guard on purpose. Names follow Prometheus conventions; the
 * autoscaling signals keep the names under which dashboards and autoscalers know them. */

#define METRIC_CLASSES "p0_control,p1_negotiation,p2_candidates,p3_membership,p4_ephemeral"

/* Process and loop */
METRIC(M_LOOP_LAG, TIER_BOTH, METRIC_HISTOGRAM, "signalbox_loop_lag_seconds", NULL, NULL,
       "How late the event loop was when a timer was due")
METRIC(M_LOOP_TURN, TIER_BOTH, METRIC_HISTOGRAM, "signalbox_loop_turn_seconds", NULL, NULL,
       "Time one turn of the event loop took, waiting excluded")
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
       "down,incoming_full,malformed,stale_sender,schema,held_full",
       "Bus messages refused: not connected, loop too far behind, undecodable, from a process that is not in the view, "
       "of a schema version this build cannot read, or too many that wait for a newer view")
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

/* View */
METRIC(M_VIEW_GENERATION, TIER_BOTH, METRIC_GAUGE, "signalbox_view_generation", NULL, NULL,
       "Generation of the newest view known")
METRIC(M_VIEW_SEQ, TIER_BOTH, METRIC_GAUGE, "signalbox_view_sequence", NULL, NULL,
       "Sequence of the newest view known")
METRIC(M_VIEW_SHARDS, TIER_BOTH, METRIC_GAUGE, "signalbox_view_shards", NULL, NULL, "Shards in the newest view known")
METRIC(M_VIEW_GATEWAYS, TIER_BOTH, METRIC_GAUGE, "signalbox_view_gateways", NULL, NULL,
       "Gateways in the newest view known")
METRIC(M_VIEW_APPENDS, TIER_BOTH, METRIC_COUNTER, "signalbox_view_appends_total", "outcome",
       "ok,conflict,unknown,failed", "Entries that this process tried to append to the view log")
