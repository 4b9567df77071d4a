"""What happens to a topology, each with a beginning and an end (as `tests.soak.faults`). A scene is `play.Scene`."""

from typing import Any

from tests.soak.faults import Fault
from tests.topology.nodes import FAR, SENTINEL, Node, replica


class Outage(Fault):
    """Something that gives the fleet another master."""

    area = "redis"
    lasts = (3.0, 3.0)

    def before(self, scene: Any) -> tuple[Any, Node]:
        """Note who is the master, and give it."""
        old: Node = scene.topology.master()
        scene.old = old
        return scene.topology, old

    def until_another(self, scene: Any) -> None:
        """Wait until the Sentinels name another master."""

        def another() -> bool:
            try:
                return scene.topology.master() is not scene.old
            except LookupError:
                return False

        scene.until(another, "no other master")
        scene.named_at = scene.now()


class Killed(Outage):
    name, what = "killed", "the master is killed (SIGKILL), and started again, empty, when another has taken over"

    def begin(self, scene: Any) -> None:
        _, old = self.before(scene)
        old.server.kill()
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        assert scene.old is not None
        scene.old.server.restart()
        scene.until_whole()


class Partitioned(Outage):
    name = "partitioned"
    what = "the master is cut off from Sentinels, replicas and every other client, and goes on beside the rest of them"
    lasts = (5.0, 5.0)

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        others = [replica(number) for number, node in enumerate(place.nodes) if node is not old]
        scene.hits(place.cut(old, SENTINEL, FAR, *others))
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        place = scene.topology
        for node in place.nodes:
            place.cut(node)
        scene.until_whole()


class PartitionedWithReplica(Partitioned):
    name = "partitioned_with_replica"
    what = "the same, and one of both replicas is on the master's side: it still counts for min-replicas-to-write"

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        with_it, other = (number for number, node in enumerate(place.nodes) if node is not old)
        scene.hits(place.cut(old, SENTINEL, FAR, replica(other)))
        place.cut(place.nodes[with_it], SENTINEL, FAR, replica(other))
        self.until_another(scene)


class FailedBack(Outage):
    """By order: the first node, which has a better priority, is master again."""

    name, what = "failed_back", "SENTINEL FAILOVER back to the first node, while every server is well"
    how: tuple[str, ...] = ()

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        if old is place.nodes[0]:  # nothing happened before: the way there is the same as the way back
            place.nodes[0].ask("CONFIG", "SET", "replica-priority", 100)
        place.fail_over(*self.how)
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        scene.until_whole()
        scene.topology.nodes[0].ask("CONFIG", "SET", "replica-priority", 10)


class HandedBack(FailedBack):
    name, how = "handed_back", ("COORDINATED",)
    what = "SENTINEL FAILOVER … COORDINATED (Valkey 9): the master stops writes and hands over by itself"

    def lacks(self, scene: Any) -> str | None:
        said = scene.topology.sentinels[0].ask("SENTINEL", "HELP")
        return None if any(b"COORDINATED" in line for line in said) else "this server's Sentinel cannot"


#: By name.
OF_SENTINELS: dict[str, Fault] = {
    fault.name: fault for fault in (Killed(), FailedBack(), Partitioned(), HandedBack(), PartitionedWithReplica())
}


# --- of a Cluster -----------------------------------------------------------------------------------------------------


class MasterKilled(Killed):
    what = "the master of the slot is killed (SIGKILL), and started again when its replica serves it"


class FailedOver(Outage):
    name, what = "failed_over", "CLUSTER FAILOVER: the replica of the slot's master takes over by agreement"

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        place.replica_of(old).ask("CLUSTER", "FAILOVER")
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        scene.until_whole()


class SlotMoved(Outage):
    name = "slot_moved"
    what = "the slot is migrated key by key, held open half way (CLUSTER SETSLOT, MIGRATE)"

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        scene.target = place.another_master(old)
        place.begin_migration(old, scene.target)
        scene.hits(place.move_keys(old, scene.target, 1))

    def end(self, scene: Any) -> None:
        place = scene.topology
        while moved := place.move_keys(scene.old, scene.target):
            scene.hits(moved)
        place.end_migration(scene.old, scene.target)
        self.until_another(scene)
        scene.until_whole()


class SlotMovedAtOnce(Outage):
    name = "slot_moved_at_once"
    what = "the slot is migrated by the servers themselves (CLUSTER MIGRATESLOTS, Valkey 9)"

    def lacks(self, scene: Any) -> str | None:
        said = scene.topology.nodes[0].ask("CLUSTER", "HELP")
        return None if any(line.startswith(b"MIGRATESLOTS") for line in said) else "this server cannot"

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        place.migrate_at_once(old, place.another_master(old))
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        scene.until_whole()


class CutOff(Outage):
    name = "partitioned"
    what = "the slot's master is cut off from every node and from every other client, and goes on beside the rest"
    lasts = (5.0, 5.0)

    def begin(self, scene: Any) -> None:
        place, old = self.before(scene)
        scene.hits(place.cut_off(old))
        self.until_another(scene)

    def end(self, scene: Any) -> None:
        scene.topology.join_again()
        scene.until_whole()


#: By name.
OF_CLUSTERS: dict[str, Fault] = {
    fault.name: fault for fault in (SlotMoved(), SlotMovedAtOnce(), FailedOver(), MasterKilled(), CutOff())
}
