"""Whatever stands in a file that a process reads: it is used, or named as broken in plain words."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from drumbeat.client import hosts
from drumbeat.protocol.cluster_file import address_in, text_of
from drumbeat.protocol.codec import encode
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.keys import Address, Credentials, show_address, show_key
from drumbeat.scheduler.deed_files import DeedFiles
from drumbeat.scheduler.deeds import Course, Deed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deeds import deed
from support.fuzzing import ODD, TEXTS, Words, damaged

#: seeds: a Random that hypothesis can shrink costs a hundred times as much
chance = st.builds(Random, st.integers(0, 2**32))

KEYS = Credentials(bytes(range(32)), bytes(range(32, 64)))
ADDRESS = Address("tcp://10.0.0.1:4000", "client", KEYS)
#: what JSON and TOML have as well
PLAIN = [one for one in (*ODD, *TEXTS, 2**70, {"a": []}) if not isinstance(one, bytes)]
#: of nobody's home, in nobody's reach, too long, and no path at all
PATHS = ("~nobody-of-that-name/file", "/proc/1/cwd/x/y", "x" * 300, "a\0b", "\ud800", "", "x/y")


def spoiled(rng: Random, text: str) -> str:
    """Return a text with a few characters changed, cut off or doubled."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        end = at + rng.choice((0, 1, 1, 20))
        text = text[:at] + rng.choice(("", "\0", '"', "[", "}", "é", "\ud800", "7")) + text[end:]
    return text


def said_of(text: str) -> str:
    """Return what is said of a text that is no cluster file; "": it is one."""
    try:
        address_in(text, "a file")
    except ConfigError as error:
        return str(error)
    return ""


@settings(max_examples=150)
@given(rng=chance)
def test_damaged_files_of_detached_actors_are_laid_aside_and_keep_nobody_else_back(
    rng: Random,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        files, good, bad = DeedFiles(Path(directory)), deed("a"), deed("b")
        files.keep(good)
        words = Words(rng, [bad.id, b"h" * 16, b"a" * 14], (0, 1))
        made, course = rng.choice((bad, words.message(Deed))), words.message(Course)
        path = Path(directory, f"{bad.id.hex()}.actor")
        path.write_bytes(damaged(rng, encode(made)) if rng.random() < 0.6 else encode(made))
        path.with_suffix(".course").write_bytes(damaged(rng, encode(course)))
        wills = files.load()
        assert good in [will.deed for will in wills]
        assert len(wills) + len(files.complaints) == 2


@settings(max_examples=300)
@given(rng=chance)
def test_a_damaged_cluster_file_is_an_address_or_refused_and_its_secret_never_quoted(
    rng: Random,
) -> None:
    fields = json.loads(text_of(ADDRESS))
    for name in rng.sample([*fields, "more"], rng.randint(0, 2)):
        fields[name] = rng.choice(PLAIN)
    whole = json.dumps(fields)
    text = rng.choice([
        whole, spoiled(rng, whole), spoiled(rng, show_address(*ADDRESS)), "[" * 100_000,
        json.dumps(rng.choice(PLAIN)),
    ])  # fmt: skip
    assert show_key(KEYS.secret_key)[:30] not in said_of(text)


@settings(max_examples=300)
@given(rng=chance)
def test_a_damaged_list_of_hosts_is_read_or_refused_in_plain_words(rng: Random) -> None:
    names = (*hosts.Host.__struct_fields__, "nonsense", "")
    table: Any = {rng.choice(names): rng.choice(PLAIN) for _ in range(rng.choice((0, 0, 1, 2)))}
    table["identity"] = rng.choice(PATHS)
    wrong = rng.choice(PLAIN)
    tables: Any = {rng.choice(("lab1", "lab1", "", "é")): rng.choice((table, table, table, wrong))}
    data = {"hosts": tables}
    for name in rng.sample(["cluster", "defaults", "hosts", "x"], rng.choice((0, 0, 1, 2))):
        data[name] = rng.choice((*PLAIN, *PATHS, table))
    with suppress(ConfigError):
        for host in hosts.parse(data, Path("hosts.toml")).hosts:
            hosts.ssh_command(host)
            hosts.start_request(host, "", 1.0)


@settings(max_examples=100)
@given(rng=chance)
def test_what_is_no_toml_is_read_or_refused_in_plain_words(rng: Random) -> None:
    whole = 'cluster = "c"\n[hosts.lab1]\nnum_cpus = 2\nssh_options = ["A=b"]\n'
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "hosts.toml")
        text = rng.choice((spoiled(rng, whole), "a = " + "[" * 5_000))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(ConfigError):
            hosts.read(path)
