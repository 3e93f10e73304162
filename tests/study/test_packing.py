"""A study in one file: the same trials on both sides, and nothing else let in."""

import io
import tarfile

import pytest

from sparseattn.errors import StudyError
from sparseattn.report.data import load_study
from sparseattn.study.archive import pack, unpack
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from tests.study import fakes


@pytest.fixture
def whole(tmp_path, log, in_process):
    """The folder of a finished study of four trials."""
    fakes.begin(tmp_path / "s", ["a", "nan"], 2)
    fakes.go_on(tmp_path / "s")
    return tmp_path / "s"


def contents(folder) -> dict[str, bytes]:
    names = [folder / "study.json", *sorted((folder / "trials").glob("*/*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_a_study_comes_out_as_it_went_in(whole, tmp_path):
    assert pack(whole, tmp_path / "s.tar.xz") == 4
    assert unpack(tmp_path / "s.tar.xz", tmp_path / "t") == 4
    assert contents(tmp_path / "t") == contents(whole)
    assert len(load_study(tmp_path / "t").rows) == 4
    assert fakes.go_on(tmp_path / "t").run == 0, "nothing is missing"
    pack(tmp_path / "t", tmp_path / "t.tar.xz")
    assert (tmp_path / "t.tar.xz").read_bytes() == (tmp_path / "s.tar.xz").read_bytes()


def test_two_machines_put_their_trials_together(whole, tmp_path):
    pack(whole, tmp_path / "all.tar.xz")
    here = Store(whole)
    for digest in sorted(here.finished())[:3]:
        here.remove(digest)
    assert pack(whole, tmp_path / "one.tar.xz") == 1
    assert unpack(tmp_path / "one.tar.xz", tmp_path / "t") == 1
    assert unpack(tmp_path / "all.tar.xz", tmp_path / "t") == 3
    assert unpack(tmp_path / "all.tar.xz", tmp_path / "t") == 0


def test_a_study_takes_the_trials_of_a_smaller_one(whole, tmp_path):
    """So that seeds and arms can be added: begin the larger study, and unpack the smaller."""
    pack(whole, tmp_path / "s.tar.xz")
    arms = sorted({trial.arm for trial in Study.load(whole).trials()[0]})
    fakes.begin(tmp_path / "larger", [*arms, "more"], 3)
    smaller = len(Study.load(whole).trials()[0])
    assert unpack(tmp_path / "s.tar.xz", tmp_path / "larger") == smaller
    assert Store(tmp_path / "larger").finished() == Store(whole).finished()
    pack(tmp_path / "larger", tmp_path / "l.tar.xz")
    assert unpack(tmp_path / "l.tar.xz", whole) == 0


def test_another_study_or_other_files_are_not_mixed_in(whole, tmp_path):
    pack(whole, tmp_path / "s.tar.xz")
    fakes.begin(tmp_path / "other", ["b"], 1)
    with pytest.raises(StudyError, match=r"other holds another study, without some of these"):
        unpack(tmp_path / "s.tar.xz", tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StudyError, match="mine is not a study's folder"):
        unpack(tmp_path / "s.tar.xz", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def packed_with(path, name: str, data: bytes, kind: bytes = tarfile.REGTYPE):
    with tarfile.open(path, "w:xz") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside.json", tarfile.REGTYPE),
        ("/tmp/outside.json", tarfile.REGTYPE),
        ("trials/0123456789abcdef/../../../x.json", tarfile.REGTYPE),
        ("study.json", tarfile.SYMTYPE),
        ("trials/0123456789abcdef", tarfile.DIRTYPE),
        ("trials/0123456789abcdef/model.pt", tarfile.REGTYPE),
    ],
)
def test_nothing_but_a_study_is_let_out(tmp_path, name, kind):
    packed_with(tmp_path / "bad.tar.xz", name, b"{}", kind)
    with pytest.raises(StudyError, match="is not a packed study: it holds"):
        unpack(tmp_path / "bad.tar.xz", tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_damage_is_found_before_anything_is_written(whole, tmp_path):
    pack(whole, tmp_path / "s.tar.xz")
    data = (tmp_path / "s.tar.xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(data[: len(data) // 2])
    with pytest.raises(StudyError, match="is not a packed study, or is cut short"):
        unpack(tmp_path / "cut.tar.xz", tmp_path / "t")
    with pytest.raises(StudyError, match=r"cannot read .*none.tar.xz: No such file"):
        unpack(tmp_path / "none.tar.xz", tmp_path / "t")
    digest = sorted(Store(whole).finished())[0]
    (whole / "trials" / digest / "log.jsonl").write_text("{}")
    with pytest.raises(StudyError, match=r"log.jsonl is damaged"):
        pack(whole, tmp_path / "s.tar.xz")
    assert (tmp_path / "s.tar.xz").read_bytes() == data, "the old file is still there"
    # The same damage inside a file.
    with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as archive:
        archive.add(whole / "study.json", "study.json")
        for path in (whole / "trials" / digest).iterdir():
            archive.add(path, f"trials/{digest}/{path.name}")
    with pytest.raises(StudyError, match=r"log.jsonl is damaged"):
        unpack(tmp_path / "bad.tar.xz", tmp_path / "t")
    assert not (tmp_path / "t").exists()
