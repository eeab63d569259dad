"""A fleet of sites on one machine: real outboxes against a real cloud side, and what that costs."""
