from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.api_key import make_key_id, make_key_text
from tests.support.gateways import (
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    key_id,
    running_gateway,
)
from tests.support.processes import wait_for

Series = tuple[str, frozenset[tuple[str, str]]]
SCRAPES = 40
FLOOD = 60


def samples(gateway: RunningGateway) -> dict[Series, float]:
    families = text_string_to_metric_families(gateway.metrics())
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
        if one.name.startswith("lightmeter_")
    }


def flood(gateway: RunningGateway, key: str, number: int) -> None:
    """What strangers and the confused send, each time with another name."""
    choice = random.Random(number).choice  # noqa: S311 - the same flood each time
    stranger = make_key_id(f"team-{number}", choice)
    gateway.generate(key, model=f"nobody/none-{number}")
    gateway.generate(f"lm_nonsense_{number}")
    # Of the right form, so that it is the store that refuses them: of no team that there is, and of one.
    gateway.generate(make_key_text(stranger, choice))
    gateway.generate(make_key_text(key_id(key), choice))
    ask("GET", f"{gateway.url}/no/such/route/{number}", key=key)
    ask("PATCH", f"{gateway.url}/v1/images/generations?{number}", key=key)
    ask("GET", f"{gateway.url}/v1/models/nobody/none-{number}", key=key)
    ask("GET", f"{gateway.url}/v1/key", key=f"lm_nonsense_{number}")
    gateway.generate(key, **{f"field_{number}": 1})
    ask("GET", f"{gateway.admin_url}/admin/v1/teams/team-{number}")
    gateway.admin("GET", f"/admin/v1/keys/{stranger}")
    gateway.admin("GET", f"/admin/v1/ledger?team=team-{number}")


def test_unknown_names_add_no_series(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, metrics={"label_teams": 5})
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key(100_000)
        gateway.generate(key)
        flood(gateway, key, 0)
        # A team's figures are read beside the requests, and the first time when they can be.
        wait_for(
            lambda: any(name == "lightmeter_team_quota_units" for name, _ in samples(gateway)), "the team's figures"
        )
        before = set(samples(gateway))
        for number in range(1, FLOOD):
            flood(gateway, key, number)
        assert set(samples(gateway)) - before == set()


def check_identity(found: dict[Series, float]) -> float:
    """The units held now, of all models; of each of them, what was reserved is charged, released or held."""
    units: dict[str, dict[str, float]] = defaultdict(dict)
    held: dict[str, float] = {}
    for (name, labels), value in found.items():
        label = dict(labels)
        if name == "lightmeter_quota_units_total":
            units[label["model"]][label["state"]] = value
        elif name == "lightmeter_quota_units_held":
            held[label["model"]] = value
    for model, of in units.items():
        settled = of.get("charged", 0) - of.get("overage", 0) + of.get("released", 0)
        assert of["reserved"] == settled + held[model], (model, of, held)
    return sum(held.values())


def test_at_each_scrape_what_was_reserved_is_charged_released_or_held(provider: SampleProvider, tmp_path: Path) -> None:
    models = [image_model(), image_model("acme/image-2", "1.5")]
    prompts = [
        "a cube",
        "[sample delay_ms=30] a cube",
        "[sample images=3] more than asked",
        "[sample images=1] fewer than asked",
        "[sample status=500] a failure",
        "[sample image_bytes=3000 truncate_after=5000] half of it",
    ]
    ended = threading.Event()
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, models=models, logs={"requests": False})
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key(10**12)

        def send(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - the same load each time
            while not ended.is_set():
                model = chance.choice(models)["id"]
                gateway.generate(
                    key, model=model, prompt=chance.choice(prompts), n=chance.randint(1, 3), response_format="b64_json"
                )

        threads = [threading.Thread(target=send, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: "lightmeter_quota_units_held" in gateway.metrics(), "the first admission")
            held = [check_identity(samples(gateway)) for _ in range(SCRAPES)]
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        # It was under way at several scrapes, so that the law had something to hold for.
        assert sum(units > 0 for units in held) > SCRAPES // 4
        after = samples(gateway)
        assert check_identity(after) == 0
        charged = sum(
            value
            for (name, labels), value in after.items()
            if name == "lightmeter_quota_units_total" and ("state", "charged") in labels
        )
        assert (
            charged
            == gateway.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage").json["limits"]["quota_units"]["posted"]
        )
