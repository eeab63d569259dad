"""The bucket layout `shards`: many faces in one tar, and a catalogue in Parquet that says where each lies.

A shard is of one store and of one day of the faces' own times (UTC):

    shards/date=2026-11-21/20261121T101112Z-cloud-1a2b3c4d.tar
    catalogue/date=2026-11-21/20261121T101112Z-cloud-1a2b3c4d.parquet

The time in its name is that of its closing, the rest the store and eight digits: random ones, or of a
shard that was written anew a hash of its faces. Both objects are
written once and never changed: to erase a face the shard is written anew without it, under another name with
the same time.
The tar comes first, then its catalogue, then the receipts. A tar without a catalogue is of a store that fell
between: its faces are sent again, and may lie in two shards, which is why readers take each id once.
"""
