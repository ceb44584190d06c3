import pytest

from imgtx.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2019/a b.jpg", "2019/a b.jpg"),
        ("Фото/写真 é\u3000ü.jpg", "Фото/写真 é\u3000ü.jpg"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\tc\r\x07\x7f", r"a\nb\tc\r\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("gnp.\u202egpj", r"gnp.\u202egpj"),
        ("a\u2028b", r"a\u2028b"),
        ("bad \udcff byte", r"bad \udcff byte"),
    ],
)
def test_what_could_move_the_cursor_is_escaped(text, shown):
    assert printable(text) == shown
