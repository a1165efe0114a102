"""Text that a terminal can write: bars, dashes, class names from anywhere."""

import io
import os
import subprocess
import sys

import pytest

from alexnet_jax.wording import by_commas, of_values, printable, suggestion


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("utf-8", "███ Katze – 猫", "███ Katze – 猫"),
        ("latin-1", "███ Kätzchen – 猫", "### Kätzchen - \\u732b"),
        ("ascii", "█ Kätzchen … 3×4", "# K\\xe4tzchen ... 3x4"),
        ("utf-8", "cat\udcff", "cat\\udcff"),  # a file name that is not UTF-8
        ("utf-8", "a\x1b[2Jb\rc\n\td", "a\\x1b[2Jb\\rc\n\td"),
    ],
)
def test_what_the_encoding_lacks_is_plain_ascii_or_an_escape(encoding, text, written):
    target = stream(encoding)
    assert printable(text, target) == written
    target.write(printable(text, target))  # raises where it could not


def test_a_stream_without_an_encoding_takes_everything():
    assert printable("█ 猫", io.StringIO()) == "█ 猫"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_every_command_writes_on_any_terminal(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_jax"],
        env=dict(os.environ, PYTHONIOENCODING=encoding),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"[--flag=value ...]" in done.stdout


@pytest.mark.parametrize("number", [int, float])
def test_what_is_no_number_is_told_without_pythons_words(number):
    with pytest.raises(ValueError) as raised:
        number("1,5")
    kind = "whole number" if number is int else "number"
    told = of_values(f"flag --rate=1,5: {raised.value}; give 1.5 or 'none'")
    assert told == f"flag --rate=1,5: '1,5' is no {kind}; give 1.5 or 'none'"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "flag --config.model.lrn=maybe: ('Non-boolean argument to boolean flag', 'maybe')",
            "flag --config.model.lrn=maybe: 'maybe' is not true or false",
        ),
        (
            "it is damaged (Could not override field 'seed' (reference). x is of original type "
            "<class 'str'> and cannot be casted to type <class 'int'>); restore it",
            "it is damaged (seed=x; it is a whole number); restore it",
        ),
    ],
)
def test_what_is_of_another_type_is_told_without_libraries_words(message, told):
    assert of_values(message) == told


def test_a_flag_that_is_given_twice_names_all():
    assert by_commas(["conv1,conv2", " fc6 ,", ""]) == ["conv1", "conv2", "fc6"]


def test_a_name_in_capitals_is_meant():
    assert suggestion("FC7", ["fc6", "fc7"]) == "did you mean 'fc7'?"
    assert suggestion("resnext", ["ResNet", "VGG"]) == "did you mean 'ResNet'?"
    assert suggestion("x", ["ResNet", "VGG"]) == "use one of ResNet, VGG"
