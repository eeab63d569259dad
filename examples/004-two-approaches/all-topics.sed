# What `facerelay bridge mosquitto` prints, as a bridge of all topics: `#` covers the faces and the ledger.
# What came down by the bridge does not go back up: Mosquitto keeps it from the bridge that brought it.
/^topic ledger/d
s/^topic image out/topic # out/
