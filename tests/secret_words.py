"""The secrets that the tests use, and a look for them in what was written: none may ever be (docs/signing.md)."""

#: What must not be seen anywhere. Fixtures add the passwords that they make.
_KNOWN: set[str] = {"hush-hush", "soak-soak-soak-soak", "0123456789abcdef0123456789abcdef"}


def know(*secrets: str) -> None:
    """Look for these from now on."""
    _KNOWN.update(secrets)


def leaked(text: str) -> list[str]:
    """Give the lines of a text that hold a secret."""
    if not any(secret in text for secret in _KNOWN):
        return []
    return [line for line in text.splitlines() if any(secret in line for secret in _KNOWN)]


def checked(text: str) -> str:
    """Give a text back that holds no secret; else fail, without its repeating them."""
    assert not leaked(text), f"a secret was written, in {len(leaked(text))} lines"
    return text
