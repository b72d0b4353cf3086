"""``make faults``: seeded schedules of faults, after which nothing may be lost and nothing counted twice."""
