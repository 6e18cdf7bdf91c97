"""A secret in any place of a domain XML that takes one is in no output of a command, nor in what the hook leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import emupin
from hosts import UUID, Host

SECRET = "s3cr3t"

PLACES = """\
  <title>s3cr3t-title</title>
  <description>s3cr3t-description</description>
  <!-- s3cr3t-comment -->
  <metadata>
    <app:note xmlns:app="urn:example:app" token="s3cr3t-attribute">s3cr3t-metadata</app:note>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>s3cr3t-display-name</nova:name>
      <nova:flavor name="nfv.large"><nova:extraSpecs><nova:extraSpec name="k">s3cr3t-spec</nova:extraSpec></nova:extraSpecs></nova:flavor>
      <nova:owner><nova:user uuid="u">s3cr3t-user</nova:user><nova:project uuid="0c1d">s3cr3t-project</nova:project></nova:owner>
      <nova:ports><nova:port uuid="p"><nova:ip type="fixed" address="s3cr3t-address"/></nova:port></nova:ports>
    </nova:instance>
  </metadata>
  <sysinfo type="smbios">
    <system><entry name="serial">ds=nocloud;s=s3cr3t-cloud-init</entry></system>
    <oemStrings><entry>s3cr3t-oem</entry></oemStrings>
  </sysinfo>
  <sysinfo type="fwcfg"><entry name="opt/com.example/key">s3cr3t-fwcfg</entry></sysinfo>
  <os>
    <type arch="x86_64">hvm</type>
    <kernel>/boot/vmlinuz</kernel><cmdline>root=/dev/vda password=s3cr3t-kernel</cmdline>
    <initenv name="PASSWORD">s3cr3t-initenv</initenv><initarg>s3cr3t-initarg</initarg>
  </os>
  <launchSecurity type="sev"><dhCert>s3cr3t-dhcert</dhCert><session>s3cr3t-session</session></launchSecurity>
  <launchSecurity type="sev-snp"><idBlock>s3cr3t-idblock</idBlock><idAuth>s3cr3t-idauth</idAuth></launchSecurity>
  <seclabel type="static" model="dac"><label>s3cr3t-label</label></seclabel>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type="network" device="disk">
      <source protocol="https" name="s3cr3t-url" query="token=s3cr3t-query">
        <host name="example.org" port="443"/>
        <auth username="s3cr3t-name"><secret type="iscsi" usage="s3cr3t-usage" uuid="s3cr3t-uuid"/></auth>
        <cookies><cookie name="session">s3cr3t-cookie</cookie></cookies>
        <encryption format="luks"><secret type="passphrase" uuid="s3cr3t-luks"/></encryption>
        <identity user="s3cr3t-ssh" keyfile="s3cr3t-key"/>
      </source>
      <serial>s3cr3t-serial</serial><target dev="vda"/>
    </disk>
    <graphics type="vnc" port="-1" passwd="s3cr3t-vnc" passwdValidTo="2030-01-01T00:00:00" connected="keep"/>
    <graphics type="spice" passwd="s3cr3t-spice"><listen type="address" address="s3cr3t-listen"/></graphics>
    <interface type="vhostuser"><source type="unix" path="s3cr3t-socket" mode="client"/><mac address="52:54:00:00:00:01"/></interface>
    <interface type="direct"><virtualport type="802.1Qbg"><parameters instanceid="s3cr3t-instance"/></virtualport></interface>
    <serial type="tcp"><source mode="connect" host="s3cr3t-host" service="1"/><protocol type="telnet"/></serial>
    <channel type="unix"><source mode="bind" path="s3cr3t-channel"/></channel>
    <hostdev mode="subsystem" type="scsi"><source protocol="iscsi" name="s3cr3t-iqn"><auth username="s3cr3t-chap"><secret type="iscsi" usage="s3cr3t-chap-usage"/></auth></source></hostdev>
    <filesystem type="mount"><source dir="s3cr3t-share"/><target dir="s3cr3t-tag"/></filesystem>
    <tpm model="tpm-crb"><backend type="emulator"><encryption secret="s3cr3t-tpm"/></backend></tpm>
    <redirdev bus="usb" type="tcp"><source mode="connect" host="s3cr3t-usb" service="1"/></redirdev>
  </devices>
  <qemu:commandline xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
    <qemu:arg value="-fw_cfg"/><qemu:arg value="s3cr3t-arg"/><qemu:env name="TOKEN" value="s3cr3t-env"/>
  </qemu:commandline>
  <qemu:override xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
    <qemu:device alias="net0"><qemu:frontend><qemu:property name="x" type="string" value="s3cr3t-override"/></qemu:frontend></qemu:device>
  </qemu:override>
"""  # noqa: E501
"""Children of `<domain>`, by libvirt's schema (domaincommon.rng), each with what nobody else may see."""

CPUTUNE = """\
  <vcpu>2</vcpu>
  <cputune>
    <vcpupin vcpu="0" cpuset="4"/>
    <vcpupin vcpu="1" cpuset="5"/>
    <emulatorpin cpuset="4-5"/>
  </cputune>
"""

