"""Access tokens: those that LiveKit's SDK mints admit; each fault has its documented status before the upgrade and close
code after it, and is counted."""
import base64
import json
import pathlib
import shutil
import subprocess
import time

from cluster import API_KEY, API_SECRET, base64url, mint, sign
from cluster_case import ENCODINGS, ClusterCase
from raw import Raw, frame, upgrade_request, TEXT
from wire import pb

HERE = pathlib.Path(__file__).resolve().parent
OTHER_SECRET = "another-secret-that-nobody-has-configured"


def livekit_tokens(wanted):
    """Tokens from npm livekit-server-sdk; (options, grant) each."""
    asked = [{"key": API_KEY, "secret": API_SECRET, "options": options, "grant": grant} for options, grant in wanted]
    done = subprocess.run([shutil.which("node"), HERE / "livekit_token.mjs"], input=json.dumps(asked), text=True,
                          capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"livekit_token.mjs failed (npm ci in {HERE}?): {done.stderr}")
    return json.loads(done.stdout)


def none_token(room):
    good = mint("ann", room).split(".")
    return f"{base64url(json.dumps({'alg': 'none'}).encode())}.{good[1]}."


def tampered(token, **changed):
    head, claims, signature = token.split(".")
    whole = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return f"{head}.{base64url(json.dumps({**whole, **changed}).encode())}.{signature}"


def faults(room):
    """name: (token, HTTP status, None if it shows only after hello, close code, outcome label in the metric)"""
    now = int(time.time())
    hs512 = sign({"alg": "HS512"}, {"iss": API_KEY, "sub": "ann", "exp": now + 99, "video": {"roomJoin": True, "room": room}},
                 digest="sha512")
    return {
        "algorithm none": (none_token(room), 401, 4308, "algorithm"),
        "algorithm HS512": (hs512, 401, 4308, "algorithm"),
        "algorithm RS256 with an HMAC key": (mint("ann", room, header={"alg": "RS256"}), 401, 4308, "algorithm"),
        "signature of another secret": (mint("ann", room, secret=OTHER_SECRET), 401, 4308, "signature"),
        "claims changed after signing": (tampered(mint("ann", room), sub="eve"), 401, 4308, "signature"),
        "no signature": (mint("ann", room).rpartition(".")[0] + ".", 401, 4308, "signature"),
        "unknown key": (mint("ann", room, iss="APIunknown"), 401, 4308, "unknown_key"),
        "no key": (mint("ann", room, iss=None), 401, 4308, None),
        "expired": (mint("ann", room, exp=now - 60), 401, 4308, "expired"),
        "no expiry": (mint("ann", room, exp=None), 401, 4308, "claims"),
        "not yet valid": (mint("ann", room, nbf=now + 600), 401, 4308, "not_yet_valid"),
        "wrong room": (mint("ann", "elsewhere"), None, 4309, "ok"),
        "no roomJoin": (mint("ann", room, grants={"roomJoin": None}), 403, 4309, "ok"),
        "roomJoin false": (mint("ann", room, grants={"roomJoin": False}), 403, 4309, "ok"),
        "no grants": (mint("ann", room, grants={"roomJoin": None, "room": None}), 403, 4309, "ok"),
        "no room": (mint("ann", room, grants={"room": None}), 403, 4309, "ok"),
        "no sub": (mint(None, room), 403, 4309, "ok"),
        "room of a wrong type": (mint("ann", room, grants={"room": 7}), 401, 4308, "claims"),
        "identity too long": (mint("a" * 129, room), 401, 4308, "claims"),
        "too large": (mint("ann", room, metadata="m" * 8000), 401, 4308, "too_large"),
        "two parts": ("aaaa.bbbb", 401, 4308, "malformed"),
        "not base64url": (mint("ann", room).replace(".", ".$", 1), 401, 4308, "malformed"),
        "not JSON": (f"{base64url(b'{')}.{base64url(b'{')}.AAAA", 401, 4308, "malformed"),
        "crit": (mint("ann", room, header={"alg": "HS256", "crit": ["exp"]}), 401, 4308, "malformed"),
    }


