"""From a camera to the outbox, and from the outbox to the first broker."""
