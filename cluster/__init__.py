"""Ray: actors that run pipeline workers, the pool that schedules calls on them, sessions.

The only package that imports ray. It holds nothing about images, plans or networks, and exports
nothing here: importing ray takes seconds, which commands without Ray should not pay.
"""
