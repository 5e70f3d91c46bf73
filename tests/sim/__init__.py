"""The fault world: the hub's core, the agents' machines and a store in one seeded, virtual world."""
