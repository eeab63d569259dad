from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from facerelay.edge.cameras.raster import Image, Pixels, Planes
from facerelay.edge.eyes.colours import colours
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.places import OFTEN, Places, Rest, overlap
from facerelay.edge.eyes.track import Sighting, Tracker

WIDTH, HEIGHT = 1280, 720
RED, BLUE, GREEN, GREY = (40, 40, 200), (200, 60, 30), (40, 160, 40), (110, 110, 110)
SKIN, DARKER = (150, 170, 220), (60, 80, 120)
NOISE = np.random.default_rng(1).integers(0, 40, (HEIGHT, WIDTH, 1), dtype=np.uint8)
LIGHT = np.repeat(NOISE, 3, axis=2)

Colour = tuple[int, int, int]
Person = tuple[Detection, Colour]


def face(x: float, y: float = 200, size: float = 80) -> Detection:
    return Detection((x - size / 2, y - size / 2, size, size), 0.9)


def picture(*people: Person) -> Pixels:
    """The farthest first: whoever is nearer hides who is behind."""
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for detection, clothes in people:
        x, y, w, h = (round(each) for each in detection.box)
        skin = DARKER if clothes == BLUE else SKIN
        cv2.ellipse(image, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, skin, -1)
        cv2.rectangle(image, (x - w // 2, y + round(1.2 * h)), (x + 3 * w // 2, y + 3 * h), clothes, -1)
    return Pixels(cv2.subtract(image, LIGHT).astype(np.uint8))


def seen(tracker: Tracker, pts: float, *people: Person) -> list[Sighting]:
    return tracker.update(pts, [each for each, _ in people], picture(*people)).seen


def numbers(tracker: Tracker, pts: float, *faces: Detection) -> list[int]:
    return [each.track for each in tracker.update(pts, faces).seen]


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
        tracks = numbers(tracker, frame / 15, right) if hidden else numbers(tracker, frame / 15, right, left)
        assert tracks == ([1] if hidden else [1, 2])


def test_who_meet_and_turn_back_are_told_apart_by_their_clothes() -> None:
    tracker = Tracker()
    for frame in range(60):
        near = 100 + 15 * min(frame, 60 - frame)
        red, blue = (face(near), RED), (face(1080 - near), BLUE)
        assert [each.track for each in seen(tracker, frame / 10, red, blue)] == [1, 2]


def test_where_the_motion_says_swapped_and_the_clothes_say_not_the_clothes_are_believed() -> None:
    tracker = Tracker()
    for frame in range(10):
        seen(tracker, frame / 5, (face(100 + 45 * frame), RED), (face(1080 - 45 * frame), BLUE))
    tracks = seen(tracker, 2.0, (face(505), RED), (face(675), BLUE))
    assert [each.track for each in tracks] == [1, 2]


def test_in_the_place_of_who_was_lost_somebody_in_other_clothes_is_another() -> None:
    tracker = Tracker()
    for frame in range(10):
        seen(tracker, frame / 10, (face(400 + 12 * frame), RED))
    tracker.update(1.0, [], picture())
    assert [each.track for each in seen(tracker, 1.8, (face(520), BLUE))] == [2]


def test_whoever_walked_out_has_ended_at_once() -> None:
    tracker, empty = Tracker(), picture()
    for frame in range(30):
        tracker.update(frame / 15, [face(660 + 20 * frame)], empty)
    assert tracker.update(2.0, [], empty).ended == []
    assert tracker.update(2.3, [], empty).ended == [1]
    assert tracker.update(2.3, [face(1250)], empty).seen[0].track == 2


def test_who_comes_in_where_somebody_walks_out_is_another() -> None:
    tracker = Tracker()
    for frame in range(11):
        assert seen(tracker, frame / 7.5, (face(740 + 50 * frame, 200, 100), RED))[0].track == 1
    assert seen(tracker, 11 / 7.5, (face(1218, 200, 75), RED))[0].track == 2


def test_a_face_of_another_size_is_another() -> None:
    tracker = Tracker()
    for frame in range(5):
        numbers(tracker, frame / 15, face(300, 200, 160))
    assert numbers(tracker, 0.4, face(300, 200, 60)) == [2]


def test_few_frames_a_second_are_enough() -> None:
    tracker = Tracker()
    for frame in range(12):
        assert numbers(tracker, frame / 4, face(100 + 90 * frame)) == [1]


def test_who_runs_past_at_five_frames_a_second_is_one_visit() -> None:
    tracker = Tracker()
    for frame in range(8):
        tracks = seen(
            tracker, frame / 5, (face(100 + 150 * frame), RED), (face(1180 - 140 * frame, 560), BLUE)
        )
        assert [each.track for each in tracks] == [1, 2]


def test_the_end_ends_all() -> None:
    tracker = Tracker()
    numbers(tracker, 0.0, face(100), face(500))
    assert tracker.finish() == [1, 2]
    assert tracker.finish() == []
    assert numbers(tracker, 0.1, face(100)) == [3]


def stand(tracker: Tracker, pts: float, clothes: Colour, x: float) -> set[int]:
    """A face keeps still for 25 seconds: its visits."""
    return {each.track for n in range(25) for each in seen(tracker, pts + n, (face(x), clothes))}


def test_a_face_that_never_moved_is_the_same_visit_when_it_is_back() -> None:
    tracker, poster = Tracker(rest_s=60), (face(300), RED)
    assert stand(tracker, -30.0, RED, 300) == {1}
    for pts in (0.0, 10.0, 60.0):
        assert seen(tracker, pts, poster) == [Sighting(1, poster[0], returned=True)]
        assert [tracker.update(pts + more, [], picture()).ended for more in (1, 2, 3)] == [[], [], []]
    assert tracker.update(119.0, [], picture()).ended == []
    assert tracker.update(121.0, [], picture()).ended == [1]
    assert [each.track for each in seen(tracker, 122.0, poster)] == [2]


def test_without_a_rest_every_return_is_a_visit() -> None:
    tracker, poster = Tracker(rest_s=0), (face(300), RED)
    seen(tracker, 0.0, poster)
    tracker.update(1.0, [], picture())
    assert tracker.update(2.0, [], picture()).ended == [1]
    assert [each.track for each in seen(tracker, 3.0, poster)] == [2]


def arrive(tracker: Tracker, pts: float, clothes: Colour) -> set[int]:
    """Somebody walks to the middle, stands there for a second, and is gone."""
    tracks = set()
    for frame in range(30):
        person = face(min(640.0, 40 + 30 * frame)), clothes
        tracks |= {each.track for each in seen(tracker, pts + frame / 10, person)}
    for frame in range(20):
        tracker.update(pts + 3 + frame / 10, [], picture())
    return tracks


def test_two_who_come_to_the_same_spot_one_after_the_other_are_two_visits() -> None:
    tracker = Tracker()
    assert arrive(tracker, 0.0, RED) == {1}
    assert arrive(tracker, 6.0, RED) == {2}
    assert arrive(tracker, 12.0, BLUE) == {3}


def appear(tracker: Tracker, pts: float, clothes: Colour, seconds: int = 25) -> set[tuple[int, bool]]:
    """A face that stands in one place, and is gone: its visit, and whether it is a screen's."""
    sightings = [each for n in range(seconds) for each in seen(tracker, pts + n, (face(640), clothes))]
    for frame in range(20):
        tracker.update(pts + seconds + frame / 10, [], picture())
    return {(each.track, each.screen) for each in sightings}


def test_a_fourth_look_in_one_place_is_a_screens() -> None:
    tracker = Tracker()
    for number, clothes in enumerate((RED, BLUE, GREEN), 1):
        assert appear(tracker, 30.0 * number, clothes) == {(number, False)}
    assert appear(tracker, 120.0, GREY) == {(3, True)}
    assert appear(tracker, 150.0, (0, 230, 230)) == {(3, True)}
    assert appear(tracker, 180.0, RED) == {(1, False)}
    assert tracker.finish() == [1, 2, 3]


def test_people_who_stand_in_one_place_for_a_moment_are_a_visit_each() -> None:
    tracker = Tracker()
    looks = (RED, BLUE, GREEN, GREY, (0, 230, 230), (200, 200, 60))
    visits = [appear(tracker, 10.0 * n, clothes, 3) for n, clothes in enumerate(looks)]
    assert visits == [{(n, False)} for n in range(1, 7)]


def test_the_same_look_in_the_same_place_is_one_visit_from_the_fourth_time_on() -> None:
    tracker = Tracker()
    visits = [appear(tracker, 10.0 * n, RED, 3) for n in range(6)]
    assert visits == [{(1, False)}, {(2, False)}, {(3, False)}, {(3, False)}, {(3, False)}, {(3, False)}]


def grey(*people: Person) -> Pixels:
    bgr = picture(*people).cut((0, 0, WIDTH, HEIGHT))
    luma = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return Pixels(cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR).astype(np.uint8))


def test_without_hues_shades_alone_tell_two_people_apart() -> None:
    one, same, other = (
        colours(grey((face(300), clothes)), face(x)) for clothes, x in ((RED, 300), (RED, 302), (BLUE, 300))
    )
    assert one.grey
    assert not colours(picture((face(300), RED)), face(300)).grey
    assert one.differ(same) < 0.1 < one.unlike(other) < one.differ(other)


def test_pictures_that_stand_alone_are_joined_by_looks_and_leave_no_place_behind() -> None:
    tracker = Tracker(gap_s=5)

    def tracks(pts: float, clothes: Colour) -> list[int]:
        shown = picture((face(300), clothes))
        return [each.track for each in tracker.update(pts, [face(300)], shown, doubt=True, still=True).seen]

    assert [tracks(*each) for each in ((0, RED), (2, RED), (4, BLUE), (6, RED))] == [[1], [1], [2], [1]]
    for n in range(4, 30):
        assert tracks(2.0 * n, BLUE) == [2]
    assert tracker.update(80.0, [], picture()).ended == [2]
    assert tracks(82.0, BLUE) == [3]


def test_a_visitor_is_no_face_on_a_screen() -> None:
    tracker = Tracker()
    for number, clothes in enumerate((RED, BLUE, GREEN)):
        appear(tracker, 30.0 * number, clothes)
    assert arrive(tracker, 90.0, GREY) == {4}
    sightings = [seen(tracker, 100 + n / 10, (face(640 + 20 * n), GREY))[0] for n in range(10)]
    assert (sightings[0].track, sightings[0].screen) == (3, True)
    assert (sightings[-1].track, sightings[-1].screen) == (5, False)
    assert tracker.finish() == [1, 2, 3, 5]


def test_a_scene_cut_forgets_the_places() -> None:
    tracker, poster = Tracker(), (face(300), RED)
    stand(tracker, -30.0, RED, 300)
    assert [tracker.update(pts, [], picture()).ended for pts in (1.0, 2.0)] == [[], []]
    assert tracker.finish() == [1]
    assert [each.track for each in seen(tracker, 3.0, poster)] == [2]


def test_pictures_farther_apart_than_the_gap_show_visits_of_their_own() -> None:
    tracker, poster = Tracker(gap_s=1.5), (face(300), RED)
    assert [seen(tracker, pts, poster)[0].track for pts in (0.0, 3.0, 6.0)] == [1, 2, 3]


def test_who_stood_there_for_long_is_known_again_after_the_camera_was_gone() -> None:
    tracker, poster = Tracker(), (face(300), RED)
    stand(tracker, 0.0, RED, 300)
    assert tracker.miss(35.0).ended == []
    assert seen(tracker, 36.0, poster)[0].track == 1


def test_no_more_than_so_many_places_are_remembered() -> None:
    places = Places(rest_s=600)
    look = colours(picture((face(300), RED)), face(300))
    over = [each for n in range(1000) for each in places.leave(Rest(n, face(300), look, float(n), OFTEN))]
    assert over == list(range(1000 - 64))


def test_overlap_is_a_share_of_what_two_boxes_cover() -> None:
    assert overlap(face(100), face(100)) == pytest.approx(1.0)
    assert overlap(face(100), face(140)) == pytest.approx(1 / 3)
    assert overlap(face(100), face(200)) == 0.0


def test_colours_tell_clothes_apart_and_know_them_again() -> None:
    red, other, blue = (
        colours(picture((each, clothes)), each)
        for each, clothes in ((face(300), RED), (face(700, 240, 130), RED), (face(300), BLUE))
    )
    assert red.unlike(other) < 0.15
    assert red.unlike(blue) > 0.45
    assert red.mixed(blue, 0.5).unlike(red) < red.unlike(blue)


def test_colours_are_known_where_the_frame_cuts_the_clothes_off() -> None:
    whole, low = (colours(picture((each, RED)), each) for each in (face(300), face(300, HEIGHT - 60)))
    assert low.clothes is None
    assert low.unlike(whole) < 0.15
    outside = face(-500)
    nothing = colours(picture(), outside)
    assert (nothing.face, nothing.clothes, nothing.unlike(whole)) == (None, None, 0.0)


def test_colours_are_the_same_in_whichever_form_a_picture_came() -> None:
    person = face(300), RED
    bgr: Image = picture(person).cut((0, 0, WIDTH, HEIGHT))
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).astype(np.uint8)
    chroma = planes[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    yuv = Planes(planes[:HEIGHT], chroma[0], chroma[1])
    assert colours(Pixels(bgr), person[0]).unlike(colours(yuv, person[0])) < 0.15


def test_a_crowd_is_joined_to_its_tracks() -> None:
    tracker = Tracker()
    places = [(100 * (n % 12) + 60, 90 * (n // 12) + 60) for n in range(72)]
    for frame in range(5):
        moved = [face(x + 4 * frame, y + 3 * math.sin(frame), 50) for x, y in places]
        assert numbers(tracker, frame / 10, *moved) == list(range(1, 73))
