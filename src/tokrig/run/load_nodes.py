"""Load from several machines: nodes of a Ray cluster, each with a measuring client of its own.

A *load node* has the custom resource ``load``. Each sends its share of a source as if it were
alone, and what comes back merges into one loop (``tokrig.run.shares``): what a request took is by
the clock of the node that sent it, never by two. Only where requests stand among each other, which
the system rate and the concurrency reached are made of, needs one clock for all: each node's is
held against that of this process, as NTP does, by the quickest of some questions, before and after.
How far they may be off is told.

A node that is lost under way ends the phase: what is left of it was of another concurrency than
was asked. Those that are left are asked anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from tokrig import cluster
from tokrig.errors import EngineDied, InputError, PutOff, RequestError
from tokrig.record.loads import LoadNodes
from tokrig.run.client import Closed, Indexed, Loop, Source, Tick, resolve, send
from tokrig.run.http import HINTS, Endpoint
from tokrig.run.monitor import Reader
from tokrig.run.shares import RESERVE, Reserve, Share, merge, split
from tokrig.stamps import now_ns

RESOURCE = "load"
LOST = "load_node_lost"
RAN_DRY = "nothing to send for a moment: more of it came too late"
# A client imports what it needs when it starts.
START_S = 60.0
ASK_S = 20.0
# Questions about the time; the quickest answer has the least to hide.
QUESTIONS = 15
# From the order to begin until all begin: longer than it takes to reach the last.
LEAD_S = 0.3
POLL_S = 0.5
FETCH_S = 120.0
REACH_S = 5.0
STOP_S = 5.0


# On the node


class Client:
    """The measuring client of a node: a Ray actor, asked by several threads."""

    def __init__(self) -> None:
        self.share: Share | None = None
        self.seen = 0, 0
        self.stopped = False

    def about(self) -> tuple[str, int]:
        """Which machine this is, and this process on it."""
        return machine(), os.getpid()

    def unreachable(self, endpoint: Endpoint) -> str | None:
        """Why no connection comes about; None where one does."""
        try:
            family, target = resolve(endpoint)
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(REACH_S)
                sock.connect(target)
        except OSError as problem:
            return problem.strerror or str(problem)
        return None

    def clock_ns(self) -> int:
        """This process's clock now."""
        return now_ns()

    def take(self, share: Share) -> None:
        """What is to be sent next."""
        self.share, self.seen, self.stopped = share, (0, 0), False

    def send(self, endpoint: Endpoint, path: str, silence_s: float, at_ns: int) -> Loop | str:
        """Send it at that time of this process's clock; what came of it, or why nothing did."""
        assert self.share is not None
        reader, here = Reader(), (os.getpid(), threading.get_native_id())
        before = reader.thread(*here)
        source = self.share.source
        try:
            loop = send(endpoint, path, source, silence_s=silence_s, tick=self._tick, at_ns=at_ns)
        except OSError as problem:
            return str(problem)
        after = reader.thread(*here)
        if isinstance(source, Reserve) and source.ran_dry:
            return RAN_DRY
        if before and after and loop.wall_s > 0:
            waited = round(after.waited_s(before) / loop.wall_s, 5)
            loop = replace(loop, client_wait_share=waited)
        return loop

    def _tick(self, ended: int, reads: int) -> None:
        self.seen = ended, reads
        if self.stopped:
            raise InterruptedError("stopped")

    def progress(self) -> tuple[int, int, int]:
        """Requests that have ended, reads, and how many more requests a reserve takes."""
        assert self.share is not None
        source = self.share.source
        room = RESERVE * source.workers - len(source.left) if isinstance(source, Reserve) else 0
        return *self.seen, room

    def hand(self, requests: Sequence[Indexed]) -> None:
        """More to send, for a reserve."""
        assert self.share is not None
        assert isinstance(self.share.source, Reserve)
        self.share.source.left.extend(requests)

    def stop(self) -> None:
        """Close all connections."""
        self.stopped = True


def machine() -> str:
    """What sets this machine's loopback and its process ids apart from others'."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return " ".join([boot, *(os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid"))])
    except OSError:
        return str(uuid.getnode())


# Where the run is


@dataclass(frozen=True)
class Node:
    """A load node by Ray's id and by its address, its client there, on which machine and as which
    process."""

    id: str
    name: str
    client: Any
    machine: str
    pid: int


@dataclass(frozen=True)
class Clock:
    """A node's clock − this process's, and by how much that may be off."""

    offset_ns: int
    off_ns: int

    def and_then(self, later: Clock) -> Clock:
        """Their mean, for the time between the two: clocks drift."""
        apart = abs(later.offset_ns - self.offset_ns)
        between = (self.offset_ns + later.offset_ns) // 2
        return Clock(between, max(self.off_ns, later.off_ns) + apart // 2)


class _LostError(Exception):
    """A node does not answer any more."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


