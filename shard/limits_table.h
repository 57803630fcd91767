/* The shard's limits: LIMIT(name, default, min, max, unit, help), members of struct shard_limits and keys under
 * `limits.`. Included by shard.c and main.c; no include guard on purpose. */
LIMIT(rooms, 100000, 1, 10000000, "rooms", "Rooms that this shard owns at most; new ones are refused beyond.")
LIMIT(participants, 200000, 1, 10000000, "participants", "Participants in all of its rooms at most.")
LIMIT(room_participants, 10000, 1, 100000, "participants", "Participants in one room at most.")
LIMIT(ring_entries, 256, 1, 65536, "batches",
      "Batches of events kept for each room, for those who missed some; who missed more gets a snapshot.")
LIMIT(ring_bytes, 262144, 4096, 524288, "bytes", "Bytes of events kept for each room; a replay must fit a bus message.")
LIMIT(ring_age_ms, 60000, 1000, 600000, "ms", "How long events are kept.")
LIMIT(batch_ms, 5, 1, 1000, "ms", "A room publishes at most so often; what happens meanwhile goes out together.")
LIMIT(snapshot_page_bytes, 40960, 4096, 49152, "bytes", "Size of a roster's pages; one must fit a client's frame.")
LIMIT(snapshot_ttl_ms, 30000, 1000, 600000, "ms",
      "A roster whose next page is not asked for is forgotten after this time.")
LIMIT(departure_ms, 60000, 1000, 86400000, "ms",
      "Who has left is remembered for so long beyond the resume window, so that no resume token brings them back.")
LIMIT(departures, 200000, 1, 10000000, "departures",
      "Remembered at most, over all rooms; the oldest are forgotten first. Each takes about 150 bytes: 30 MB in all by "
      "default.")
