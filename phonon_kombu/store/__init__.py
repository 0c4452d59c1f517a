"""The only room that knows key names, Lua and redis-py."""
