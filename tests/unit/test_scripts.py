"""The script loader, and the headers of all shipped scripts held against their bodies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.connection import Connection

import phonon_kombu.store
from phonon_kombu.errors import REFUSALS, ConfigurationError
from phonon_kombu.store import scripts
from phonon_kombu.store.keys import QueueKeys
from phonon_kombu.store.scripts import Script, commands, load, names, pack_command

LUA = Path(phonon_kombu.store.__file__).parent / "lua"

HEADER = """--[[ room/name: what it does,
in one sentence or two.
KEYS    1 items HASH   2 claimed ZSET (of whom)
        3+ levels LIST (all ten)
ARGV    1 owner   2 mode ('a'
        or 'b')   3+ ids
RETURNS how many   ERRORS NOTFOUND, EXISTS   STATES ready -> claimed
COST    O(1) ]]
"""


def parse(text: str, **pieces: str) -> Script:
    """A script named room/name of this text, which may include these pieces."""

    def include(piece: str) -> str:
        if piece not in pieces:
            raise FileNotFoundError(piece)
        return pieces[piece]

    return scripts.parse("room/name", text, include)


def header(keys: str = "1 items HASH", args: str = "1 id") -> str:
    """A header with these lines."""
    return (
        f"--[[ room/name: does it.\nKEYS    {keys}\nARGV    {args}\n"
        "RETURNS nothing   ERRORS none ]]\n"
    )


# The parser -----------------------------------------------------------------------------------


def test_a_header_is_read() -> None:
    script = parse(HEADER + "return 1\n")

    assert script.name == "room/name"
    assert script.keys == ("items", "claimed", "levels")
    assert script.args == ("owner", "mode", "ids")
    assert script.many_keys and script.many_args
    assert script.errors == {"NOTFOUND", "EXISTS"}
    assert script.sections["RETURNS"] == "how many"
    assert script.sections["STATES"] == "ready -> claimed"
    assert script.sections["COST"] == "O(1)"
    assert script.source == b"return 1\n"
    assert script.sha == hashlib.sha1(script.source).hexdigest()


def test_a_header_may_have_no_arguments() -> None:
    script = parse(header(args="none") + "return 1\n")
    assert (script.args, script.many_args, script.many_keys) == ((), False, False)


@pytest.mark.parametrize(
    "text",
    ["", "return 1\n", "-- room/name: a comment\n", "\n" + header(), header().replace("name", "x"),
     header().replace("]]", "")],
    ids=["empty", "no header", "a comment", "not first", "another name", "without end"],
)  # fmt: skip
def test_a_missing_header_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"room/name: .*header"):
        parse(text)


@pytest.mark.parametrize("section", ["KEYS", "ARGV"])
@pytest.mark.parametrize(
    "numbered",
    ["1 items HASH   3 claimed ZSET", "2 items HASH", "1 items HASH   1 claimed ZSET",
     "2 items HASH   1 claimed ZSET", "1+ items HASH   2 claimed ZSET", "0 items HASH"],
    ids=["a gap", "from 2", "twice", "backwards", "many in the middle", "from 0"],
)  # fmt: skip
def test_wrong_numbers_are_an_error(section: str, numbered: str) -> None:
    plain = re.sub(" (HASH|ZSET)", "", numbered)
    text = header(keys=numbered) if section == "KEYS" else header(args=plain)
    with pytest.raises(ConfigurationError, match=f"room/name: {section} are not numbered"):
        parse(text)


def test_pieces_are_spliced_in_place() -> None:
    script = parse(
        header() + "local a = 1\n--- @include one\nreturn one()\n",
        one="--[[ one(): does it ]]\n--- @include two\nlocal function one()\n  return two\nend\n",
        two="local two = 2\n",
    )
    assert script.source == (
        b"local a = 1\nlocal two = 2\nlocal function one()\n  return two\nend\nreturn one()\n"
    )


def test_a_missing_piece_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="room/name: no include named nothing"):
        parse(header() + "--- @include nothing\n")


@pytest.mark.parametrize(
    "pieces",
    [{"one": "--- @include one\n"},
     {"one": "--- @include two\n", "two": "--- @include three\n", "three": "--- @include one\n"}],
    ids=["of itself", "in a ring"],
)  # fmt: skip
def test_a_circular_include_is_an_error(pieces: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="room/name: include one includes itself"):
        parse(header() + "--- @include one\n", **pieces)


def test_a_double_include_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"room/name: .*included twice"):
        parse(header() + "--- @include one\nlocal a\n--- @include one\n", one="local one\n")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("-- a comment", ""),
        ("local a = 1 -- a comment", "local a = 1"),
        ("local a = 1 -- isn't it", "local a = 1"),
        ("local a = 1 --[[ within ]] + 2", "local a = 1  + 2"),
        ("--[[ of\nmany\nlines ]]", ""),
        ("--[==[ of ]] level ]==]", ""),
        ("local a = 'x -- y'", "local a = 'x -- y'"),
        ('local a = "x -- y" -- z', 'local a = "x -- y"'),
        ("local a = 'it\\'s -- so' -- z", "local a = 'it\\'s -- so'"),
        ("local a = '--[[ x ]]'", "local a = '--[[ x ]]'"),
        ("local a = '--'", "local a = '--'"),
        ("local a = [[ -- x ]]", "local a = [[ -- x ]]"),
        ("a('-', \"'\", '--')", "a('-', \"'\", '--')"),
    ],
)
def test_comments_go_and_strings_stay(line: str, kept: str) -> None:
    source = parse(header() + f"local first\n{line}\nreturn last\n").source.decode()
    middle = source.removeprefix("local first\n").removesuffix("return last\n").rstrip("\n")
    assert re.sub(" +", " ", middle) == re.sub(" +", " ", kept)


# Calls ----------------------------------------------------------------------------------------


def test_keys_are_passed_by_name() -> None:
    keys = QueueKeys("q")
    script = parse(header(keys="1 items HASH   2 result HASH   3+ levels LIST"))

    found = script.key_list(keys, result=b"r")

    assert found == [keys.items, b"r", *keys.levels]
    assert script.key_list(keys, result=b"r", items=b"i", levels=b"l") == [b"i", b"r", b"l"]


def test_a_key_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        parse(header(keys="1 nothing HASH")).key_list(QueueKeys("q"))


def test_a_packed_call_is_a_command() -> None:
    """Byte for byte what redis-py packs."""
    script = parse(HEADER)
    prepared = script.prepare(QueueKeys("q\n{ü}"))
    args = (b"", b"x\r\ny", bytes(range(256)))
    words: list[Any] = ["EVALSHA", script.sha, len(prepared.keys), *prepared.keys, *args]

    assert prepared.pack(args) == b"".join(Connection().pack_command(*words))
    assert pack_command(b"PING") == b"*1\r\n$4\r\nPING\r\n"
    assert pack_command(b"ECHO", b"") == b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n"


# The shipped scripts --------------------------------------------------------------------------


def test_all_files_are_scripts_with_a_name() -> None:
    files = {str(path.relative_to(LUA))[:-4] for path in LUA.rglob("*.lua")}
    assert set(names()) == {name for name in files if not name.startswith("include/")}
    assert names() == sorted(names())


def test_the_commands_of_all_scripts_are_known() -> None:
    """Those that are called by name, and those of which one is chosen."""
    text = "".join(load(name).source.decode() for name in names())
    called = set(re.findall(r"call\('(\w+)'", text))
    assert called | {"RPUSH", "LPUSH"} == set(commands())
    assert not [path for path in LUA.rglob("*") if path.is_file() and path.suffix != ".lua"]


def test_an_unknown_script_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no script named job/nothing"):
        load("job/nothing")


def test_all_pieces_are_used() -> None:
    used = set(re.findall(r"^ *--- @include (\w+)$", all_text(), re.M))
    assert used == {path.stem for path in (LUA / "include").glob("*.lua")}


def all_text() -> str:
    return "\n".join(path.read_text("utf-8") for path in LUA.rglob("*.lua"))


@pytest.fixture(params=names())
def script(request: pytest.FixtureRequest) -> Script:
    """Each shipped script."""
    return load(request.param)


def used_numbers(source: str, word: str, declared: int) -> set[int]:
    """Which of KEYS or ARGV a body uses, by number; from where it walks on, all of the rest."""
    found = {int(n) for n in re.findall(rf"\b{word}\[(\d+)\]", source)}
    starts = [int(n) for n in re.findall(rf"unpack\({word}, (\d+)\)", source)]
    starts += [int(n) for n in re.findall(rf"for i = (\d+), #{word} do", source)]
    starts += [int(n) + 1 for n in re.findall(rf"{word}\[(\d+) \+ i\]", source)]
    if re.search(rf"(ipairs|unpack)\({word}\)", source):
        starts.append(1)
    return found | {n for start in starts for n in range(start, declared + 1)}


@pytest.mark.parametrize(
    ("word", "declared"), [("KEYS", lambda s: len(s.keys)), ("ARGV", lambda s: len(s.args))]
)
def test_what_a_header_declares_is_used_and_no_more(
    script: Script, word: str, declared: Callable[[Script], int]
) -> None:
    source = script.source.decode()
    count = declared(script)
    numbers = used_numbers(source, word, count)
    # A loop over all keys that gives them a lifetime is no use of any one of them.
    loop = re.sub(r"for i = 1, #KEYS do\s+redis.call\('PEXPIRE'.*?end", "", source, flags=re.S)
    if script.name != "job/touch" and word == "KEYS":
        numbers = used_numbers(loop, word, count)
    assert numbers == set(range(1, count + 1))


def test_error_words_of_a_header_are_those_of_the_body(script: Script) -> None:
    found = re.findall(
        r"redis\.error_reply\('([A-Z]+) [^']+'(?: \.\. slot)?\)", script.source.decode()
    )
    assert script.source.count(b"error_reply") == len(found), "a refusal is a word and a sentence"
    words = set(found)
    assert words == script.errors
    assert words <= set(REFUSALS)


def test_a_header_says_all(script: Script) -> None:
    wanted = {"KEYS", "ARGV", "RETURNS", "ERRORS", "COST"}
    if script.name.startswith("job/"):
        wanted.add("STATES")
    assert wanted <= set(script.sections)
    assert all(script.sections[name] for name in wanted)
    assert (script.sections["ERRORS"] == "none") == (not script.errors)


#: Commands that take longer the more jobs there are.
LINEAR = {
    "HGETALL", "HKEYS", "HVALS", "SMEMBERS", "SORT", "LREM", "LPOS", "LINSERT", "LINDEX",
    "KEYS", "SCAN", "SUNION", "ZUNION", "ZUNIONSTORE", "FLUSHDB", "FLUSHALL",
}  # fmt: skip

#: Where such a command is bounded all the same.
BOUNDED = {
    ("model/read", "SMEMBERS"): "after a look at SCARD",
    ("job/census", "HVALS"): "after a look at HLEN, 500 at the most",
    ("node/census", "HGETALL"): "an entry for each process that consumes",
    # The contract's own order, for feeds that are made with interop=True, is not.
    ("sorted_feed/list_insert", "LINSERT"): "it is not",
    ("sorted_feed/list_move", "LINSERT"): "it is not",
    ("sorted_feed/list_move", "LREM"): "it is not",
    ("sorted_feed/list_retract", "LREM"): "it is not",
}


def test_no_script_takes_time_with_the_length_of_a_queue(script: Script) -> None:
    # The ends of a list are at hand, however long it is.
    source = re.sub(r"'LINDEX', \w+, -1\)", "'LLEN')", script.source.decode())
    commands = set(re.findall(r"redis\.p?call\('(\w+)'", source))
    assert commands, "no command found: is it written in another way?"
    linear = {(script.name, command) for command in commands & LINEAR}
    assert linear == {entry for entry in BOUNDED if entry[0] == script.name}


def test_keys_are_never_spelled_in_a_script(script: Script) -> None:
    """The name of a key comes out of KEYS, or a redis.call would look different."""
    source = script.source.decode()
    assert not re.search(r"feed\.|exchange\.|node\.", source)
    for call in re.findall(r"redis\.p?call\(([^\n]*)", source):
        key = call.split(",")[1] if "," in call else "none"
        assert ".." not in key, call
        assert not key.strip().startswith(("'", '"')), call


def test_a_script_fits_a_screen() -> None:
    for path in LUA.rglob("*.lua"):
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= 80, path.name
        assert max(len(line) for line in lines) <= 100, path.name
