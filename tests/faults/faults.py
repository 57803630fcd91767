"""What can befall a cluster, one entry each: how it is done, how it is mended, what it may cost at most, and what shows that
it has really happened.

Every fault acts on a process of its kind of its own, so that two of them can happen at once. Aiming, starting and mending are
apart: all aim before one starts, and mending brings back what is missing, whoever took it away."""
import collections
import signal

from fleet import ODD_SEATS, ODD_SEATS_MOVED, present
from measure import owners_at

# `bound_s`: until 99 of 100 of the people it affects are whole again, counted from its beginning; FROM_END: from its end, where
# nothing can be whole before that; INTERRUPTION: the longest single interruption of each, where one follows another.
# `quiet`: no client may see a disconnect. `rank`: what others need is mended first. `harmless`: it may be that nobody notices.
# `aim(fleet, n, nth)` chooses the victim, the `nth` of its kind, and returns what is to be proven afterwards.
FROM_BEGIN, FROM_END, INTERRUPTION = range(3)
Fault = collections.namedtuple("Fault", "name what lasts_s bound_s since quiet rank harmless aim start mend")


# --- Aims, and the proof that a fault has bitten: a function of (run, recovery, fleet, begin_us, end_us) that returns
# [(name, value, unit, op, bar)].

def aim_at_gateway(fleet, n, nth):
    name = fleet.victims["gateway", n] = fleet.gateway_names[nth]
    clients = fleet.metrics_of(name).get("active_websocket_connections", 0)
    return lambda run, recovery, *_: [(f"clients_of_{name}", clients, "count", ">=", 1),
                                      (f"disconnects_for_{name}", recovery.disconnects, "count", ">=", clients)]


def aim_at_shard(fleet, n, nth):
    name = fleet.victims["shard", n] = fleet.shards_in_company()[nth]
    incarnation = fleet.incarnations()[name]

    def proof(run, recovery, fleet, begin_us, end_us):
        before, after = owners_at(run, begin_us), owners_at(run, end_us)
        rooms = [room for room, owner in before.items() if owner == incarnation]
        return [(f"rooms_of_{name}", len(rooms), "count", ">=", 1),
                (f"rooms_that_stayed_on_{name}", sum(after[room] == incarnation for room in rooms), "count", "==", 0)]
    return proof


def aim_at_shard_to_stop(fleet, n, nth):
    moved = aim_at_shard(fleet, n, nth)

    def proof(run, recovery, fleet, *times):
        # Without NATS nobody can remove it, and it goes on with its rooms.
        return moved(run, recovery, fleet, *times)[:1 if loses_nats(fleet) else 2]
    return proof


def aim_at_bus(choose, wanted=1):
    """`choose(fleet, n, nth)`; `wanted`: that so many processes lose their connection to NATS."""
    def aim(fleet, n, nth):
        choose(fleet, n, nth)
        before = fleet.bus_losses()

        def proof(run, recovery, fleet, *_):
            there = {process: count for process, count in fleet.bus_losses().items() if process in before}
            lost = sum(count > before[process] for process, count in there.items())
            # Of those that another fault has killed nobody can tell.
            return [("processes_that_lost_the_bus", lost, "count", ">=", min(wanted, len(there)))]
        return proof
    return aim


def choose_nats(fleet, n, nth):
    fleet.victims["nats", n] = fleet.nats_by_use()[nth]


def choose_leader(fleet, n, nth):
    """With a shard on it, which then must wait for another leader before it may act again."""
    fleet.victims["nats-leader", n] = fleet.move_log_leader(lambda leader: fleet.shards_on(leader) > 0)


def choose_all_nats(fleet, n, nth):
    fleet.victims["all of nats", n] = fleet.nats_names


def loses_nats(fleet):
    return any(kind == "all of nats" for kind, _ in fleet.victims)


def aim_at_clients(fleet, n, nth):
    """Half of them: those of odd seats."""
    fleet.packets_dropped = 0
    clients = fleet.connections() // 2
    return lambda run, recovery, fleet, *_: [("packets_dropped", fleet.packets_dropped, "count", ">=", 1),
                                             ("affected_of_the_half", recovery.affected, "clients", ">=", clients)]


def aim_at_everything(fleet, n, nth):
    clients, incarnations = fleet.connections(), set(fleet.incarnations().values())
    return lambda run, recovery, fleet, *_: [
        ("disconnects_of_everybody", recovery.disconnects, "count", ">=", clients),
        ("shards_that_stayed", len(incarnations & set(fleet.incarnations().values())), "count", "==", 0)]


