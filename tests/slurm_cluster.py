"""A SLURM cluster of two nodes on this machine, with all it needs in one folder: nothing of the machine is changed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo")
# A requeued job waits until its old credentials are no longer valid, two minutes unless cred_expire says otherwise.
CONF = """\
ClusterName=zoo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_after}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,bf_interval=5
ReturnToService=2
KillWait=10
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a SLURM cluster of its own needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else None


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Cluster:
    """The cluster; its jobs run in the folder they were sent from.

    Args:
        folder: for configuration, state and logs; short, since a socket's path may have no more than 107 characters.
        requeue_after: seconds that a requeued job waits.
    """

    def __init__(self, folder: Path, requeue_after: int = 5) -> None:
        self.folder, self.requeue_after = folder, requeue_after
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_"))}
        self.environment = {**plain, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons, and wait until both nodes are idle.

        Raises:
            RuntimeError: they are not within a minute.
        """
        host = socket.gethostname().partition(".")[0]
        conf = CONF.format(host=host, folder=self.folder, ports=_free_ports(3), requeue_after=self.requeue_after)
        first = 1000 + 10 * os.getpid() % 8000  # the ports of torch follow from the numbers of jobs
        (self.folder / "slurm.conf").write_text(f"{conf}FirstJobId={first}\n")
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.call("munged", "--force", *(f"--{option}={self.folder}/munge.{end}" for option, end in names.items()))
        self.call("slurmctld")
        for node in ("node1", "node2"):
            self.call("slurmd", "-N", node)
        until = time.monotonic() + 60
        while self.call("sinfo", "-h", "-t", "idle", "-o", "%D").strip() != "2":
            if time.monotonic() > until:
                raise RuntimeError(f"the nodes are not idle:\n{self.call('sinfo', '-lN')}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End what is left of the jobs, and the daemons that were started here."""
        with suppress(RuntimeError):  # it may not have started
            self.call("scancel", "--user=root", "--signal=KILL", "--full")
            self.call("scancel", "--user=root")
        for name in ("slurmd-node1", "slurmd-node2", "slurmctld", "munge"):
            file = self.folder / f"{name}.pid"
            if file.is_file() and file.read_text().strip().isdigit():
                os.kill(int(file.read_text()), signal.SIGTERM)

    def call(self, *words: str) -> str:
        """What a command of the cluster prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def submit(self, script: str, *words: str) -> str:
        """Send a batch script, and the words behind it; the job's number."""
        path = Path.cwd() / "job.sh"
        path.write_text(script)
        return self.call("sbatch", "--parsable", str(path), *words).strip()

    def field(self, job: str, name: str) -> str:
        """One of the values that ``scontrol show job`` tells, such as ``JobState``."""
        found = re.search(rf"\b{name}=(\S+)", self.call("scontrol", "-o", "show", "job", job))
        assert found is not None, name
        return found[1]

    def wait(self, job: str, seconds: float = 600) -> str:
        """The state in which a job ends."""
        until = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING"):
            if time.monotonic() > until:
                return f"{state} after {seconds} s"
            time.sleep(0.3)
        return state


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
