import pytest

from bot import replies


def test_text_comes_back():
    assert "the weather is fine" in replies.reply("the weather is fine")


@pytest.mark.parametrize("text", ["hello", "Hello!", "hey", "Good morning."])
def test_greetings_are_answered(text):
    assert replies.reply(text) == "hello"


def test_a_second_greeting_is_noticed():
    assert replies.reply("hello", count=2) == "hello again"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_silence_is_not_echoed(text):
    assert replies.reply(text) == "say something"


def test_questions_are_not_answered():
    assert replies.reply("why?") == "I wonder too: why?"
