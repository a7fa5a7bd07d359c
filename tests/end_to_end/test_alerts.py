"""A gateway that tells a webhook of quotas that are nearly used, while requests come in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy.alerts.webhook import key_of, signature
from tests.alerts.receivers import running_receiver
from tests.support.gateways import SampleProvider, configuration, key_id, running_gateway
from tests.support.polling import eventually

SECRET = "a secret of the tests, long enough"


async def test_a_gateway_tells_of_a_quota_that_is_used_and_of_one_that_refuses(
    provider: SampleProvider, tmp_path: Path
) -> None:
    async with running_receiver() as receiver:
        toml = configuration(f"embedded:{tmp_path}/data", provider.url)
        toml += f'\n[[alerts]]\nname = "ops"\nwebhook = "{receiver.url}"\nsecret_env = "ALERTS_SECRET"\n'
        with running_gateway(tmp_path, toml, {"ALERTS_SECRET": SECRET}) as gateway:
            used_up, refused = gateway.make_key(10_000), gateway.make_key(12_000)
            statuses = [
                (await asyncio.to_thread(gateway.generate, key, n=n)).status
                for key, n in ((used_up, 2), (refused, 2), (refused, 1))
            ]
            assert statuses == [200, 200, 429]

            async def are_told() -> bool:
                told = {call.json["data"]["account"] for call in receiver.calls if call.json["data"]["percent"] == 100}
                return told == {key_id(used_up), key_id(refused)}

            await eventually(are_told, within_s=15)
            assert SECRET not in gateway.server.output
    ids = [call.headers["webhook-id"] for call in receiver.calls]
    assert len(set(ids)) == len(ids)
    for call in receiver.calls:
        seconds = int(call.headers["webhook-timestamp"])
        expected = signature(key_of(SECRET), call.headers["webhook-id"], seconds, call.body)
        assert call.headers["webhook-signature"] == expected
    by_account = {call.json["data"]["account"]: call.json["data"] for call in receiver.calls}
    assert by_account[key_id(used_up)]["posted"] == 10_000
    assert by_account[key_id(refused)]["refused"] is True
