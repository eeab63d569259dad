"""Between brokers: the session, the embedded broker, the bridge and the forwarder."""
