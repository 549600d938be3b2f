"""An SMTP server: aiosmtpd with TLS, a login and refusals. Prints its port, then each message with its reply as a line of JSON."""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("--tls", choices=["implicit", "starttls", "none"], required=True)
parser.add_argument("--certificate")
parser.add_argument("--key")
parser.add_argument("--login", help="USER:PASSWORD, without which no message is accepted")
parser.add_argument("--refuse", action="append", default=[], help="RECIPIENT=REPLY")
parser.add_argument("--data", help="the reply to every message")
options = parser.parse_args()
refused = dict(rule.split("=", 1) for rule in options.refuse)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in refused:
            return refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        reply = options.data or "250 OK"
        message = {
            "reply": reply,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": options.tls == "implicit" or session.ssl is not None,
            "user": session.auth_data,
            "message": envelope.content.decode(),
        }
        print(json.dumps(message), flush=True)
        return reply


def authenticate(server, session, envelope, mechanism, given):
    user, password = options.login.split(":", 1)
    if (given.login.decode(), given.password.decode()) != (user, password):
        return AuthResult(success=False, handled=False)
    return AuthResult(success=True, auth_data=user)


async def main():
    tls = None
    if options.tls != "none":
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate, options.key)

    def protocol():
        return SMTP(
            Handler(),
            hostname="mail.example",
            tls_context=tls if options.tls == "starttls" else None,
            require_starttls=options.tls == "starttls",
            authenticator=authenticate,
            auth_required=options.login is not None,
            auth_require_tls=options.tls == "starttls",
        )

    implicit = tls if options.tls == "implicit" else None
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
