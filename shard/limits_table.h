/* The shard's limits: LIMIT(name, default, min, max, unit, help), members of struct shard_limits and keys under
 * `limits.`. Included by shard.c and main.c; no include guard on purpose. */
LIMIT(rooms, 100000, 1, 10000000, "rooms", "Rooms that this shard owns at most; new ones are refused beyond.")
LIMIT(participants, 200000, 1, 10000000, "participants", "Participants in all of its rooms at most.")
LIMIT(queue_depth, 200000, 100, 100000000, "items",
      "Events and messages that wait to be sent, over all rooms; beyond, this shard takes no new rooms.")
LIMIT(loop_lag_ms, 250, 10, 60000, "ms",
      "How late this process's timers run on average; beyond, this shard takes no new rooms.")
LIMIT(room_participants, 10000, 1, 100000, "participants", "Participants in one room at most.")
LIMIT(ring_entries, 256, 1, 65536, "batches",
      "Batches of events kept for each room, for those who missed some; who missed more gets a snapshot.")
LIMIT(ring_bytes, 262144, 4096, 524288, "bytes", "Bytes of events kept for each room; a replay must fit a bus message.")
LIMIT(ring_age_ms, 60000, 1000, 600000, "ms", "How long events are kept.")
LIMIT(batch_ms, 5, 1, 1000, "ms",
      "A quiet room publishes at once, then at most so often; what happens meanwhile goes out together.")
LIMIT(batch_max_ms, 20, 1, 1000, "ms", "A busy room's time between two publications grows up to this.")
LIMIT(room_joins_per_s, 500, 0, 1000000, "joins",
      "Joins that one room takes for long; further ones wait. 0: unlimited.")
LIMIT(room_negotiations_per_s, 2000, 0, 1000000, "messages",
      "Offers, answers and directed application messages in one room for long; more is throttled. 0: unlimited.")
LIMIT(room_candidates_per_s, 5000, 0, 1000000, "messages", "The same for ICE candidates.")
LIMIT(room_messages_per_s, 500, 0, 1000000, "messages",
      "The same for reliable messages to the room and for changes of participants (tracks, mute, metadata).")
LIMIT(room_signals_per_s, 5000, 0, 1000000, "signals", "The same for ephemeral signals; what is more is dropped.")
LIMIT(room_bytes_per_s, 4194304, 0, 1073741824, "bytes", "All of these together, as they come in. 0: unlimited.")
LIMIT(room_delivery_bytes_per_s, 33554432, 0, 1073741824, "bytes",
      "Bytes times participants that one room's messages and signals make the gateways send for long. Beyond, signals "
      "wait for each other (the latest of each sender and key is sent) and messages are throttled. 0: unlimited.")
LIMIT(room_burst_s, 5, 1, 60, "s", "A room may use what it has saved of so many seconds at once.")
LIMIT(room_delay_ms, 200, 5, 5000, "ms", "Signals of a room that is over its budget wait for at most so long.")
LIMIT(snapshot_page_bytes, 40960, 4096, 49152, "bytes", "Size of a roster's pages; one must fit a client's frame.")
LIMIT(snapshot_ttl_ms, 30000, 1000, 600000, "ms",
      "A roster whose next page is not asked for is forgotten after this time.")
LIMIT(departure_ms, 60000, 1000, 86400000, "ms",
      "Who has left is remembered for so long beyond the resume window, so that no resume token brings them back.")
LIMIT(departures, 200000, 1, 10000000, "departures",
      "Remembered at most, over all rooms; the oldest are forgotten first. Each takes about 166 bytes: 33 MB in all by "
      "default.")
LIMIT(handoff_rooms, 32, 1, 10000, "rooms", "Rooms that are handed to one shard at a time.")
LIMIT(handoff_bytes, 4194304, 262144, 67108864, "bytes",
      "Bytes of rooms that are handed to one shard at a time; a room that is larger goes alone.")
LIMIT(arrival_bytes, 67108864, 1048576, 1073741824, "bytes",
      "Bytes of rooms that are on their way here, not whole yet; more must wait.")
LIMIT(waiting_commands, 20000, 100, 1000000, "commands",
      "Joins and other states of sessions that wait for rooms that are on their way here; more are refused with RETRY.")
LIMIT(waiting_ms, 5000, 100, 60000, "ms", "They wait for so long; then they are refused with RETRY.")
