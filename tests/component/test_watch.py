"""However backends.yaml is edited, its last content goes live: soon, once, and never half of it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

from kube_nginx_agent.intake.backends_file import BackendsFile
from kube_nginx_agent.intake.settle import QUIET_WHILE_OPEN
from support.address import Address
from support.agent_process import LIVE, PYTHON, SECONDS, AgentProcess
from support.process import wait_until

FIRST, SECOND, THIRD = (
    ("127.0.0.1:7001",),
    ("127.0.0.1:7002",),
    ("127.0.0.1:7003", "127.0.0.1:7004"),
)
LONG = [f"127.0.0.1:{7100 + number}" for number in range(8)]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")

Apis = tuple[str, ...]
Edit = Callable[[Path, str], None]


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def rename(path: Path, text: str) -> None:
    beside = path.with_name(".backends.yaml.tmp")
    beside.write_text(text)
    beside.replace(path)


def rename_with_backup(path: Path, text: str) -> None:
    """As vim does with backupcopy=no: the old file gets another name first."""
    path.rename(path.with_name(f"{path.name}~"))
    with path.open("w") as file:
        file.write(text)
        os.fsync(file.fileno())
    path.with_name(f"{path.name}~").unlink()


def overwrite_with_backup(path: Path, text: str) -> None:
    """As vim does with backupcopy=yes: a copy is kept while the file is written over."""
    backup = path.with_name(f"{path.name}~")
    shutil.copy2(path, backup)
    path.write_text(text)
    path.chmod(0o644)
    backup.unlink()


def sed(path: Path, text: str) -> None:
    script = path.with_name("script.sed")
    lines = "\\\n".join(text.splitlines())
    script.write_text(f"1i\\\n{lines}\nd\n")
    subprocess.run(["sed", "-i", "-f", script, path], check=True)


def ansible(path: Path, text: str) -> None:
    """As its atomic_move does: written elsewhere, given its rights, moved in, owned."""
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    written = elsewhere / "tmp"
    written.write_text(text)
    written.chmod(0o644)
    os.rename(written, path)  # noqa: PTH104 - as it does
    os.chown(path, os.geteuid(), os.getegid())


def delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def move_back_in(path: Path, text: str) -> None:
    """The folder itself is moved away, edited, and moved back."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    (away / path.name).write_text(text)
    away.rename(path.parent)


def replace_folder(path: Path, text: str) -> None:
    """A whole new folder comes in the place of the old one."""
    beside = path.parent.with_name("new")
    beside.mkdir()
    (beside / path.name).write_text(text)
    path.parent.rename(path.parent.with_name("old"))
    beside.rename(path.parent)
    shutil.rmtree(path.parent.with_name("old"))


def remake_folder(path: Path, text: str) -> None:
    """The folder is removed and made again, on some file systems with the same inode number."""
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_text(text)


