/* The gateway's limits on one client: LIMIT(name, default, min, max, unit, help), members of struct gateway_limits and
 * keys under `limits.`. Included by gateway.c, process.c and main.c; no include guard on purpose. */
LIMIT(message_bytes, 65536, 4096, 1048576, "bytes", "One WebSocket message of a client.")
LIMIT(metadata_bytes, 4096, 0, 32768, "bytes", "A participant's metadata.")
LIMIT(attributes, 32, 0, 256, "pairs", "A participant's attributes.")
LIMIT(tracks, 16, 0, 256, "tracks", "Tracks that one participant publishes.")
LIMIT(send_bytes, 16384, 64, 65536, "bytes", "Data of one application message.")
LIMIT(ack_delay_ms, 50, 0, 1000, "ms", "Clients acknowledge directed messages within this time.")
LIMIT(retransmit_ms, 1000, 100, 60000, "ms", "Clients send again what was not acknowledged for so long; doubles.")
LIMIT(ping_interval_ms, 20000, 1000, 600000, "ms", "Clients send a ping after so long a silence of the server.")
LIMIT(resume_window_ms, 30000, 3000, 3600000, "ms",
      "A session whose connection was lost can be resumed for so long; a token's resumeWindow overrides it.")
LIMIT(hello_timeout_ms, 10000, 500, 60000, "ms", "A new connection must say hello within this time.")
LIMIT(retry_base_ms, 500, 50, 60000, "ms", "Clients' first wait before they connect again, doubling, with full jitter.")
LIMIT(retry_max_ms, 15000, 1000, 600000, "ms", "Clients' longest wait before they connect again.")
LIMIT(join_timeout_ms, 10000, 1000, 60000, "ms", "A join that no shard answers is given up after this time.")
LIMIT(orphaned_sessions, 50000, 100, 10000000, "sessions",
      "Sessions kept after their connections were lost, until their owners know; the oldest give way.")
LIMIT(messages_per_s, 200, 1, 1000000, "messages",
      "What one client may send for long, signals aside; more is throttled.")
LIMIT(messages_burst, 1000, 1, 1000000, "messages", "What one client may send at once.")
LIMIT(signals_per_s, 200, 1, 1000000, "signals",
      "Ephemeral signals that one client may send for long; more is dropped. What it signals costs it no messages.")
LIMIT(signals_burst, 400, 1, 1000000, "signals", "What one client may signal at once.")
LIMIT(bytes_per_s, 524288, 1024, 1073741824, "bytes", "What one client may send for long; more is throttled.")
LIMIT(bytes_burst, 2097152, 65536, 1073741824, "bytes", "What one client may send at once.")
LIMIT(abuse_strikes, 500, 10, 1000000, "strikes",
      "Refusals by a budget (1 each) and malformed messages (20 each) before a client is closed; one is forgiven a "
      "second.")
