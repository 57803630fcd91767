/* The deliberate faults: FAULT(name, what the rule is that it breaks). No include guard on purpose. */
FAULT(NO_FENCE, "a shard that does not hear enough of the others suspends itself")
FAULT(NO_NOTICE, "whoever is accused hears of it before it is removed")
FAULT(ACCEPT_REMOVED, "messages of processes that are not in the view are refused")
FAULT(ASSUME_APPEND, "an append without an answer is read, never assumed")
