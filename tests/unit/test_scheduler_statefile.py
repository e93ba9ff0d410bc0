"""The file that one life of the scheduler leaves to the next."""

import json
from pathlib import Path

import pytest
from drumbeat.protocol.errors import ConfigError
from drumbeat.scheduler.statefile import StateFile


def test_each_life_has_the_next_number_and_the_nodes_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    first = StateFile(path)
    assert first.begin() == (1, [], [], [], 0, [])
    acting = [("63" * 14, "61" * 6, "keeper of lab1")]
    noted = ["lab1", "lab2"], ["63" * 6], ["61" * 6, "62" * 6], 1, acting
    first.remember(*noted)
    assert StateFile(path).begin() == (2, *noted)
    assert StateFile(path).begin() == (3, *noted)
    written = {"epoch": 3, "nodes": noted[0], "gone": noted[1], "daemons": noted[2], "closed": 1}
    assert json.loads(path.read_text()) == {**written, "acting": [list(acting[0])]}
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_leftover_of_a_write_that_was_cut_short_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "state"
    StateFile(path).begin()
    (tmp_path / "state.new").write_text('{"epo')
    assert StateFile(path).begin() == (2, [], [], [], 0, [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ('{"epoch": 3', "not JSON"),
        ("[]", "epoch"),
        ('{"epoch": "3", "nodes": []}', "epoch"),
        ('{"epoch": true, "nodes": []}', "epoch"),
        ('{"epoch": 0, "nodes": []}', "epoch"),
        ('{"epoch": 3}', "nodes"),
        ('{"epoch": 3, "nodes": [1]}', "nodes"),
        ('{"epoch": 3, "nodes": [], "gone": [1]}', "gone"),
        ('{"epoch": 3, "nodes": [], "gone": ["lab1"]}', "gone"),
        ('{"epoch": 3, "nodes": ["lab1"]}', "daemons"),
        ('{"epoch": 3, "nodes": ["lab1"], "daemons": []}', "daemons"),
        ('{"epoch": 3, "nodes": ["lab1"], "daemons": ["lab1"]}', "daemons"),
        ('{"epoch": 3, "nodes": [], "daemons": [], "closed": "2"}', "closed"),
        ('{"epoch": 3, "nodes": [], "daemons": [], "closed": 4}', "closed"),
        ('{"epoch": 3, "nodes": [], "daemons": [], "acting": {}}', "acting"),
        ('{"epoch": 3, "nodes": [], "daemons": [], "acting": [["00", "00", ""]]}', "acting"),
    ],
)
def test_a_broken_file_is_refused_in_plain_words_and_left_alone(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "state"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why) as refused:
        StateFile(path).begin()
    assert str(path) in str(refused.value)
    assert "remove it" in str(refused.value)
    assert path.read_text() == text


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be used"):
        StateFile(path).begin()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        StateFile(tmp_path / "nowhere" / "state").begin()


def test_it_is_for_its_owner_alone_and_no_link_leads_it_elsewhere(tmp_path: Path) -> None:
    path, other = tmp_path / "state", tmp_path / "other"
    StateFile(path).begin()
    assert path.stat().st_mode & 0o777 == 0o600
    other.write_text("precious")
    (tmp_path / "state.new").symlink_to(other)
    with pytest.raises(ConfigError, match="cannot write"):
        StateFile(path).begin()
    assert other.read_text() == "precious"


def test_a_file_of_an_earlier_version_has_nothing_closed_and_knows_of_no_actor(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state"
    path.write_text('{"epoch": 3, "nodes": ["lab1"], "gone": [], "daemons": ["616161616161"]}')
    assert StateFile(path).begin() == (4, ["lab1"], [], ["616161616161"], 0, [])
