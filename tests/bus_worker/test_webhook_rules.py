"""Which URLs and addresses a webhook may have."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_worker.errors import BadRequest, BadSetting
from bus_worker.settings import Settings, load_settings
from bus_worker.webhook_rules import WebhookRules, check_url

NOT_PUBLIC = (
    "0.0.0.0",  # noqa: S104 - refused, not listened on
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "100::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%2", "fec0::1", "ff02::1",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255",
    "2606:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808",
)  # fmt: skip


def rules(*allow: str) -> WebhookRules:
    return WebhookRules.read(None, allow)


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# --- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str):
    assert not rules().permits("hooks.example", ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address: str):
    assert rules().permits("hooks.example", ip_address(address))
    assert check_url(f"https://{literal(address)}/", rules()).address == ip_address(address)


@given(st.ip_addresses())
def test_what_is_permitted_python_calls_global_too(address: IPv4Address | IPv6Address):
    carried = isinstance(address, IPv6Address) and address.ipv4_mapped
    if rules().permits("hooks.example", address):
        assert (carried or address).is_global
        assert not (carried or address).is_multicast


@pytest.mark.parametrize(
    ("allow", "host", "address"),
    [
        ("10.0.0.0/8", "hooks.example", "10.1.2.3"),
        ("10.1.2.3", "hooks.example", "::ffff:10.1.2.3"),
        ("10.1.2.3", "hooks.example", "64:ff9b::a01:203"),
        ("fd00::/8", "hooks.example", "fd00::1"),
        ("Hooks.Internal.", "hooks.internal", "10.9.9.9"),
    ],
)
def test_what_is_listed_is_permitted_and_nothing_beside_it(allow: str, host: str, address: str):
    assert rules(allow).permits(host, ip_address(address))
    assert not rules(allow).permits("other.internal", ip_address("192.168.0.1"))
    assert not rules(allow).permits(f"sub.{host}", ip_address("127.0.0.1"))


# --- URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [a for a in NOT_PUBLIC if "%" not in a])
def test_a_literal_address_that_is_not_public_is_refused_at_once(address: str):
    with pytest.raises(BadRequest, match=r"'webhook' must not lead to .* no public address"):
        check_url(f"https://{literal(address)}/hook", rules())


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f.1", "0x7f000001", "0X7F.0.0.1", "0177.0.0.1", "127.1", "127.0.0.1.1", "1.2.3.4.5",
        "256.1.1.1", "08.8.8.8", "0x", "1", "foo.0x7f", "foo.1", "2130706433.", "[1.2.3.4]", "[::1", "[]", "[:]",
        "[::ffff:127.1]", "[fe80::1%25eth0]", "[v1.x]",
    ],
)  # fmt: skip
def test_an_address_written_oddly_is_refused(host: str):
    with pytest.raises(BadRequest, match=r"'webhook' must (write an address in full|name a host)"):
        check_url(f"https://{host}/", rules("0.0.0.0/0", "::/0"))


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1."]
)
def test_this_machine_is_refused_by_whatever_name(host: str):
    with pytest.raises(BadRequest, match="must not lead to"):
        check_url(f"https://{host}/", rules())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example/", "an https:// URL"),
        ("http://8.8.8.8/", "an https:// URL"),
        ("ftp://hooks.example/", "an https:// URL"),
        ("//hooks.example/", "an https:// URL"),
        ("hooks.example", "an https:// URL"),
        ("https:hooks.example", "an https:// URL"),
        ("", "plain ASCII"),
        ("https://hooks.example/#part", "without a fragment"),
        ("https://hooks.example/#", "without a fragment"),
        ("https://me:hush@hooks.example/", "a user or a password"),
        ("https://me@hooks.example/", "a user or a password"),
        ("https://hooks.example\\@127.0.0.1/", "a user or a password"),
        ("https://hooks.example\\.evil/", "name a host"),
        ("https:///path", "name a host"),
        ("https://:443/", "name a host"),
        ("https://hooks.example:/", "name a host"),
        ("https://hooks.example:x/", "name a host"),
        ("https://hooks.example:443:443/", "name a host"),
        ("https://hooks..example/", "name a host"),
        ("https://-hooks.example/", "name a host"),
        ("https://.../", "name a host"),
        ("https://ho%6fks.example/", "name a host"),
        (f"https://{'a' * 64}.example/", "name a host"),
        (f"https://{'a.' * 127}example/", "name a host"),
        ("https://hooks.example:0/", "a port from 1 to 65535"),
        ("https://hooks.example:65536/", "a port from 1 to 65535"),
        ("https://hooks.example/a b", "plain ASCII"),
        ("https://hooks.example/\r\nX: 1", "plain ASCII"),
        ("\thttps://hooks.example/", "plain ASCII"),
        ("https://hooks.example/\n", "plain ASCII"),
        ("https://bücher.example/", "plain ASCII"),
        ("https://127。0。0。1/", "plain ASCII"),
        ("https://hooks.example/" + "a" * 1979, "at most 2000 characters"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url: str, why: str):
    with pytest.raises(BadRequest, match=f"^'webhook' must .*{why}") as caught:
        check_url(url, rules())
    assert caught.value.details == {"field": "webhook"}
    assert "hush" not in caught.value.message


def test_a_url_is_taken_apart():
    to = check_url("HTTPS://Hooks.Example.:8443?token=hush", rules())
    assert (to.scheme, to.host, to.port, to.target) == (
        "https", "hooks.example", 8443, "/?token=hush",
    )  # fmt: skip
    assert to.place == "hooks.example:8443"
    assert to.address is None
    assert "hush" not in repr(to)


def test_the_longest_url_is_taken_and_the_usual_port_goes_without_saying():
    to = check_url("https://[2606:4700::1111]/" + "a" * 1974, rules())
    assert to.place == "[2606:4700::1111]"
    assert check_url("https://hooks.example:443/", rules()).place == "hooks.example"


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("http://hooks.internal/", "hooks.internal"),
        ("http://10.0.0.7:8080/", "10.0.0.0/8"),
        ("http://localhost:3000/api", "localhost"),
        ("http://localhost:3000/api", "127.0.0.1"),
        ("https://localhost/", "::1"),
        ("https://[::1]/", "::1"),
        ("https://10.0.0.7/", "10.0.0.7"),
    ],
)
def test_what_is_listed_may_be_private_and_without_tls(url: str, allow: str):
    assert check_url(url, rules(allow))
    with pytest.raises(BadRequest):
        check_url(url, rules("hooks.elsewhere", "10.1.0.0/16"))


def test_a_name_under_a_listed_one_is_not_listed():
    with pytest.raises(BadRequest, match="https"):
        check_url("http://a.hooks.internal/", rules("hooks.internal"))


# --- settings --------------------------------------------------------------------------------


def test_the_settings_make_the_rules():
    settings = load_settings(
        {"WEBHOOK_SECRET": "whsec_" + "aGVs" * 8, "WEBHOOK_ALLOW": "Hooks.Internal, 10.0.0.0/8,::1"}
    )
    made = WebhookRules.read(settings.webhook_secret, settings.webhook_allow)
    assert made.key == b"hel" * 8
    assert made.names == {"hooks.internal"}
    assert [str(network) for network in made.networks] == ["10.0.0.0/8", "::1/128"]
    assert "hel" not in repr(made)


def test_a_secret_may_be_any_text_and_none_signs_nothing():
    settings = load_settings({"WEBHOOK_SECRET": "correct horse"})
    assert WebhookRules.read(settings.webhook_secret, ()).key == b"correct horse"
    assert WebhookRules.read(Settings().webhook_secret, Settings().webhook_allow) == WebhookRules()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_***", "whsec_aGVs", "whsec_" + "aGVs" * 22])
def test_a_secret_that_no_receiver_could_read_stops_the_start(secret: str):
    with pytest.raises(BadSetting, match="24 to 64 random bytes in base64") as caught:
        load_settings({"WEBHOOK_SECRET": secret})
    assert str(caught.value).startswith("WEBHOOK_SECRET=(hidden): must")


@pytest.mark.parametrize(
    "entry",
    ["https://hooks.internal", "hooks.internal:80", "*.internal", "10.0.0.1/8", "10.0.0.300", "[::1]", "a b", "0x7f.1"],
)  # fmt: skip
def test_an_entry_that_is_neither_a_name_nor_a_network_stops_the_start(entry: str):
    with pytest.raises(
        BadSetting, match=r"^WEBHOOK_ALLOW=.*: must be host names.* is none$"
    ) as caught:
        load_settings({"WEBHOOK_ALLOW": f"10.0.0.1, {entry}"})
    assert f"{entry!r} is none" in str(caught.value)
