"""Postfix, OpenSMTPD, Exim and sendmail as Debian has them, each with the rules and the sink behind it."""

from __future__ import annotations

import sys

from .private import PrivateServer


class Postfix(PrivateServer):
    """One service for each port, with what differs from the usual."""

    name = "Postfix"
    packages = ("postfix",)
    users = ("postfix", "postdrop")
    variants = {
        "strict": {
            "smtpd_forbid_unauth_pipelining": "yes",
            "smtpd_forbid_bare_newline": "yes",
            "smtpd_data_restrictions": "reject_unauth_pipelining",
            "smtpd_sender_restrictions": "reject_unauth_pipelining",
        },
        "hangs up": {},
        "closed": {"smtpd_relay_restrictions": "reject_unauth_destination"},
        "one connection": {"smtpd_client_connection_count_limit": "1"},
        "small": {"message_size_limit": "20000"},
        "stages": {
            "smtpd_delay_reject": "no",
            "smtpd_sender_restrictions": "check_sender_access $later_mail",
            "smtpd_data_restrictions": "check_sender_access $later_data",
            "smtpd_end_of_data_restrictions": "check_sender_access $later_end",
        },
    }

    def script(self) -> str:
        """Its two files, and the supervisor as the first process."""
        rules = f"socketmap:inet:127.0.0.1:{self.rules.port}"
        main = f"""
compatibility_level = 3.6
maillog_file = /var/spool/postfix.log
maillog_file_prefixes = /var
myhostname = localhost
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
relay_domains = example.com
relay_transport = smtp:[127.0.0.1]:{self.sink.port}
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_recipient_restrictions = check_recipient_access {rules}:rcpt, reject_unauth_destination
later_mail = {rules}:mail
later_data = {rules}:data
later_end = {rules}:end
"""
        services = "\n".join(
            [
                f"127.0.0.1:{port} inet n - n - - smtpd"
                + "".join(f"\n  -o {{{key}={value}}}" for key, value in self.variants.get(variant, {}).items())
                for variant, port in self.ports.items()
            ]
        )
        master = f"""
{services}
pickup    unix  n  -  n  60   1  pickup
cleanup   unix  n  -  n  -    0  cleanup
qmgr      unix  n  -  n  300  1  qmgr
tlsmgr    unix  -  -  n  1000? 1 tlsmgr
rewrite   unix  -  -  n  -    -  trivial-rewrite
bounce    unix  -  -  n  -    0  bounce
defer     unix  -  -  n  -    0  bounce
trace     unix  -  -  n  -    0  bounce
verify    unix  -  -  n  -    1  verify
flush     unix  n  -  n  1000? 0 flush
proxymap  unix  -  -  n  -    -  proxymap
smtp      unix  -  -  n  -    -  smtp
relay     unix  -  -  n  -    -  smtp
error     unix  -  -  n  -    -  error
retry     unix  -  -  n  -    -  error
discard   unix  -  -  n  -    -  discard
anvil     unix  -  -  n  -    1  anvil
scache    unix  -  -  n  -    1  scache
postlog   unix-dgram n - n - 1 postlogd
"""
        return (
            self.file("/etc/postfix/main.cf", main)
            + self.file("/etc/postfix/master.cf", master)
            + "mkdir -p /var/spool/postfix /var/lib/postfix\nchown postfix: /var/lib/postfix\nexec postfix start-fg\n"
        )


class OpenSMTPD(PrivateServer):
    """It asks a filter about each recipient."""

    name = "OpenSMTPD"
    packages = ("opensmtpd",)
    users = ("opensmtpd", "opensmtpq")
    variants = ("hangs up",)

    def script(self) -> str:
        """Its configuration, the filter, and the daemon in the foreground."""
        filter_script = f"""#!{sys.executable}
import socket
import sys

rules = socket.create_connection(("127.0.0.1", {self.rules.port}))
for line in sys.stdin:
    if line.strip() == "config|ready":
        print("register|filter|smtp-in|rcpt-to", "register|ready", sep="\\n", flush=True)
    if line.startswith("filter|"):
        session, token, recipient = line.rstrip("\\n").split("|", 7)[5:8]
        asked = f"rcpt {{recipient}}"
        rules.sendall(f"{{len(asked)}}:{{asked}},".encode())
        said = rules.recv(1000).decode().partition(":")[2].rstrip(",").removeprefix("OK ").removeprefix("NOTFOUND ")
        print(f"filter-result|{{session}}|{{token}}|" + (f"reject|{{said}}" if said else "proceed"), flush=True)
"""
        listen = "\n".join(f'listen on 127.0.0.1 port {port} filter "rules"' for port in self.ports.values())
        configuration = f"""
filter "rules" proc-exec "/usr/local/bin/rules-filter" user root
{listen}
action "sink" relay host "smtp://127.0.0.1:{self.sink.port}"
match from any for domain "example.com" action "sink"
smtp max-message-size 2M
"""
        return (
            self.file("/usr/local/bin/rules-filter", filter_script)
            + self.file("/etc/smtpd.conf", configuration)
            + self.file("/etc/mailname", "localhost\n")
            + "chmod +x /usr/local/bin/rules-filter\nmkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd\n"
            "chmod 0711 /var/spool/smtpd\nexec smtpd -d\n"
        )


