"""Workers as fresh interpreters: who gets one, and what is said of modules that fail."""

import sys

import pytest
from drumbeat.node import kernel
from drumbeat.node.spawn import load
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.settings import Settings


def test_where_forks_are_borne_they_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert not kernel.spawns(Settings().worker_start)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert kernel.spawns(Settings().worker_start)


def test_what_the_user_says_is_done_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert kernel.spawns("spawn")
        assert not kernel.spawns("fork")


def test_a_way_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"worker_start.*auto\|fork\|spawn"):
        Settings.load({"worker_start": "thread"}, {})


def test_modules_that_fail_are_named_with_the_reason_and_the_others_are_loaded() -> None:
    (text,) = load(["no_such_module", "colorsys"])
    assert text.startswith("no_such_module could not be preloaded: ModuleNotFoundError")
    assert "colorsys" in sys.modules
