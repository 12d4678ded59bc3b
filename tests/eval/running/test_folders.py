"""A folder is replaced in one step, stands as it was where filling fails, and is never taken for a stranger's."""

import os

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.running import folders
from fedllm_eval.running.folders import check_out, link_tree, replace_folder


def fill_with(**files):
    def fill(folder):
        for name, text in files.items():
            (folder / name).write_text(text)

    return fill


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_new_folder_replaces_the_whole_of_the_old_one(tmp_path):
    out = tmp_path / "deep" / "out"
    replace_folder(out, fill_with(a="1", b="1"), ["a", "b"])
    replace_folder(out, fill_with(b="2"), ["a", "b"])
    assert names(out) == ["b"]
    assert (out / "b").read_text() == "2"
    assert names(out.parent) == ["out"]


def test_what_fails_in_the_middle_leaves_the_old_one_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    replace_folder(out, fill_with(a="1"), ["a"])

    def fill(folder):
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(out, fill, ["a"])
    assert (out / "a").read_text() == "1"
    assert names(tmp_path) == ["out"]


def test_foreign_files_and_a_file_in_the_way_are_refused_before_anything_is_filled(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    filled = []
    with pytest.raises(ConfigError, match=r"holds other files \(thesis\.txt\)"):
        replace_folder(out, filled.append, ["a"])
    with pytest.raises(ConfigError, match="is a file"):
        check_out(out / "thesis.txt", ["a"])
    assert filled == []
    assert names(out) == ["thesis.txt"]
    check_out(tmp_path / "none", ["a"])


@pytest.mark.parametrize("links", [True, False])
def test_a_second_tree_holds_the_same_files_with_or_without_links(tmp_path, monkeypatch, links):
    def refuse(source, target):
        raise OSError("no links on this disk")

    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "inner" / "file").write_text("kept")
    if not links:
        monkeypatch.setattr(folders.os, "link", refuse)
    link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "inner" / "file").read_text() == "kept"
    same = os.path.samefile(tmp_path / "a" / "inner" / "file", tmp_path / "b" / "inner" / "file")
    assert same is links
