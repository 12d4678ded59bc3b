"""A file or folder is the earlier one or the new one, whatever happens in between."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_file, fill_folder, restore_folder, write_file

MOMENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock")


def write(place, text):
    if place.suffix:
        with fill_file(place) as temporary:
            temporary.write_text(text)
    else:
        with fill_folder(place, mark="a") as folder:
            (folder / "a").write_text(text)
            (folder / "b").write_text(text)


def write_killed(place, text, kill_at):
    """Write in a process that kills itself at a moment; return whether it was killed, or with 0 how many there are."""
    child = os.fork()
    if child == 0:
        moments = []

        def audit(event, _):
            if event in MOMENTS:
                moments.append(event)
                if len(moments) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        write(place, text)
        os._exit(len(moments))
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) if kill_at else os.WEXITSTATUS(status)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(out, text="new", **how):
    with fill_folder(out, **({"mark": "mark"} | how)) as folder:
        (folder / "mark").write_text(text)


# Files


@pytest.mark.parametrize("content", [b"new\r\n", "new\r\n", lambda path: path.write_bytes(b"new\r\n")])
def test_bytes_text_and_a_writer_write_the_same(tmp_path, content):
    write_file(tmp_path / "a", content)
    write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == b"new\r\n"
    assert names(tmp_path) == ["a"]


def test_a_parquet_file_is_streamed_into_place(tmp_path):
    table = pa.table({"a": [1, 2]})
    with fill_file(tmp_path / "a.parquet") as temporary:
        with pq.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table)
            assert not (tmp_path / "a.parquet").exists()
            writer.write_table(table)
    assert pq.read_table(tmp_path / "a.parquet")["a"].to_pylist() == [1, 2, 1, 2]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_error_leaves_the_earlier_file_and_no_litter(tmp_path, error):
    write_file(tmp_path / "a", "old")

    def half(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_file(tmp_path / "a", half)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match=str(tmp_path / "a")):
        write_file(tmp_path / "a", lambda _: pytest.fail("written"))


def test_two_writers_of_one_file_do_not_touch_each_others(tmp_path):
    with fill_file(tmp_path / "a") as first, fill_file(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"  # its block ended last
    assert names(tmp_path) == ["a"]


def test_many_processes_write_one_file_at_once_and_it_is_always_whole(tmp_path):
    script = (
        "import sys; from pathlib import Path; from fedllm_data.in_place import write_file\n"
        "for _ in range(200): write_file(Path(sys.argv[1]), sys.argv[2] * 5000, sync=False)"
    )
    write_file(tmp_path / "a", "x" * 5000)
    writers = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "a", letter]) for letter in "yz"]
    while any(writer.poll() is None for writer in writers):
        text = (tmp_path / "a").read_text()
        assert len(text) == 5000
        assert len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["a"]


def test_a_killed_writer_leaves_the_earlier_file_and_the_next_one_its_litter(tmp_path):
    file = tmp_path / "a.txt"
    num_moments = write_killed(file, "old", 0)
    assert num_moments >= 5
    for moment in range(1, num_moments + 1):
        write(file, "old")
        assert write_killed(file, "new", moment)
        assert file.read_text() in ("old", "new")
        write(file, "next")
        assert file.read_text() == "next"
        assert names(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    # Files of the Hub's cache are links: what they point to belongs to all who downloaded it.
    (tmp_path / "blob").write_text("shared")
    (tmp_path / "a").symlink_to("blob")
    write_file(tmp_path / "a", "mine")
    assert (tmp_path / "blob").read_text() == "shared"
    assert not (tmp_path / "a").is_symlink()


def test_a_link_left_under_the_temporary_name_is_not_written_through(tmp_path):
    (tmp_path / "other").write_text("theirs")
    (tmp_path / ".a.0.partial").symlink_to("other")
    write_file(tmp_path / "a", "mine")
    assert (tmp_path / "other").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "mine"


def test_a_secret_is_never_readable_for_others_and_other_files_follow_the_umask(tmp_path):
    left = tmp_path / ".secret.0.partial"
    left.write_text("of a killed writer")
    left.chmod(0o644)
    with left.open() as spy, fill_file(tmp_path / "secret", mode=0o600) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_text("secret")
        assert spy.read() == "of a killed writer"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    earlier = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "mine")
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_read_only_file_is_replaced_and_the_longest_name_can_be_written(tmp_path):
    name = "ä" * 125 + ".json"
    write_file(tmp_path / name, "old")
    (tmp_path / name).chmod(0o400)
    write_file(tmp_path / name, "new")
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_synced_before_the_rename_and_the_name_after_it(tmp_path, monkeypatch, sync):
    told = []
    monkeypatch.setattr(os, "fsync", lambda file: told.append(os.readlink(f"/proc/self/fd/{file}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (told.append("renamed"), replace(*names)))
    write_file(tmp_path / "a", "new", sync=sync)
    file, folder = str(tmp_path / ".a.0.partial"), str(tmp_path)
    assert told == ([file, "renamed", folder] if sync else ["renamed"])


# Folders


def test_a_new_folder_appears_whole(tmp_path):
    fill(tmp_path / "deep" / "repo")
    assert names(tmp_path / "deep") == ["repo"]


def test_an_error_leaves_the_earlier_folder_and_no_litter(tmp_path):
    fill(tmp_path / "repo", "old")
    with pytest.raises(TypeError):
        fill(tmp_path / "repo", 7)
    assert (tmp_path / "repo" / "mark").read_text() == "old"
    assert names(tmp_path) == ["repo"]


def test_what_cannot_be_put_in_place_leaves_the_earlier_folder(tmp_path, monkeypatch):
    fill(tmp_path / "repo", "old")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith("new"):
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        fill(tmp_path / "repo", "new")
    assert (tmp_path / "repo" / "mark").read_text() == "old"
    assert names(tmp_path) == ["repo"]


@pytest.mark.parametrize("content", ["file", "folder", "mark as folder"])
def test_without_its_mark_a_folder_is_not_replaced(tmp_path, content):
    place = tmp_path / "repo"
    (place / {"file": "", "folder": "mine", "mark as folder": "mark"}[content]).mkdir(parents=True)
    if content == "file":
        (place / "mine").write_text("mine")
    before = names(place)
    with pytest.raises(ConfigError, match="not made here"):
        fill(place)
    with pytest.raises(ConfigError, match="holds something already"):
        fill(place, mark=None)
    assert names(place) == before
    assert names(tmp_path) == ["repo"]


def test_a_check_decides_in_place_of_the_mark(tmp_path):
    def refuse(out):
        raise ConfigError(f"{out.name} stays")

    fill(tmp_path / "repo", "old", check=refuse)  # nothing lies there: nothing to ask
    with pytest.raises(ConfigError, match="repo stays"):
        fill(tmp_path / "repo", check=refuse)
    fill(tmp_path / "repo", "new", check=lambda out: None)
    assert (tmp_path / "repo" / "mark").read_text() == "new"


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "repo").write_text("mine")
    with pytest.raises(ConfigError, match="is not a folder"):
        fill(tmp_path / "repo")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        fill(tmp_path / "repo" / "deeper")
    assert (tmp_path / "repo").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "repo").mkdir()
    fill(tmp_path / "repo", mark=None)
    assert (tmp_path / "repo" / "mark").exists()


def test_a_link_to_a_folder_is_replaced_only_if_asked_and_its_target_stays(tmp_path):
    fill(tmp_path / "target", "old")
    (tmp_path / "repo").symlink_to("target")
    with pytest.raises(ConfigError, match="is not a folder"):
        fill(tmp_path / "repo")
    fill(tmp_path / "repo", check=lambda out: None)
    assert (tmp_path / "target" / "mark").read_text() == "old"
    assert (tmp_path / "repo" / "mark").read_text() == "new"
    assert names(tmp_path) == ["repo", "target"]


def test_the_folder_has_the_permissions_asked_for(tmp_path):
    fill(tmp_path / "repo", mode=0o700)
    assert stat.S_IMODE((tmp_path / "repo").stat().st_mode) == 0o700


def test_a_killed_writer_leaves_one_whole_folder_and_the_next_one_no_litter(tmp_path):
    out = tmp_path / "repo"

    def text():
        texts = {(out / name).read_text() for name in names(out)}
        assert names(out) == ["a", "b"]
        assert len(texts) == 1
        return texts.pop()

    write(out, "old")
    num_moments = write_killed(out, "new", 0)
    assert num_moments >= 15
    num_restored = 0
    for moment in range(1, num_moments + 1):
        write(out, "old")
        assert write_killed(out, "new", moment)
        if not out.exists():
            restore_folder(out)
            assert text() == "old"
            num_restored += 1
        assert text() in ("old", "new")
        write(out, "next")
        assert text() == "next"
        assert names(tmp_path) == ["repo"]
    assert num_restored == 1


def test_the_next_writer_puts_an_earlier_folder_back_before_it_starts(tmp_path):
    fill(tmp_path / ".repo.making-3" / "old", "old")
    with pytest.raises(RuntimeError), fill_folder(tmp_path / "repo", mark="mark"):
        raise RuntimeError
    assert (tmp_path / "repo" / "mark").read_text() == "old"
    assert names(tmp_path) == ["repo"]


def test_a_folder_that_was_half_removed_is_never_put_back(tmp_path):
    fill(tmp_path / ".repo.making-0" / "gone", "half removed")
    with pytest.raises(RuntimeError), fill_folder(tmp_path / "repo", mark="mark"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_living_process_is_making_is_left_alone(tmp_path):
    living, dead = tmp_path / ".repo.making-0", tmp_path / ".repo.making-1"
    for folder in living, dead:
        (folder / "old").mkdir(parents=True)
        (folder / "old" / "mark").write_text(folder.name)
    with (living / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (dead / "old" / "mark").unlink()
        (dead / "old").rmdir()
        restore_folder(tmp_path / "repo")
        assert not (tmp_path / "repo").exists()
        fill(tmp_path / "repo")
        assert names(tmp_path) == [living.name, "repo"]
        assert (living / "old" / "mark").read_text() == living.name
    fill(tmp_path / "repo")
    assert names(tmp_path) == ["repo"]


def test_two_writers_of_one_folder_at_once_leave_one_of_the_two(tmp_path):
    barrier = threading.Barrier(2)

    def write_often(text):
        for _ in range(50):
            barrier.wait(timeout=30)
            write(tmp_path / "repo", text)

    writers = [threading.Thread(target=write_often, args=(text,)) for text in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    texts = [(tmp_path / "repo" / name).read_text() for name in ("a", "b")]
    assert texts in (["one"] * 2, ["two"] * 2)
    assert names(tmp_path) == ["repo"]
