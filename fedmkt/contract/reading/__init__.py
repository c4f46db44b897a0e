"""A contract as people read it, in English or Chinese: its content, what changed, what to look at twice."""
