"""The job machine's Lua scripts against real servers: grid, walks, fence, faults, foreign peers."""