@dataclass
class Nodes:
    """The load nodes of a run; ``lost`` of them are gone. ``note`` hears what befalls them."""

    ray: ModuleType
    nodes: list[Node]
    lost: int = 0
    note: Callable[[str], None] = field(default=lambda text: None)

    def told(self) -> str:
        """Who sends."""
        many = len(self.nodes)
        lost = f"; lost before the run began: {self.lost}" if self.lost else ""
        return f"sent from {many} load node{'s' if many > 1 else ''}{lost}"

    def here(self) -> list[psutil.Process]:
        """The clients on this machine: what they use of it is the client's own."""
        found, mine = [], machine()
        for node in self.nodes:
            with contextlib.suppress(psutil.Error):
                found += [psutil.Process(node.pid)] if node.machine == mine else []
        return found

    def require_reach(self, endpoint: Endpoint) -> None:
        """Raises InputError where a node would not reach the server, or another one by the same
        address. One that is lost meanwhile is left out."""
        for node in list(self.nodes):
            try:
                why = (
                    "there that address is the node itself"
                    if endpoint.is_loopback and node.machine != machine()
                    else self._answer(node, node.client.unreachable.remote(endpoint))
                )
            except _LostError:
                self._leave_out(node)
                continue
            if why:
                raise InputError(
                    f"load node {node.name} cannot reach the server at"
                    f" {endpoint.host_header}: {why}",
                    hint="give the address that the server has in the nodes' network, and let it"
                    " listen there (--host 0.0.0.0)"
                    if endpoint.is_loopback
                    else "see that the server listens there, and that no firewall is in between",
                )

    def send(
        self,
        endpoint: Endpoint,
        path: str,
        source: Source,
        *,
        silence_s: float,
        tick: Tick = lambda ended, reads: None,
    ) -> Loop:
        """As ``client.send``, from the nodes.

        Raises RequestError (``load_node_lost``) when one is lost under way, PutOff when none is
        left, EngineDied when a node finds no way to the server.
        """
        before = self._clocks()
        used = list(zip(self.nodes, split(source, len(self.nodes)), strict=False))
        running: dict[Any, Node] = {}
        try:
            for node, taken in [(node, node.client.take.remote(share)) for node, share in used]:
                self._answer(node, taken)
            at_ns = now_ns() + round(LEAD_S * 1e9)
            for node, _ in used:
                begin_ns = at_ns + before[node.id].offset_ns
                running[node.client.send.remote(endpoint, path, silence_s, begin_ns)] = node
            more = source.bodies if isinstance(source, Closed) else iter(())
            found = self._watched(running, tick, more)
            clocks = [before[node.id].and_then(self._clock(node)) for node, _ in used]
        except _LostError as lost:
            self._stop(running)
            self._drop(lost.node)
            left = len(self.nodes)
            raise RequestError(
                f"load node {lost.node.name} was lost, and what was sent meanwhile does not count;"
                f" {left} {'is' if left == 1 else 'are'} left",
                code=LOST,
            ) from None
        except BaseException:
            self._stop(running)
            raise
        loops = [_loop(found[node.id], endpoint) for node, _ in used]
        parts = [
            replace(loop, start_ns=loop.start_ns - clock.offset_ns)
            for loop, clock in zip(loops, clocks, strict=True)
        ]
        merged = merge(parts, [share.first_worker for _, share in used])
        return replace(merged, load_nodes=self._told(parts, clocks))

    def _told(self, parts: Sequence[Loop], clocks: Sequence[Clock]) -> LoadNodes:
        """What the record says of the nodes that sent ``parts``."""
        if len(parts) == 1:
            return LoadNodes(nodes=1, lost=self.lost)
        starts = [part.start_ns for part in parts]
        furthest = sorted(clock.off_ns for clock in clocks)[-2:]
        return LoadNodes(
            nodes=len(parts),
            lost=self.lost,
            start_skew_s=round((max(starts) - min(starts)) / 1e9, 6),
            clock_uncertainty_s=round(sum(furthest) / 1e9, 6),
        )

    def _watched(
        self, running: Mapping[Any, Node], tick: Tick, more: Iterator[Indexed]
    ) -> dict[str, Any]:
        """What came of each node's share, by the node's id. ``more`` fills its reserve."""
        waiting, found = dict(running), dict[str, Any]()
        seen = {node.id: (0, 0, 0) for node in running.values()}
        asked: dict[str, tuple[Any, float]] = {}
        while waiting:
            done, _ = self.ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for one in done:
                node = waiting.pop(one)
                found[node.id] = self._answer(node, one, FETCH_S)
            alive = {one["NodeID"] for one in self.ray.nodes() if one["Alive"]}
            for node in waiting.values():
                question, since = asked.pop(node.id, (None, time.monotonic()))
                if question is None:
                    question = node.client.progress.remote()
                elif self.ray.wait([question], timeout=0)[0]:
                    seen[node.id] = self._answer(node, question)
                    if handed := list(islice(more, max(0, seen[node.id][2]))):
                        node.client.hand.remote(handed)
                    question, since = node.client.progress.remote(), time.monotonic()
                if node.id not in alive or time.monotonic() - since > ASK_S:
                    raise _LostError(node)
                asked[node.id] = question, since
            tick(*(sum(one[place] for one in seen.values()) for place in (0, 1)))
        return found

    def _clocks(self) -> dict[str, Clock]:
        """Of all nodes that are left, by id; raises PutOff when none is."""
        found = {}
        for node in list(self.nodes):
            try:
                found[node.id] = self._clock(node)
            except _LostError:
                self._drop(node)
                self.note(f"load node {node.name} was lost; {len(self.nodes)} are left")
        return found

    def _clock(self, node: Node) -> Clock:
        best: Clock | None = None
        for _ in range(QUESTIONS):
            asked_ns = now_ns()
            there_ns = self._answer(node, node.client.clock_ns.remote())
            half_ns = (now_ns() - asked_ns) // 2
            if best is None or half_ns < best.off_ns:
                best = Clock(there_ns - asked_ns - half_ns, half_ns)
        assert best is not None
        return best

    def _answer(self, node: Node, asked: Any, within_s: float = ASK_S) -> Any:
        """What a node's client returned; raises _LostError where it does not answer."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(asked, timeout=within_s)
        except errors.RayTaskError:
            raise  # nobody foresaw it
        except errors.RayError:
            raise _LostError(node) from None

    def _stop(self, running: Mapping[Any, Node]) -> None:
        """Have what is still sent broken off: nobody waits for it."""
        for node in running.values():
            node.client.stop.remote()
        if running:
            self.ray.wait(list(running), num_returns=len(running), timeout=STOP_S)

    def _leave_out(self, node: Node) -> None:
        self.ray.kill(node.client)
        self.nodes.remove(node)
        self.lost += 1

    def _drop(self, node: Node) -> None:
        self._leave_out(node)
        if not self.nodes:
            raise PutOff(
                f"load node {node.name} was lost, the last of {self.lost}",
                hint="start Ray on them again (docs/load-nodes.md), then go on with"
                " tokrig run --resume",
                code=LOST,
            )


def _loop(found: Loop | str, endpoint: Endpoint) -> Loop:
    """What a node sent. Raises what its words mean."""
    if isinstance(found, Loop):
        return found
    if found == RAN_DRY:
        raise RequestError(f"a load node had {found}", hint="see what else the head does")
    raise EngineDied(
        f"a load node has no connection to {endpoint.host_header}: {found}",
        hint=HINTS["no_answer"],
        code="no_answer",
    )


def _gone(name: str, why: str) -> InputError:
    return InputError(
        f"load node {name} was lost before it began: {why}", hint="see Ray's logs on it"
    )


@contextlib.contextmanager
def joined(address: str, count: int | None, endpoint: Endpoint) -> Iterator[Nodes]:
    """``count`` load nodes of the cluster at ``address``, all where that is None, each with a
    client that reaches the server at ``endpoint``.

    Raises InputError for fewer nodes than asked, for one of another version, one that is in use
    and one that does not reach the server, and what ``cluster.joined`` raises.
    """
    nodes = Nodes(ray := cluster.joined(address, "load nodes"), [])
    with contextlib.ExitStack() as held:
        held.enter_context(cluster.unheard())
        held.callback(ray.shutdown)
        there = sorted(
            (one["NodeManagerAddress"], one["NodeID"])
            for one in ray.nodes()
            if one["Alive"] and one["Resources"].get(RESOURCE)
        )
        for name, node in there:
            # One that has died is listed for a while.
            if len(nodes.nodes) != count and (begun := _begun(ray, name, node)):
                nodes.nodes.append(begun)
        nodes.require_reach(endpoint)
        if (found := len(nodes.nodes)) < (count or 1):
            has = f"has {found} load nodes" if found else "has no load node"
            raise InputError(
                f"the cluster at {address} {has}" + (f", {count} are asked for" if count else ""),
                hint="a load node is started with ray start --address=… --resources="
                f"'{{\"{RESOURCE}\": 1}}' (docs/load-nodes.md)",
            )
        yield nodes


def _begun(ray: ModuleType, name: str, node: str) -> Node | None:
    """A node with a client on it, after a look at its versions; None where it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    try:
        asked = ray.remote(cluster.versions()).options(**there, max_retries=0).remote()
        cluster.require_same(f"load node {name}", ray.get(asked, timeout=START_S))
        # The whole resource: a node sends for one run at a time.
        whole = {**there, "resources": {RESOURCE: 1}, "max_concurrency": 4}
        client = ray.remote(Client).options(**whole).remote()
        return Node(node, name, client, *ray.get(client.about.remote(), timeout=START_S))
    except ray.exceptions.GetTimeoutError:
        raise InputError(
            f"load node {name} began nothing within {START_S:g} s",
            hint="another run may use it: see ray status, and wait for that run",
        ) from None
    except ray.exceptions.RayTaskError:
        raise  # nobody foresaw it
    except (
        ray.exceptions.NodeDiedError,
        ray.exceptions.TaskUnschedulableError,
        ray.exceptions.ActorUnschedulableError,
    ):
        return None
    except ray.exceptions.RayError as problem:
        raise _gone(name, str(problem).partition("\n")[0]) from None
