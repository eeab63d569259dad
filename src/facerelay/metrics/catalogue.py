"""The one list of metrics: what each is called, what it says, who serves it.

Sites and cameras come from the books, as many as `MOST_CAMERAS`, reasons from `facerelay.reasons`; what is
beyond goes under `other`. A camera's books are served by capture, and by the store as the edge last told
them: where both are scraped, take the `max by (site, camera)`.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from facerelay.metrics.base import Kind, Metric

MOST_CAMERAS: Final = 1_000
OTHER: Final = "other"

CAPTURE: Final = ("capture",)
FORWARD: Final = ("forward",)
BROKER: Final = ("broker",)
STORE: Final = ("store",)
GALLERY: Final = ("gallery",)
BOOKS: Final = (*CAPTURE, *STORE)
ALL: Final = (*CAPTURE, *BROKER, *FORWARD, *STORE, *GALLERY)

_CAMERA: Final = ("site", "camera")
_WHY: Final = ("site", "camera", "reason")
_listed: list[Metric] = []


def _metric(
    name: str, says: str, labels: tuple[str, ...] = (), *, roles: tuple[str, ...], kind: Kind = "gauge"
) -> Metric:
    """Put a metric on the list; one whose name ends in `_total` is a counter."""
    kind = "counter" if name.endswith("_total") else kind
    full = name if name.startswith("process_") else f"facerelay_{name}"
    metric = Metric(full, kind, says, labels, roles)
    _listed.append(metric)
    return metric


_every = partial(_metric, roles=ALL)
_camera = partial(_metric, labels=_CAMERA, roles=BOOKS)
_reason = partial(_metric, labels=_WHY, roles=BOOKS)
_site = partial(_metric, labels=("site",), roles=BOOKS)
_session = partial(_metric, labels=("broker", "connection"), roles=(*CAPTURE, *FORWARD, *STORE))
_way = partial(_metric, labels=("direction",), roles=FORWARD)
_broker = partial(_metric, roles=BROKER)
_store = partial(_metric, roles=STORE)
_gallery = partial(_metric, roles=GALLERY)

# every role

BUILD: Final = _every("build_info", "1; the version, and the role.", ("version", "role"))
READY: Final = _every("ready", "1 while the role can do its work, 0 while it cannot: /readyz says why.")
FAILURES: Final = _every("metrics_failures_total", "Figures that could not be read.")
CPU: Final = _every("process_cpu_seconds_total", "CPU that the process has used.")
MEMORY: Final = _every("process_resident_memory_bytes", "Memory of the process.")
STARTED: Final = _every("process_start_time_seconds", "When the process began, in Unix seconds.")
OPEN_FILES: Final = _every("process_open_fds", "Files and connections that the process has open.")

# the books of each camera

FRAMES: Final = _camera("camera_frames_total", "Frames that the camera gave.")
INSPECTED: Final = _camera("camera_frames_inspected_total", "Frames that the detector looked at.")
GAPS: Final = _camera("camera_gaps_total", "How often the camera was gone.")
DARK: Final = _camera("camera_dark_seconds_total", "For how long the camera was gone in all.")
DARK_NOW: Final = _camera("camera_dark", "1 while the camera is gone.")
DETECTIONS: Final = _camera("detections_total", "Faces found in frames.")
UNSENT: Final = _reason(
    "unsent_total", "Frames, detections and visits of which no face was captured, by reason."
)
CAPTURED: Final = _camera(
    "faces_captured_total", "Faces that were captured: on the edge's disk, in the outbox."
)
STORED: Final = _camera("faces_stored_total", "Faces with a receipt: they lie in the bucket.")
SENT: Final = _camera(
    "faces_sent_total", "Faces that went on a broker's word alone (delivery fast or broker)."
)
WAITING: Final = _camera("faces_waiting", "Faces that wait in the outbox for their receipt.")
DROPPED: Final = _reason("faces_dropped_total", "Faces that the edge gave up, by reason.")
REFUSED: Final = _reason(
    "faces_refused_total", "Faces that were refused, and are kept at the edge, by reason."
)
ERASED: Final = _camera("faces_erased_total", "Faces that were erased before they were stored.")
DUPLICATES: Final = _camera("faces_duplicate_total", "Receipts that say: it was there already.")
UNACCOUNTED: Final = _camera(
    "faces_unaccounted", "Captured, less all other columns: 0 where the books close."
)
SENT_BYTES: Final = _camera(
    "sent_bytes_total", "Bytes of faces handed to the edge's broker, what was sent again included."
)
LATENCY_P50: Final = _camera(
    "face_latency_median_seconds", "From the choice of a picture to its receipt, of the last 1,000."
)
LATENCY_P99: Final = _camera("face_latency_p99_seconds", "The same: 99 of 100 were as quick.")

# the link, as the outboxes of a site see it

OLDEST: Final = _site("oldest_waiting_seconds", "Age of the oldest face that waits; 0 where none does.")
SILENT: Final = _site(
    "link_silent_seconds",
    "Since the last receipt, while faces are on their way and none is answered; else 0.",
)
ROUND_TRIP: Final = _site("receipt_round_trip_seconds", "From a face to its receipt, smoothed.")
IN_FLIGHT: Final = _site("in_flight_bytes", "Bytes that were sent and have no receipt.")
HELD_FACES: Final = _site("held_faces", "Faces that a store holds in an open shard: they are stored soon.")
WINDOW: Final = _site("window_bytes", "Bytes that may be in flight.")
EDGE_DROPPED: Final = _site(
    "edge_broker_dropped_total", "Messages that the edge's broker dropped, where it says so."
)
CUTS: Final = _site("link_cuts_total", "How often the link was found to be down.")
RESETS: Final = _site("link_resets_total", "How often a link that was up and stuck was made anew.")
LOST: Final = _site(
    "faces_lost", "Faces that the last audit of the whole outbox has missed; missing where there was none."
)
ALARMS: Final = _metric(
    "alarms", "What is wrong now: what the health page says in words.", ("severity", "kind"), roles=BOOKS
)

# capture

LINK_UP: Final = _site(
    "link_up",
    "1 while the link to the cloud is up, 0 while it is down; missing where not known.",
    roles=CAPTURE,
)
RECEIPT: Final = _site(
    "receipt_seconds",
    "From the first send of a face to its receipt on disk.",
    roles=CAPTURE,
    kind="histogram",
)
RESENT: Final = _site("faces_resent_total", "Sends of faces that had been sent before.", roles=CAPTURE)
IGNORED: Final = _metric(
    "ignored_messages_total",
    "What came as a store's word and was ignored, since none of the site authority's stores had signed it.",
    ("site", "reason"),
    roles=CAPTURE,
)
OUTBOX: Final = _metric("outbox_bytes", "Bytes of pictures in the outbox.", roles=CAPTURE)
OUTBOX_LIMIT: Final = _metric("outbox_limit_bytes", "outbox.max_bytes.", roles=CAPTURE)

# connections with brokers

CONNECTED: Final = _session("connected", "1 while a connection with a broker stands.")
CONNECTION_RESETS: Final = _session(
    "connection_resets_total", "Connections that stood, and were dropped by us since they were stuck."
)
FORWARDED: Final = _way("forwarded_messages_total", "Messages that the other broker has.")
FORWARDED_BYTES: Final = _way("forwarded_bytes_total", "Bytes of their payloads.")
FORWARDING: Final = _way(
    "forward_in_flight", "Messages taken from one broker, and not confirmed by the other."
)
GIVEN_UP: Final = _way("forward_given_up_total", "Messages that the other broker would not take.")

# the stream that stores share (intake jetstream)

INTAKE_CONNECTED: Final = _store("intake_connected", "1 while the stream of faces can be asked.")
INTAKE_PENDING: Final = _store(
    "intake_pending", "Faces that wait in the stream for any store of the group: each store tells the same."
)

# the embedded broker

BROKER_UP: Final = _broker("broker_up", "1 while the embedded broker tells its figures.")
BROKER_CLIENTS: Final = _broker("broker_connections", "Clients that are connected.")
BROKER_MESSAGES: Final = _broker("broker_received_messages_total", "Messages that were published to it.")
BROKER_BYTES: Final = _broker("broker_received_bytes_total", "Bytes of these.")
BROKER_SLOW: Final = _broker("broker_slow_consumers_total", "Clients cut off since they read too slowly.")
BROKER_REFUSED: Final = _broker(
    "broker_refused_total",
    "What it refused: a certificate, a machine that is not enrolled, a publish, a subscribe.",
    ("reason",),
)
BROKER_MEMORY: Final = _broker("broker_memory_bytes", "Memory of the embedded broker.")
BROKER_STORED: Final = _broker("broker_stored_bytes", "Bytes that it keeps on disk.")

# the store

KEPT: Final = _store("store_faces_total", "Faces and pictures, by what became of them.", ("outcome",))
KEPT_BYTES: Final = _store("store_bytes_total", "Bytes of faces that were stored.")
HELD: Final = _store("store_held", "Faces in open shards: in memory, and told `held`.")
SHARDS: Final = _store("store_shards_total", "Shards that were closed: a tar each, and a catalogue.")
SHARD_BYTES: Final = _store("store_shard_bytes_total", "Bytes of their tars.")
STORE_REFUSED: Final = _store("store_refused_total", "Faces that were refused, by reason.", ("reason",))
QUARANTINED: Final = _store(
    "store_quarantined_total", "Messages that were set aside, by reason.", ("reason",)
)
DISCARDED: Final = _store(
    "store_discarded_total", "Messages that were counted and not kept, by reason.", ("reason",)
)
PUT: Final = _store("store_put_seconds", "How long the bucket takes for a face.", kind="histogram")
PUT_FAILURES: Final = _store(
    "store_bucket_failures_total", "Tries that the bucket did not take; each is made again."
)
IN_HAND: Final = _store("store_in_hand", "Messages that are being dealt with.")
IN_HAND_MOST: Final = _store("store_in_hand_limit", "store.concurrency.")
HELLOS: Final = _store("store_hellos_total", "How often the store announced itself: at each connection.")
BOOKS_AGE: Final = _store(
    "books_age_seconds",
    "Since the store last heard a site's books; of several outboxes the oldest.",
    ("site",),
)

# the gallery

REQUESTS: Final = _gallery("gallery_requests_total", "Answers, by the class of their code.", ("code",))
BUCKET_REQUESTS: Final = _gallery("gallery_bucket_requests_total", "Requests made of the bucket.")
LOGINS: Final = _gallery(
    "gallery_logins_total", "Tries to log in: in, failed, or held off after too many failures.", ("outcome",)
)
LISTENERS: Final = _gallery("gallery_listeners", "Pages that are open and told of new faces.")

CATALOGUE: Final = tuple(_listed)
"""All of them, in the order of the docs."""
