"""What can befall a cluster, one entry each: how it is done, how it is mended, and what it may cost at most.

Every fault acts on the `n`th process of its kind, so that two of them can happen at once. Starting and mending are apart,
and mending brings back what is missing, whoever took it away."""
import collections
import signal

from fleet import ODD_SEATS, ODD_SEATS_MOVED, present

# `bound_s`: until 99 of 100 of the people it affects are whole again, counted from its beginning, or from its end where
# nothing can be whole before that. `quiet`: no client may see a disconnect. `rank`: what others need is mended first.
Fault = collections.namedtuple("Fault", "name what lasts_s bound_s from_end quiet rank start mend", defaults=(0, None, None))


def whole(fleet):
    return len(fleet.processes) == len(fleet.names())


def choose(fleet, kind, n):
    """The `n`th of its kind, in an order that makes the fault one: see Fleet.nats_by_use() and Fleet.shards_in_company()."""
    name = f"{kind}-{n}"
    if kind == "shard" and whole(fleet):
        name = fleet.shards_in_company()[n - 1]
    if kind == "nats" and whole(fleet):
        name = fleet.nats_by_use()[n - 1]
    fleet.victims[kind, n] = name
    return name


def kill(kind):
    def start(fleet, swarm, n):
        fleet.kill_all(*present(fleet, choose(fleet, kind, n)))
    return start


def launch(kind):
    def mend(fleet, swarm, n):
        name = fleet.victims[kind, n]
        if name not in fleet.processes:
            fleet.launch(name)
    return mend


def send(kind, number):
    def start(fleet, swarm, n):
        signal_present(fleet, choose(fleet, kind, n), number)
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
            fleet.wait_end(name)
        fleet.launch(name)
    return mend


def signal_present(fleet, name, number):
    if name in fleet.processes:
        fleet[name].signal(number)


def restart_nats(fleet, swarm, n):
    name = choose(fleet, "nats", n)
    if name in fleet.processes:
        fleet.terminate(name)
    fleet.launch(name)


def kill_leader(fleet, swarm, n):
    name = fleet.log_leader() or fleet.nats_names[0]
    fleet.victims["nats-leader", n] = name
    fleet.kill_all(*present(fleet, name))


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
    fleet.cut_bus(f"gateway-{n}")


def mend_gateway(fleet, swarm, n):
    fleet.reconnect_bus(f"gateway-{n}")


def restart_one_by_one(fleet, swarm, n):
    for name in fleet.names():
        swarm.mark(f"restart of {name}")
        fleet.terminate(name)
        fleet.launch(name)
        fleet.wait_whole()


def kill_everything(fleet, swarm, n):
    fleet.kill_all(*present(fleet, *fleet.names()))


def launch_everything(fleet, swarm, n):
    fleet.restore()


SINGLE = [
    Fault("gateway_kill", "SIGKILL of a gateway", 4, 10, False, False, 1, kill("gateway"), launch("gateway")),
    Fault("gateway_stop", "SIGSTOP of a gateway for 16 s", 16, 30, False, False, 0, send("gateway", signal.SIGSTOP),
          resume("gateway")),
    Fault("gateway_drain", "SIGTERM of a gateway", 4, 10, False, False, 2, send("gateway", signal.SIGTERM),
          end_and_launch("gateway")),
    Fault("shard_kill", "SIGKILL of a shard", 4, 1.5, False, True, 1, kill("shard"), launch("shard")),
    Fault("shard_stop", "SIGSTOP of a shard for 10 s", 10, 4, False, True, 0, send("shard", signal.SIGSTOP),
          resume("shard")),
    Fault("shard_drain", "SIGTERM of a shard", 4, 1.5, True, True, 2, send("shard", signal.SIGTERM), end_and_launch("shard")),
    Fault("nats_kill", "SIGKILL of one NATS server of three", 5, 8, False, True, 0, kill("nats"), launch("nats")),
    Fault("nats_leader_kill", "SIGKILL of the NATS server that leads the view log", 12, 12, False, True, 0, kill_leader,
          launch("nats-leader")),
    Fault("nats_restart", "restart of one NATS server of three", 2, 8, False, True, 0, restart_nats, launch("nats")),
    Fault("nats_freeze", "SIGSTOP of one NATS server of three for 5 s", 5, 8, False, True, 0, send("nats", signal.SIGSTOP),
          resume("nats")),
    Fault("nats_all", "all NATS servers killed, and back after 5 s", 5, 10, True, True, 0, kill_all_nats, launch_all_nats),
    Fault("client_loss_5s", "half of the clients have no network for 5 s", 5, 5, True, False, 0, cut_clients, mend_clients),
    Fault("client_loss_60s", "half of the clients have no network for 60 s", 60, 5, True, False, 0, cut_clients,
          mend_clients_and_tell),
    Fault("client_address", "half of the clients change their address", 3, 3, False, False, 0, change_address, forget_address),
    Fault("gateway_partition", "a gateway is cut off from the bus for 6 s", 6, 15, True, False, 0, cut_gateway, mend_gateway),
]
# They take everything with them, so that nothing could happen beside them.
WHOLE = [
    Fault("rolling_restart", "every process restarted in its turn", 0, 10, True, False, 0, restart_one_by_one, launch_everything),
    Fault("everything_killed", "everything killed at once, and started again", 1, 40, True, False, 0, kill_everything,
          launch_everything),
]
