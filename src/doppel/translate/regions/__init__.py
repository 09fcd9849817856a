"""Tier 1: hot guest code becomes native code that keeps guest registers in host registers."""