# --- Starting and mending

def kill(kind):
    def start(fleet, swarm, n):
        fleet.kill_all(*present(fleet, fleet.victims[kind, n]))
    return start


def launch(kind):
    def mend(fleet, swarm, n):
        name = fleet.victims[kind, n]
        if name not in fleet.processes:
            fleet.launch(name)
    return mend


def send(kind, number):
    def start(fleet, swarm, n):
        signal_present(fleet, fleet.victims[kind, n], number)
    return start


def resume(kind):
    def mend(fleet, swarm, n):
        signal_present(fleet, fleet.victims[kind, n], signal.SIGCONT)
    return mend


def end_and_launch(kind):
    """Waits for the good end of what was told to end."""
    def mend(fleet, swarm, n):
        name = fleet.victims[kind, n]
        if name in fleet.processes:
            # A shard that found nobody to take its rooms, and no log to leave by, says so at its deadline.
            fleet.wait_end(name, (0, 1) if kind == "shard" and loses_nats(fleet) else (0,))
        fleet.launch(name)
    return mend


def signal_present(fleet, name, number):
    if name in fleet.processes:
        fleet[name].signal(number)


def restart_nats(fleet, swarm, n):
    name = fleet.victims["nats", n]
    if name in fleet.processes:
        fleet.terminate(name)
    fleet.launch(name)


def kill_all_nats(fleet, swarm, n):
    fleet.kill_all(*present(fleet, *fleet.nats_names))


def launch_all_nats(fleet, swarm, n):
    """NATS is whole again when the view log can be read: it takes its servers about 10 s to elect a leader."""
    for name in fleet.nats_names:
        if name not in fleet.processes:
            fleet.launch(name)
    fleet.view()


def cut_clients(fleet, swarm, n):
    fleet.cut_clients(ODD_SEATS, ODD_SEATS_MOVED)


def mend_clients(fleet, swarm, n):
    fleet.reconnect_clients(ODD_SEATS, ODD_SEATS_MOVED)


def mend_clients_and_tell(fleet, swarm, n):
    mend_clients(fleet, swarm, n)
    swarm.renew()


def change_address(fleet, swarm, n):
    fleet.cut_clients(ODD_SEATS)
    swarm.renew()


def forget_address(fleet, swarm, n):
    fleet.reconnect_clients(ODD_SEATS)


def cut_gateway(fleet, swarm, n):
    fleet.cut_bus(fleet.victims["gateway", n])


def mend_gateway(fleet, swarm, n):
    fleet.reconnect_bus(fleet.victims["gateway", n])


def restart_one_by_one(fleet, swarm, n):
    """As docs/OPERATIONS.md says: a NATS server gives up the log's lead first, and the next waits until the log is whole."""
    for name in fleet.names():
        swarm.mark(f"restart of {name}")
        if name in fleet.nats_names:
            fleet.move_log_leader(lambda leader, name=name: leader != name)
        fleet.terminate(name)
        fleet.launch(name)
        fleet.wait_whole()
        fleet.wait_log()


def kill_everything(fleet, swarm, n):
    fleet.kill_all(*present(fleet, *fleet.names()))


def launch_everything(fleet, swarm, n):
    fleet.restore()


def choose_gateway(fleet, n, nth):
    fleet.victims["gateway", n] = fleet.gateway_names[nth]