def config_map(path: Path, text: str) -> None:
    """As kubelet does: FILE -> ..data/FILE, ..data -> a folder that is swapped as a whole."""
    folder = path.parent
    number = next(n for n in itertools.count() if not (folder / f"..{n}").exists())
    fresh = folder / f"..{number}"
    fresh.mkdir()
    (fresh / path.name).write_text(text)
    (folder / "..data_tmp").symlink_to(fresh.name)
    (folder / "..data_tmp").replace(folder / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(Path("..data", path.name))
    if number:
        shutil.rmtree(folder / f"..{number - 1}")
        (folder / f"..{number - 1}").mkdir()


def swap_link(path: Path, text: str) -> None:
    """The file is a link to elsewhere, and the link is replaced."""
    elsewhere = path.parent.parent / f"elsewhere{time.monotonic_ns()}"
    elsewhere.mkdir()
    (elsewhere / "list").write_text(text)
    beside = path.with_name("beside")
    beside.symlink_to(elsewhere / "list")
    beside.replace(path)


def behind_link(path: Path, text: str) -> None:
    """The file is a link, and what it leads to is written."""
    target = path.parent.parent / "target.yaml"
    target.write_text(text)
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(target)


EDITS: list[Edit] = [
    in_place,
    rename,
    rename_with_backup,
    overwrite_with_backup,
    sed,
    ansible,
    delete_and_create,
    move_back_in,
    replace_folder,
    remake_folder,
    config_map,
    swap_link,
    behind_link,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_goes_live_however_it_is_made(agent: AgentProcess, apis: Apis, edit: Edit) -> None:
    agent.start(apis[:1])
    for number, backends in enumerate((apis[1:2], apis[2:4], apis[:1]), start=2):
        edit(agent.config, agent.text(backends))
        agent.wait_for_servers(backends)
        agent.wait_for_applies(number)


@pytest.mark.parametrize("edit", [in_place, rename, config_map], ids=lambda edit: edit.__name__)
def test_a_burst_is_applied_a_few_times_at_most(
    agent: AgentProcess, apis: Apis, edit: Edit
) -> None:
    agent.start(apis[:1])
    texts = [f"{agent.text(apis[:1])}proxy: {{idle_timeout: {100 + n}s}}\n" for n in range(1000)]
    began = time.monotonic()
    for number, text in enumerate(texts):
        while time.monotonic() < began + number * 0.002:
            time.sleep(0.0005)
        edit(agent.config, text)
    wait_until(
        lambda: "proxy_timeout 1099s" in (agent.live_text() or ""), SECONDS, "the last one is live"
    )
    assert len(agent.lines(LIVE)) - 1 <= 5


def write_slowly(path: Path, text: str, pause: float) -> None:
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            time.sleep(pause)


def test_half_a_list_is_never_live(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    write_slowly(agent.config, agent.text(apis), pause=0.3)
    agent.wait_for_servers(apis)
    agent.wait_for_applies(2)


def test_half_a_list_in_a_new_file_is_never_live(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    agent.config.unlink()
    agent.wait_for_line("No such file")
    write_slowly(agent.config, agent.text(apis), pause=0.3)
    agent.wait_for_servers(apis)
    agent.wait_for_applies(2)


def test_half_a_list_is_not_taken_at_the_start(agent: AgentProcess, apis: Apis) -> None:
    agent.config.touch()
    writer = threading.Thread(target=write_slowly, args=(agent.config, agent.text(apis), 0.3))
    writer.start()
    wait_until(lambda: apis[2] in agent.config.read_text(), SECONDS, "half of it is there")
    agent.spawn()
    writer.join()
    agent.wait_for_servers(apis)
    agent.wait_for_applies(1)


def test_a_poll_does_not_take_half_a_list_while_it_is_written(folder: Path) -> None:
    path = folder / "backends.yaml"
    path.write_text("half of it")
    file, now = BackendsFile(path), time.monotonic()
    file.touch(now, being_written=True)
    file.poll(now + 0.1)
    assert file.due == now + QUIET_WHILE_OPEN
    assert file.news(now + 0.1) is None


def test_without_events_a_fresh_file_is_looked_at_twice(folder: Path) -> None:
    path = folder / "backends.yaml"
    path.write_text("half of it, ")
    file, now = BackendsFile(path), time.monotonic()
    file.poll(now)
    assert file.news(now) is None
    path.write_text("and the whole of it")
    assert file.news(now + QUIET_WHILE_OPEN) is None
    content = file.news(now + 2 * QUIET_WHILE_OPEN)
    assert content
    assert content.data == b"and the whole of it"


def test_a_file_that_has_not_changed_for_long_is_taken_at_first_sight(folder: Path) -> None:
    path = folder / "backends.yaml"
    path.write_text("the whole of it")
    wait_until(lambda: time.time() - path.stat().st_ctime > QUIET_WHILE_OPEN, SECONDS, "it is old")
    file, now = BackendsFile(path), time.monotonic()
    file.poll(now)
    assert file.news(now)


def test_an_event_at_another_file_does_not_hurry_a_slow_writer(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    with noise(agent.state_dir / "kube-nginx.conf", touch), noise(agent.config.parent, other):
        write_slowly(agent.config, agent.text(apis), pause=0.3)
        agent.wait_for_servers(apis)
    agent.wait_for_applies(2)


def test_a_busy_folder_does_not_hold_an_edit_up(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    with noise(agent.config.parent, other), noise(agent.config.parent.parent, other):
        agent.write(apis[1:2])
        agent.wait_for_servers(apis[1:2])
    agent.wait_for_applies(2)


@contextmanager
def noise(path: Path, make: Callable[[Path], None]) -> Iterator[None]:
    """Make noise at a path every 20 ms."""
    end = threading.Event()

    def run() -> None:
        while not end.wait(0.02):
            make(path)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def other(folder: Path) -> None:
    """Make, rename, write and remove another file in the folder."""
    (folder / "other").write_text("x")
    (folder / "other").rename(folder / "another")
    (folder / "another").unlink()


def touch(path: Path) -> None:
    """Give a file another time and leave its content."""
    path.touch()


def test_a_dangling_link_is_named_and_its_target_taken_when_it_comes(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    target = agent.config.parent.parent / "later" / "list.yaml"
    agent.config.unlink()
    agent.config.symlink_to(target)
    agent.wait_for_line(f"it is a link to {target}, which does not exist")
    target.parent.mkdir()
    target.write_text(agent.text(apis[1:2]))
    agent.wait_for_servers(apis[1:2])


def test_links_in_a_circle_are_said_and_survived(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    agent.config.unlink()
    agent.config.symlink_to(agent.config.name)
    agent.wait_for_line("Too many levels of symbolic links; its symbolic links lead in a circle")
    agent.write(apis[1:2])
    agent.wait_for_servers(apis[1:2])


HOARD = """
import ctypes, sys
libc = ctypes.CDLL(None)
while libc.inotify_init1(0) >= 0:
    pass
print("all taken", flush=True)
sys.stdin.read()
"""


@needs_root
def test_where_inotify_is_exhausted_the_poll_remains(
    folder: Path, nginx_binary: Path, listen: Address, apis: Apis
) -> None:
    """The kernel's limit is a user's, so that a user of this test's own can use it up."""
    uid = 60000 + os.getpid() % 5000
    with (
        hoard_of_inotify(uid) as hoarder,
        AgentProcess(folder, nginx_binary, listen, uid=uid) as agent,
    ):
        agent.start(apis[:1])
        assert agent.lines("changes are found by a look each second: .*fs.inotify")
        agent.write(apis[1:2])
        agent.wait_for_servers(apis[1:2], seconds=20)
        hoarder.kill()
        agent.wait_for_line("over after .* can't be watched: inotify instance", seconds=20)
        agent.write(apis[2:4])
        agent.wait_for_servers(apis[2:4])
        assert not agent.lines("no event told of the last change")


@contextmanager
def hoard_of_inotify(uid: int) -> Iterator[subprocess.Popen[bytes]]:
    """Take all inotify instances that one user may have."""
    with subprocess.Popen(
        [str(PYTHON), "-c", HOARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=[],
    ) as hoarder:
        assert hoarder.stdout
        assert hoarder.stdout.readline() == b"all taken\n"
        try:
            yield hoarder
        finally:
            hoarder.kill()
