/* The deliberate faults: FAULT(name, the rule that it breaks). No include guard on purpose. */
FAULT(NO_FENCE, "a shard that does not hear enough of the others suspends itself")
FAULT(FENCE_REOPENS, "a suspended shard acts again only after an append of its own")
FAULT(NO_NOTICE, "whoever is accused hears of it for as long as the fence before it is removed")
FAULT(NO_QUORUM, "a removal needs the concurrence of a quorum")
FAULT(ACCEPT_REMOVED, "messages of processes that are not in the view are refused")
FAULT(ASSUME_APPEND, "an append without an answer is read, never assumed")
