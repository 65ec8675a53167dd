"""What the bot answers. No input or output here."""

GREETINGS = {"hi", "hello", "hey", "good morning"}


def reply(text, count=1):
    """The answer to the user's `count`-th message of this session."""
    words = text.strip()
    if not words:
        return "say something"
    if words.lower().rstrip("!.") in GREETINGS:
        return "hello again" if count > 1 else "hello"
    if words.endswith("?"):
        return f"I wonder too: {words}"
    return f"you said: {words}"
