"""Text from elsewhere, made safe for a terminal: a guest's name or a comment in its XML may hold control sequences."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, with every character that a terminal might act on escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (PEP 383)
        code -= 0xDC00
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def printable_lines(data: bytes) -> bytes:
    """`data` with its lines and tabs kept and everything else that a terminal might act on escaped."""
    text = data.decode("utf-8", "surrogateescape")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n")).encode()