aim_at_nats, aim_at_leader = aim_at_bus(choose_nats), aim_at_bus(choose_leader)
# What the bounds are made of: the suite's gateways have clients ask after 2 s of silence and send them elsewhere within 1 s when they
# drain; the others are defaults. 3 s more are for the resumes of some hundred clients at once on a busy machine.
ASK_S, PONG_S, SPREAD_S, BACKOFF_S, BACKOFF_MAX_S, NOT_READY_S, RESUMES_S = 2, 10, 1, 0.5, 15, 2, 3
SINGLE = [
    # A client comes back after its first backoff.
    Fault("gateway_kill", "SIGKILL of a gateway", 4, BACKOFF_S + RESUMES_S, FROM_BEGIN, False, 1, False, aim_at_gateway,
          kill("gateway"), launch("gateway")),
    # A client finds out by its own ping.
    Fault("gateway_stop", "SIGSTOP of a gateway for 16 s", 16, ASK_S + PONG_S + BACKOFF_S + RESUMES_S, FROM_BEGIN, False, 0, False,
          aim_at_gateway, send("gateway", signal.SIGSTOP), resume("gateway")),
    Fault("gateway_drain", "SIGTERM of a gateway", 4, SPREAD_S + RESUMES_S, FROM_BEGIN, False, 2, False, aim_at_gateway,
          send("gateway", signal.SIGTERM), end_and_launch("gateway")),
    # Shards, and the view log without a leader: the design's table of failures.
    Fault("shard_kill", "SIGKILL of a shard", 4, 1.5, FROM_BEGIN, True, 1, False, aim_at_shard, kill("shard"), launch("shard")),
    Fault("shard_stop", "SIGSTOP of a shard for 10 s", 10, 4, FROM_BEGIN, True, 0, False, aim_at_shard_to_stop,
          send("shard", signal.SIGSTOP), resume("shard")),
    # Its rooms move one after another for as long as it lasts; nobody should notice.
    Fault("shard_drain", "SIGTERM of a shard", 4, 1.5, INTERRUPTION, True, 2, True, aim_at_shard, send("shard", signal.SIGTERM),
          end_and_launch("shard")),
    # 1.5 s and the reconnect, of which one attempt takes at most 2 s.
    Fault("nats_kill", "SIGKILL of one NATS server of three", 5, 3.5, FROM_BEGIN, True, 0, False, aim_at_nats, kill("nats"), launch("nats")),
    Fault("nats_leader_kill", "SIGKILL of the NATS server that leads the view log", 12, 10, FROM_BEGIN, True, 0, False,
          aim_at_leader, kill("nats-leader"), launch("nats-leader")),
    Fault("nats_restart", "restart of one NATS server of three", 2, 3.5, FROM_BEGIN, True, 0, True, aim_at_nats, restart_nats, launch("nats")),
    Fault("nats_freeze", "SIGSTOP of one NATS server of three for 5 s", 5, 3.5, FROM_BEGIN, True, 0, False, aim_at_nats,
          send("nats", signal.SIGSTOP), resume("nats")),
    # When the view log can be read shards prove themselves by an append, tried every 0.3 s, and have everybody send again.
    Fault("nats_all", "all NATS servers killed, and back after 5 s", 5, 3, FROM_END, True, 0, False, aim_at_bus(choose_all_nats, 5),
          kill_all_nats, launch_all_nats),
    # The kernels' next attempt comes when as much time has passed again.
    Fault("client_loss_5s", "half of the clients have no network for 5 s", 5, 5, FROM_END, False, 0, False, aim_at_clients,
          cut_clients, mend_clients),
    # At once, but that each has lost its session first, which is another connection.
    Fault("client_loss_60s", "half of the clients have no network for 60 s", 60, BACKOFF_S + RESUMES_S, FROM_END, False, 0, False,
          aim_at_clients, cut_clients, mend_clients_and_tell),
    Fault("client_address", "half of the clients change their address", 3, RESUMES_S, FROM_BEGIN, False, 0, False, aim_at_clients,
          change_address, forget_address),
    # An attempt to connect that has begun in vain (2 s) and the pause after it (2 s); as a new incarnation into the view (1 s).
    Fault("gateway_partition", "a gateway is cut off from the bus for 6 s", 6, 5, FROM_END, True, 0, False,
          aim_at_bus(choose_gateway), cut_gateway, mend_gateway),
]
# They take everything with them, so that nothing could happen beside them.
WHOLE = [
    # No interruption is longer than that of the worst single step, should the view log lose its leader all the same.
    Fault("rolling_restart", "every process restarted in its turn", 0, 10, INTERRUPTION, False, 0, False, aim_at_everything,
          restart_one_by_one, launch_everything),
    # A client that was turned away last just before.
    Fault("everything_killed", "everything killed at once, and started again", 1, NOT_READY_S + BACKOFF_MAX_S + RESUMES_S, FROM_END,
          False, 0, False, aim_at_everything, kill_everything, launch_everything),
]


def pair_bound_s(faults):
    """Both bounds, one after the other; and where no gateway may be left for a while, or none can serve whoever has lost its
    connection because NATS is gone, clients come back at their longest backoff."""
    gateways = sum(fault.name.startswith("gateway") for fault in faults)
    unserved = any(fault.start is kill_all_nats for fault in faults) and not all(fault.quiet for fault in faults)
    return sum(fault.bound_s for fault in faults) + (BACKOFF_MAX_S if gateways == 2 or unserved else 0)


def kind_of(fault):
    """Of two of one kind the second takes another victim."""
    return "leader" if fault.aim is aim_at_leader else fault.name.split("_")[0]
