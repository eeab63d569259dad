"""Whoever else is told of what capture sees: Home Assistant, and what was written for Frigate."""
