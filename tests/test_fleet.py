from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.fleet import cost
from bench.fleet.__main__ import whole
from bench.fleet.plan import Fleet
from bench.fleet.run import play

from conftest import need

ROOT = Path(__file__).parent.parent


@pytest.fixture
def known() -> dict[str, Any]:
    return tomllib.loads((ROOT / "bench" / "fleet" / "prices.toml").read_text(encoding="utf-8"))


def measured() -> cost.Measured:
    return cost.Measured(
        face_up=9_000, face_down=300, idle_up=30, idle_down=5, face_us=500, idle_us=100, site_mb=0.1
    )


@pytest.mark.timeout(120)
def test_twenty_sites_of_which_some_lose_their_line_close_their_books(tmp_path: Path) -> None:
    need("mosquitto")
    fleet = Fleet(sites=20, rate=3, seconds=2.5, idle_s=2.5, outage=0.1, slow=0.05, processes=2)
    result = play(fleet, tmp_path / "run", lambda _: None)
    assert whole(result), (result["books"], result["audit"])
    books = result["books"]
    assert books["offered"] == books["stored"] >= 20 * 20
    assert books["outboxes"] == 20
    assert result["phases"]["outage"]["receipt_ms_of_cut"]["max"] > 500, "their line was cut"
    assert result["phases"]["before"]["requests"]["PUT faces"] > 0
    assert result["cpu_us_per_face"]["store"]["all"] > 0


def test_whose_books_do_not_close_is_told() -> None:
    names = ("offered", "captured", "stored")
    sound: dict[str, Any] = {
        "books": dict.fromkeys(names, 5) | {"not_closed": []},
        "audit": {"missing": 0, "strange": 0, "twice": 0},
    }
    assert whole(sound)
    for wrong in (
        sound | {"books": sound["books"] | {"stored": 4}},
        sound | {"books": sound["books"] | {"not_closed": [{"site": "site-1"}]}},
        sound | {"audit": {"missing": 1, "strange": 0, "twice": 0}},
        sound | {"audit": {"missing": 0, "strange": 0, "twice": 1}},
    ):
        assert not whole(wrong)


def test_the_same_seed_troubles_the_same_lines() -> None:
    fleet = Fleet(sites=100, outage=0.1, slow=0.05, counted=4, seed=7)
    found = fleet.troubles()
    assert found == fleet.troubles() != replace(fleet, seed=8).troubles()
    kinds = list(found.values())
    assert {kind: kinds.count(kind) for kind in kinds} == {"reset": 5, "dead": 5, "slow": 5, "counted": 4}


def test_a_face_a_second_costs_what_its_puts_cost(known: dict[str, Any]) -> None:
    one = cost.month(1, 86_400, measured(), known["assumed"])
    paid = cost.money(one, known["provider"]["aws"], 1)
    assert one.face_requests == 2_592_000
    assert paid["faces' requests"] == pytest.approx(12.96)
    assert paid["storage"] == pytest.approx(0.54, abs=0.01)
    assert one.site_requests == pytest.approx(259_200 + 43_200)


def test_shards_cost_by_stores_and_bytes_not_by_faces(known: dict[str, Any]) -> None:
    objects = cost.month(1_000, 86_400, measured(), known["assumed"])
    shards = cost.month(1_000, 86_400, measured(), known["assumed"], shards=True)
    assert objects.face_requests / shards.face_requests > 50
    assert shards.face_requests == pytest.approx(2 * 2.592e9 * 9_000 / 32e6)
    few = cost.month(10, 2_000, measured(), known["assumed"], shards=True)
    assert few.face_requests == pytest.approx(2 * 30 * 288), "one each five minutes"


def test_a_quiet_door_pays_for_its_books(known: dict[str, Any]) -> None:
    quiet = cost.month(1_000, 2_000, measured(), known["assumed"])
    assert quiet.site_requests > quiet.face_requests == 60_000_000
    books = 30 * (2_000 + (86_400 - 20_000) / 30)
    assert quiet.site_requests == pytest.approx(1_000 * (books + 43_200))


def test_machines_follow_cores_memory_and_stores(known: dict[str, Any]) -> None:
    def count(cameras: int, one: cost.Measured, faces: float = 2_000) -> int:
        return cost.machines(
            cost.month(cameras, faces, one, known["assumed"]), cameras, one, known["assumed"]
        )

    light = replace(measured(), face_us=0, idle_us=0, site_mb=0)
    assert count(10, light) == 1
    assert count(100_000, light) == 25, "fifty stores"
    assert count(100_000, replace(light, site_mb=6)) == 100
    assert count(1_000, replace(light, idle_us=20_000)) == 20


def test_the_page_has_the_tables_that_the_figures_make(known: dict[str, Any]) -> None:
    found = json.loads((ROOT / "bench" / "results" / "fleet.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    made = cost.tables(cost.Measured.of(found["cost"]["runs"][-1]), known)
    assert cost.page(text, made) == text, "run `python -m bench.fleet.cost`"


def test_a_broker_that_cannot_share_is_refused_in_words() -> None:
    command = [sys.executable, "-m", "bench.fleet", "--sites", "2", "--broker", "nats", "--intake", "shared"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "NATS has no $share" in ended.stderr
