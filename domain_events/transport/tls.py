"""TLS to a broker: its options, and what its failures mean."""

from __future__ import annotations

import logging
import re
import ssl

import pika

from domain_events.errors import ConfigurationError
from domain_events.settings import Broker

logger = logging.getLogger(__name__)

_unverified: set[str] = set()


class _Encrypted(Exception):
    pass


def tls_options(broker: Broker) -> pika.SSLOptions | None:
    """None for a plain connection. The files are read each time: a new certificate needs no restart.

    Raises ConfigurationError, which names the file that cannot be used.
    """
    if not broker.tls:
        return None
    # The defaults of Python: TLS 1.2 or newer, host names are checked.
    context = ssl.create_default_context() if broker.cafile is None else _trusting(broker, broker.cafile)
    if not broker.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _warn_unverified(broker)
    if broker.certfile is not None:
        _identify(context, broker, broker.certfile)
    return pika.SSLOptions(context, broker.server_name or broker.host)


def handshake_problem(error: BaseException, broker: Broker) -> str | None:
    """What went wrong between the TCP connection and the login, and what helps; None when it was not TLS.

    None of it is for ever: certificates are renewed at either end, and our files are read again at each attempt.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{broker}: {_not_trusted(error, broker)}"
    reason = _reason(error)
    if reason is None or "EOF" in reason:  # the latter is what any connection that is cut looks like
        return None
    return f"{broker}: TLS failed: {_failed(reason, broker)}"


def suspicion(broker: Broker) -> str:
    """What may be the matter when a connection ends after TCP, or TLS, and before AMQP.

    In TLS 1.3 a server looks at our certificate when we are done; what it has to say is often lost with the connection.
    """
    if not broker.tls:
        return f"is port {broker.port} its TLS port? Then write amqps://"
    if broker.certfile is None:
        return "does it want a certificate of ours? Then name it with certfile= and keyfile="
    return f"does it accept our certificate {broker.certfile} (certfile)? Its log says"


def _trusting(broker: Broker, cafile: str) -> ssl.SSLContext:
    _check_readable(broker, "cacertfile", cafile)
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:  # an SSLError is one; or the file has gone in this very moment
        raise ConfigurationError(
            f"{broker}: the file {cafile} (cacertfile) holds no certificate in PEM format: {_words(error)}"
        ) from error


def _identify(context: ssl.SSLContext, broker: Broker, certfile: str) -> None:
    """Load our own certificate and its key."""
    keyfile = broker.keyfile or certfile
    _check_readable(broker, "certfile", certfile)
    _check_readable(broker, "keyfile", keyfile)

    def refuse() -> str:
        # Without this, OpenSSL asks for it on the terminal, and everything waits.
        raise _Encrypted

    try:
        context.load_cert_chain(certfile, keyfile, refuse)
    except _Encrypted:
        raise ConfigurationError(
            f"{broker}: the key in {keyfile} is encrypted, and nobody is there to give the password; "
            f"keep it without one, readable by this service alone (openssl pkey -in {keyfile} -out ...)"
        ) from None
    except OSError as error:  # as above
        reason = error.reason if isinstance(error, ssl.SSLError) else None
        if reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            what = f"the key in {keyfile} does not belong to the certificate in {certfile}"
        elif broker.keyfile is None:
            what = f"{certfile} (certfile) does not hold a certificate and its key in PEM format; is keyfile= missing?"
        else:
            what = f"{certfile} (certfile) and {keyfile} (keyfile) are no certificate and key in PEM format"
        raise ConfigurationError(f"{broker}: {what} ({_words(error)})") from error


def _check_readable(broker: Broker, parameter: str, path: str) -> None:
    # ssl's own errors do not say which file.
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{broker}: the TLS file {path} ({parameter}) cannot be read: {error.strerror}"
        ) from error


def _warn_unverified(broker: Broker) -> None:
    # Once in a process, not at each connect.
    if str(broker) not in _unverified:
        _unverified.add(str(broker))
        logger.warning(
            "%s: verify=verify_none: the broker's certificate is not verified, so anybody on the line can pose as the "
            "broker and read the password and all events",
            broker,
        )


# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_OTHER_NAME, _OTHER_ADDRESS = 62, 64


def _not_trusted(error: ssl.SSLCertVerificationError, broker: Broker) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return (
            "the broker's TLS certificate has expired: renew it at the broker (or is the clock of this machine wrong?)"
        )
    if code == _NOT_YET_VALID:
        return "the broker's TLS certificate is not valid yet: is the clock of this machine wrong?"
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        wanted = broker.server_name or broker.host
        return (
            f"the broker's TLS certificate is for another host than {wanted}: connect by the name that is in it, "
            "or give that name as server_name_indication="
        )
    if code in _UNKNOWN_AUTHORITY:
        told = str(error.verify_message)
        if broker.cafile is not None:
            return f"the broker's TLS certificate is not signed by an authority in {broker.cafile} (cacertfile): {told}"
        return (
            "the broker's TLS certificate is not signed by an authority that this machine trusts: name the file of "
            f"the right one with cacertfile= ({told})"
        )
    return f"the broker's TLS certificate is not trusted: {error.verify_message}"


_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_NO_VERSION = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "NO_PROTOCOLS_AVAILABLE")
_OUR_CERTIFICATE = ("UNKNOWN_CA", "CERTIFICATE", "DECRYPT_ERROR", "ACCESS_DENIED")


def _failed(reason: str, broker: Broker) -> str:
    """By OpenSSL's name of the reason. What the broker says is an alert: it is about us."""
    if reason in _NO_TLS:
        return (
            f"port {broker.port} does not speak TLS; name the broker's TLS port (usually 5671), "
            f"or write amqp:// if it is to be plain ({reason})"
        )
    if any(word in reason for word in _NO_VERSION):
        return f"the broker has no version from TLS 1.2 on; allow one there (ssl_options.versions) ({reason})"
    if "ALERT" in reason and broker.certfile is None and ("CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason):
        return f"the broker wants a certificate of ours; name it with certfile= and keyfile= ({reason})"
    if "ALERT" in reason and any(word in reason for word in _OUR_CERTIFICATE):
        return f"the broker does not accept our certificate {broker.certfile} (certfile) ({reason})"
    return reason


def _reason(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error.strerror or error)
    found = re.search(r"\[SSL: (\w+)\]", str(error))
    return found[1] if found else None


def _words(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error).replace("_", " ").lower()