class Exim(PrivateServer):
    """It asks for the rules over a socket, and refuses whatever comes before its replies where that is wrong."""

    name = "Exim"
    packages = ("exim4-base", "exim4-daemon-light", "libidn12")
    users = ("Debian-exim",)
    variants = ("stages", "small", "one connection", "closed")

    def script(self) -> str:
        """Its configuration, and the daemon in the foreground."""
        ports = " : ".join(str(port) for port in self.ports.values())
        asked = "${readsocket{inet:127.0.0.1:%d}{${strlen:%s}:%s,}}"
        recipient, sender = "rcpt $local_part@$domain", "%s $sender_address"
        said = {"rcpt": asked % (self.rules.port, recipient, recipient)}
        for stage in ("mail", "data", "end"):
            said[stage] = asked % (self.rules.port, sender % stage, sender % stage)
        later = "".join(
            f"""
check_{stage}:
  defer condition = ${{if eq{{$received_port}}{{{self.ports["stages"]}}}}}
        condition = ${{if match{{{said[stage]}}}{{OK 4}}}}
        message = later
  accept
"""
            for stage in ("mail", "data", "end")
        )
        configuration = f"""
primary_hostname = localhost
daemon_smtp_ports = {ports}
local_interfaces = 127.0.0.1
log_file_path = /var/spool/exim4/%slog
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
host_lookup =
tls_advertise_hosts =
smtp_accept_max = 50
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_host = ${{if eq{{$received_port}}{{{self.ports["one connection"]}}}{{1}}{{50}}}}
message_size_limit = ${{if eq{{$received_port}}{{{self.ports["small"]}}}{{20K}}{{50M}}}}
smtp_enforce_sync = true
acl_smtp_mail = check_mail
acl_smtp_rcpt = check_rcpt
acl_smtp_predata = check_data
acl_smtp_data = check_end

begin acl
check_rcpt:
  deny ! domains = example.com
       message = relay not permitted
  warn set acl_c_said = {said["rcpt"]}
  deny condition = ${{if match{{$acl_c_said}}{{OK 5}}}}
       message = no such user
  defer condition = ${{if match{{$acl_c_said}}{{OK 4}}}}
        message = try again later
  accept
{later}
begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink

begin transports
sink:
  driver = smtp
  port = {self.sink.port}
  allow_localhost
  hosts_avoid_tls = *

begin retry
* * F,1h,1s
"""
        return (
            self.file("/etc/exim4.conf", configuration)
            + "install -d -o Debian-exim -g Debian-exim -m 0750 /var/spool/exim4\n"
            "exec exim4 -bdf -q1m -C /etc/exim4.conf\n"
        )


class Sendmail(PrivateServer):
    """It asks for the rules as Postfix does. What a client on this machine brings it relays anywhere."""

    name = "sendmail"
    packages = ("sendmail-bin", "sendmail-base", "sendmail-cf", "m4", "libsigsegv2", "liblockfile1", "libwrap0")
    users = ("smmta", "smmsp")

    def script(self) -> str:
        """Its configuration, made by m4, and the daemon in the foreground."""
        daemons = "\n".join(
            f"DAEMON_OPTIONS(`Family=inet, Name=M{port}, Port={port}, Addr=127.0.0.1')dnl"
            for port in self.ports.values()
        )
        configuration = f"""divert(0)dnl
VERSIONID(`tests')dnl
OSTYPE(`debian')dnl
DOMAIN(`debian-mta')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDOMAIN_NAME', `localhost.localdomain')dnl
define(`confDELIVERY_MODE', `background')dnl
define(`confTO_IDENT', `0')dnl
define(`confBAD_RCPT_THROTTLE', `0')dnl
define(`confMAX_DAEMON_CHILDREN', `0')dnl
define(`confCONNECTION_RATE_THROTTLE', `0')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
{daemons}
RELAY_DOMAIN(`example.com')dnl
define(`SMART_HOST', `esmtp:[127.0.0.1]')dnl
define(`ESMTP_MAILER_ARGS', `TCP $h {self.sink.port}')dnl
MAILER(`smtp')dnl
LOCAL_CONFIG
Krcpt socket inet:{self.rules.port}@127.0.0.1
LOCAL_RULESETS
SLocal_check_rcpt
R$*\t$: $>canonify $1
R$* < @ $* > $*\t$: $(rcpt $1@$2 $: known $)
R550 $*\t$#error $@ 5.1.1 $: "550 no such user"
R451 $*\t$#error $@ 4.7.1 $: "451 try again later"
"""
        return (
            self.file("/etc/mail/sendmail.mc", configuration)
            + "touch /etc/mail/local-host-names /etc/mail/relay-domains /etc/mail/trusted-users /etc/mail/access\n"
            "install -d -o smmta -g smmsp -m 2770 /var/spool/mqueue\nmkdir -p /var/lib/sendmail /run/sendmail/mta\n"
            "m4 /usr/share/sendmail/cf/m4/cf.m4 /etc/mail/sendmail.mc > /etc/mail/sendmail.cf\n"
            "exec /usr/libexec/sendmail/sendmail -bD -C/etc/mail/sendmail.cf -q1m\n"
        )


SERVERS: tuple[type[PrivateServer], ...] = (Postfix, OpenSMTPD, Exim, Sendmail)