POLICY = """\
version: 1
host: {reserved: "0"}
rules:
  - name: bad
    match: {name: "bad-*"}
    on_failure: refuse
    placement: ["vcpu:7"]
  - name: nfv
    match: {flavor: "nfv.*", project: "0c1d", interface: vhostuser}
    placement: ["cpus:5", "vcpu:0"]
"""


def guest_xml(name: str, line: str = "\n") -> str:
    inside = f"  <name>{name}</name>\n  <uuid>{UUID}</uuid>\n{CPUTUNE}{PLACES}"
    return f"<domain type='kvm' id='7'>\n{inside}</domain>\n".replace("\n", line)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host on which the hook was called for everything, also in vain."""
    made = Host(tmp_path_factory.mktemp("host"))
    made.set_policy(POLICY)
    for line in ("\n", " "):
        for name in ("nfv-1", "bad-1"):
            for operation in ("prepare", "migrate", "restore", "started", "reconnect", "attach", "release"):
                answer = made.call(operation, guest_xml(name, line), name)
                assert SECRET not in answer.error
                assert not answer.output or operation in ("prepare", "migrate", "restore")
    made.call("prepare", guest_xml("nfv-1").replace("</qemu:override>", ""), "nfv-1")
    made.call("prepare", guest_xml("nfv-1").replace('"4-5"', '"5-4"'), "nfv-1")
    made.write("guests/lines.xml", guest_xml("nfv-1"))
    made.write("guests/one-line.xml", guest_xml("nfv-2", " "))
    made.write("guests/bad.xml", guest_xml("bad-1"))
    made.write("guests/torn.xml", guest_xml("nfv-3").replace("</qemu:override>", ""))
    made.write("guests/backwards.xml", guest_xml("nfv-4").replace('"4-5"', '"5-4"'))
    return made


def files_of(root: Path) -> list[Path]:
    written = [root / "var", root / "run/emupin"]
    return [path for folder in written for path in folder.rglob("*") if path.is_file()]


def test_the_hook_keeps_no_secret(host: Host) -> None:
    outcomes = {str(entry["outcome"]) for entry in host.audit()}
    assert {"rewritten", "refused", "failed"} <= outcomes
    assert len(files_of(host.root)) > 3
    for path in files_of(host.root):
        assert SECRET.encode() not in path.read_bytes(), path


COMMANDS = (
    "audit list", "audit list --json", "audit show --last", "audit show --guest nfv-1",
    "audit show --guest bad-1 --json", "audit verify", "audit verify --json", "audit head", "audit replay",
    "audit replay --json", "audit report -o page.html", "explain guests/lines.xml",
    "explain guests/one-line.xml --json", "explain guests/torn.xml", "explain guests/backwards.xml",
    "policy test guests", "policy test guests --json", "policy show", "policy check", "host", "host --json",
    "rewrite --check guests", "rewrite --check --report preview.html guests", "rewrite guests/torn.xml",
    "rewrite --check --validate guests", "status", "status --json", "status --prometheus", "doctor", "doctor --json",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_tells_a_secret(host: Host, command: str) -> None:
    done = emupin(host.root, *command.split(), cwd=host.root)
    assert b"Traceback" not in done.stderr
    assert b"usage:" not in done.stderr
    assert SECRET.encode() not in done.stdout + done.stderr
    for name in ("page.html", "preview.html"):
        if name in command:
            assert SECRET not in (host.root / name).read_text()


def test_only_the_document_itself_has_its_secrets(host: Host) -> None:
    """`rewrite` and `rewrite --diff` give the operator his own document, whose lines are in the diff as in `diff -u`.

    Where the lines are libvirt's own, those around `<cputune>` are all that a diff has.
    """
    whole = emupin(host.root, "rewrite", host.root / "guests/lines.xml")
    assert whole.stdout.count(SECRET.encode()) == PLACES.count(SECRET)
    diff = emupin(host.root, "rewrite", "--diff", host.root / "guests/lines.xml")
    assert b"+    <emulatorpin" in diff.stdout
    assert b"s3cr3t-vnc" not in diff.stdout
    one_line = emupin(host.root, "rewrite", "--diff", host.root / "guests/one-line.xml")
    assert b"s3cr3t-vnc" in one_line.stdout
    assert SECRET.encode() not in diff.stderr + one_line.stderr


def test_libvirt_knows_the_places() -> None:
    """libvirt's schema, where it is installed, has all the elements that are meant to hold secrets here."""
    schemas = [*Path("/usr/share/libvirt/schemas").glob("*.rng")]  # What is in which file changes.
    if not schemas:
        pytest.skip("libvirt's schemas are not installed")
    text = "".join(schema.read_text() for schema in schemas)
    for name in ("passwd", "cookie", "identity", "initenv", "sysinfo", "dhCert", "oemStrings"):
        assert f'name="{name}"' in text, name
