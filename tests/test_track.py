from __future__ import annotations

from facerelay.edge.detect import Detection
from facerelay.edge.track import Tracker


def face(x: float, y: float = 200, size: float = 80) -> Detection:
    return Detection((x - size / 2, y - size / 2, size, size), 0.9)


def numbers(tracker: Tracker, pts: float, *faces: Detection) -> list[int]:
    return [number for number, _ in tracker.update(pts, faces).seen]


def test_one_person_is_one_track_while_walking() -> None:
    tracker = Tracker()
    for frame in range(60):
        assert numbers(tracker, frame / 15, face(50 + 20 * frame)) == [1]


def test_a_hidden_face_keeps_its_track() -> None:
    tracker = Tracker(gap_s=1.5)
    for frame in range(10):
        numbers(tracker, frame / 30, face(300 + frame % 3))
    for frame in range(10, 45):
        assert tracker.update(frame / 30, []).ended == []
    assert numbers(tracker, 45 / 30, face(310)) == [1]


def test_a_long_absence_ends_the_visit() -> None:
    tracker = Tracker(gap_s=1.5)
    numbers(tracker, 0.0, face(300))
    assert tracker.update(1.4, []).ended == []
    assert tracker.update(1.6, []).ended == [1]
    assert numbers(tracker, 1.7, face(300)) == [2]


def test_two_who_cross_keep_their_tracks() -> None:
    tracker = Tracker()
    for frame in range(70):
        right, left = face(100 + 12 * frame, 200, 90), face(940 - 12 * frame, 210, 70)
        hidden = abs(right.box[0] - left.box[0]) < 60
        seen = numbers(tracker, frame / 15, right) if hidden else numbers(tracker, frame / 15, right, left)
        assert seen == ([1] if hidden else [1, 2])


def test_whoever_walked_out_has_ended_at_once() -> None:
    tracker, size = Tracker(), (1280, 720)
    for frame in range(30):
        tracker.update(frame / 15, [face(660 + 20 * frame)], size)
    assert tracker.update(2.0, [], size).ended == []
    assert tracker.update(2.3, [], size).ended == [1]
    assert tracker.update(2.3, [face(1250)], size).seen[0][0] == 2


def test_a_face_of_another_size_is_another() -> None:
    tracker = Tracker()
    for frame in range(5):
        numbers(tracker, frame / 15, face(300, 200, 160))
    assert numbers(tracker, 0.4, face(300, 200, 60)) == [2]


def test_few_frames_a_second_are_enough() -> None:
    tracker = Tracker()
    for frame in range(12):
        assert numbers(tracker, frame / 4, face(100 + 90 * frame)) == [1]


def test_the_end_ends_all() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, face(100), face(500))
    assert tracker.finish() == [1, 2]
    assert tracker.finish() == []
    assert numbers(tracker, 0.1, face(100)) == [3]
