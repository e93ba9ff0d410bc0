"""Labels: what a node carries, and whether it has what a task asks for."""

import pytest
from drumbeat.protocol import labels
from drumbeat.protocol.errors import ConfigError


def test_a_node_must_carry_each_label_with_one_of_the_texts_asked_for():
    carried = {"zone": "a", "disk": "ssd"}
    assert labels.carries(carried, ())
    assert labels.carries(carried, (("zone", ("a",)),))
    assert labels.carries(carried, (("disk", ("ssd",)), ("zone", ("b", "a"))))
    assert not labels.carries(carried, (("zone", ("b", "c")),))
    assert not labels.carries(carried, (("disk", ("ssd",)), ("owner", ("me",))))
    assert not labels.carries({}, (("zone", ("",)),))


def test_labels_are_written_as_name_and_value():
    assert labels.parsed(["zone=a", "rule=x=y", "spot="], "--label") == {
        "zone": "a", "rule": "x=y", "spot": ""
    }  # fmt: skip
    assert labels.show({"zone": "a", "disk": "ssd"}) == "disk=ssd, zone=a"
    assert labels.show_asked((("disk", ("ssd",)), ("zone", ("a", "b")))) == "disk=ssd, zone=a or b"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["zone"], "'zone' is no label: it is written NAME=VALUE"),
        (["=a"], "'' = 'a' is no label: a name has 1 to 64 characters"),
        (["zone=a", "zone=b"], "'zone' is given twice, as 'a' and 'b'"),
        (["z" * 65 + "=a"], "a name has 1 to 64 characters"),
        (["zone=" + "a" * 257], "a value has at most 256 characters"),
        ([f"z{n}=a" for n in range(65)], "65 labels, and a node carries at most 64"),
    ],
)
def test_what_is_no_label_is_refused_and_named(given, told):
    with pytest.raises(ConfigError, match=r"--label") as caught:
        labels.parsed(given, "--label")
    assert told in str(caught.value)


def test_name_and_value_are_texts():
    assert labels.fault_of(1, "a") == labels.fault_of("zone", None) == "name and value are texts"
