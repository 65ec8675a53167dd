"""Is this image complete? `python -m bot.selfcheck`. Needs no database."""

from bot import VERSION, config, migrate, replies, scheduler, web

if __name__ == "__main__":
    config.load({})
    assert replies.reply("hello") == "hello"
    assert web.Bot({}).application() and scheduler.OVERLAPS and migrate.main
    print(f"bot {VERSION}: complete")