class TokenTest(ClusterCase):
    cluster_options = {"gateways": 1, "shards": 1}

    def outcomes(self, label):
        if label is None:
            return self.cluster.gateway().metric("signalbox_access_tokens_total")
        return self.cluster.gateway().metric(f'signalbox_access_tokens_total{{outcome="{label}"}}')

    async def test_tokens_of_the_livekit_sdk_admit(self):
        tokens = livekit_tokens([
            ({"identity": "ann", "name": "Ann", "metadata": '{"team": "blue"}', "attributes": {"role": "host"}},
             {"roomJoin": True, "room": "livekit"}),
            ({"identity": "bob"}, {"roomJoin": True, "room": "livekit", "canPublish": False, "canPublishData": False,
                                   "canSubscribe": True}),
            ({"identity": "cat", "ttl": "1h"}, {"roomJoin": True, "room": "livekit", "canPublishSources": [1, 2],
                                                "canUpdateOwnMetadata": False}),
        ])
        ann = await self.join("ann", "livekit", token=tokens[0])
        self.assertEqual((ann.hello_ok.self.name, ann.hello_ok.self.metadata, dict(ann.hello_ok.self.attributes)),
                         ("Ann", '{"team": "blue"}', {"role": "host"}))
        bob = await self.join("bob", "livekit", encoding="json", token=tokens[1])
        self.assertEqual(bob.hello_ok.self.kind, pb.Participant.VIEWER)
        self.assertFalse(bob.hello_ok.self.permissions.can_publish_data)
        send = pb.ClientMessage(route=pb.Route(seq=1), send=pb.Send(delivery=pb.RELIABLE, text="x"))
        self.assertEqual((await bob.request(send)).code, pb.FORBIDDEN)
        track = pb.Track(id="cam", kind=pb.Track.VIDEO, source=pb.CAMERA)
        publish = pb.ClientMessage(publish_track=pb.PublishTrack(track=track))
        self.assertEqual((await bob.request(publish)).code, pb.FORBIDDEN)
        cat = await self.join("cat", "livekit", token=tokens[2])
        self.assertEqual(list(cat.hello_ok.self.permissions.can_publish_sources), [pb.CAMERA, pb.MICROPHONE])
        self.assertEqual((await cat.request(publish)).code, pb.OK)
        screen = pb.Track(id="screen", kind=pb.Track.VIDEO, source=pb.SCREEN_SHARE)
        self.assertEqual((await cat.request(pb.ClientMessage(publish_track=pb.PublishTrack(track=screen)))).code,
                         pb.FORBIDDEN)
        self.assertEqual((await cat.request(pb.ClientMessage(set_metadata=pb.SetMetadata(name="Cat")))).code, pb.FORBIDDEN)

    async def test_a_token_may_come_in_each_of_four_ways(self):
        ways = {"header": {"token": mint("a", "ways")},
                "query": {"query": f"?access_token={mint('b', 'ways')}&x=y"},
                "subprotocol": {"protocols": ["signalbox.v1.protobuf", f"signalbox.token.{mint('c', 'ways')}"]}}
        for name, how in ways.items():
            with self.subTest(name):
                client = self.client()
                await client.open(self.cluster.url(), **how)
                client.send(pb.ClientMessage(hello=pb.Hello(join=pb.Join())))
                await client.joined()
                self.assertEqual(client.hello_ok.room, "ways")
        # Of several the first that is present counts: header, subprotocol, query.
        several = self.client()
        await several.open(self.cluster.url(), token=mint("first", "ways"), query=f"?access_token={mint('second', 'ways')}")
        several.send(pb.ClientMessage(hello=pb.Hello(join=pb.Join())))
        await several.joined()
        self.assertEqual(several.hello_ok.self.identity, "first")

    async def test_each_fault_is_refused_before_the_upgrade(self):
        for name, (token, status, _, label) in faults("faults").items():
            if status is None:
                continue
            with self.subTest(name):
                before = self.outcomes(label)
                refused = self.cluster.gateway().metric('signalbox_upgrades_total{outcome="token_refused"}')
                raw = await Raw.open(self.cluster)
                answer = await raw.http(upgrade_request(authorization=f"Bearer {token}"))
                self.assertIsNotNone(answer)
                self.assertEqual(answer.status, status, answer.body)
                problem = answer.problem()
                self.assertEqual(problem["code"], {401: "UNAUTHENTICATED", 403: "FORBIDDEN"}[status])
                if status == 401 and label:
                    self.assertTrue(problem["detail"].startswith(f"{label}: "), problem)
                self.assertEqual(self.outcomes(label), before + 1)
                self.assertEqual(self.cluster.gateway().metric('signalbox_upgrades_total{outcome="token_refused"}'),
                                 refused + 1)
                await raw.close()

    async def test_each_fault_is_refused_after_the_upgrade(self):
        for name, (token, _, close_code, label) in faults("faults").items():
            for encoding in ENCODINGS:
                with self.subTest(f"{name}, {encoding}"):
                    before = self.outcomes(label)
                    refused = self.cluster.gateway().metric('signalbox_joins_total{outcome="refused"}')
                    client = self.client(encoding)
                    with self.assertRaises(ConnectionError):
                        await client.connect(self.cluster.url(), token, room="faults")
                    self.assertEqual(client.close_code, close_code, client.close_reason)
                    self.assertEqual(client.leave.action, pb.STOP)
                    self.assertTrue(client.leave.message)
                    self.assertEqual(self.outcomes(label), before + 1)
                    self.assertEqual(self.cluster.gateway().metric('signalbox_joins_total{outcome="refused"}'), refused + 1)
                    await client.close()

    async def test_hello_without_a_token_is_unauthenticated(self):
        raw = await Raw.websocket(self.cluster)
        await raw.send(frame(TEXT, b'{"requestId": 9, "hello": {"join": {"room": "x"}}}'))
        messages, code, _ = await raw.read_messages()
        self.assertEqual(code, 4308)
        self.assertEqual([m["result"]["code"] for m in messages if "result" in m], ["UNAUTHENTICATED"])
        await raw.close()

    async def test_bad_resume_tokens_are_refused(self):
        ann = await self.join("ann", "resume")
        good = ann.resume_token
        middle = len(good) // 2
        flipped = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1:]
        for name, token in {"forged": flipped, "cut": good[:-4], "garbage": "AAAA", "not base64url": "$$$$",
                            "an access token": mint("ann", "resume")}.items():
            with self.subTest(name):
                client = self.client()
                client.resume_token = token
                before = self.cluster.gateway().metric("signalbox_resume_tokens_total")
                with self.assertRaises(ConnectionError):
                    await client.resume(self.cluster.url())
                self.assertEqual((client.close_code, client.leave.action), (4308, pb.STOP))
                self.assertEqual(self.cluster.gateway().metric("signalbox_resume_tokens_total"), before + 1)
        self.assertIsNone(ann.close_code)

    async def test_leave_by_post(self):
        ann, bob = await self.join("ann", "beacon"), await self.join("bob", "beacon")
        await self.all_see([ann, bob], ["ann", "bob"])

        async def post(body):
            raw = await Raw.open(self.cluster)
            answer = await raw.http(f"POST /v1/leave HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: "
                                    f"{len(body)}\r\n\r\n{body}".encode())
            await raw.close()
            return answer

        for bad in ("", "garbage", mint("ann", "beacon")):
            answer = await post(bad)
            self.assertEqual(answer.status, 401, answer.body)
            answer.problem()
        self.assertEqual((await post(ann.resume_token)).status, 204)
        await ann.until(lambda: ann.close_code == 1000)
        await bob.until(lambda: bob.identities() == ["bob"])
