"""Opens values of ciphertext format 1. Written from docs/format.md alone, as a check of that page.

stdin:  {"key": "<64 hex digits>", "values": [{"column": label, "rowKey": text, "iv": hex, "value": hex}, ...]}
stdout: a JSON array with the plaintext of each value, in order, or null for a value that does not open.

Needs Python 3.10 or later and the package `cryptography`.
"""

import hashlib
import hmac
import json
import sys
from binascii import unhexlify  # unlike bytes.fromhex it does not skip blanks

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

FORMAT = 0x01
HEADER, BLOCK, TAG = 3, 16, 32  # sizes in bytes


class Refused(ValueError):
    """The value does not open."""


def hmac_sha512(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha512).digest()


def column_keys(master_key: bytes, label: bytes) -> tuple[bytes, bytes]:
    """The MAC key and the encryption key of a column."""
    # HKDF-Expand of 64 bytes is one block of SHA-512, so it is one HMAC.
    okm = hmac_sha512(master_key, b"encryption-rollout/1/" + label + b"\x01")
    return okm[:32], okm[32:]


def open_value(master_key: bytes, label: bytes, row_key: bytes, iv: bytes, value: bytes) -> str:
    """The plaintext. Raises ValueError if the value does not open."""
    if len(value) < HEADER + BLOCK + TAG or (len(value) - HEADER - TAG) % BLOCK != 0:
        raise Refused("length")
    # The tag is over IV || ciphertext with nothing between them. With another length of the IV, bytes could move
    # from one to the other and the tag would still be right.
    if len(iv) != BLOCK:
        raise Refused("length of the initialization vector")
    header, ciphertext, tag = value[:HEADER], value[HEADER:-TAG], value[-TAG:]
    if header[0] != FORMAT or header[1:] == b"\x00\x00":  # numbers of keys begin at 1
        raise Refused("format")
    # The caller gives one master key without its number, so the number is only authenticated, as a part of the AAD.

    mac_key, encryption_key = column_keys(master_key, label)
    aad = header + label + b"\x00" + row_key
    al = (8 * len(aad)).to_bytes(8, "big")
    expected = hmac_sha512(mac_key, aad + iv + ciphertext + al)[:TAG]
    if not hmac.compare_digest(expected, tag):
        raise Refused("tag")

    # Only now, with the tag checked, may anything be decrypted.
    decryptor = Cipher(algorithms.AES(encryption_key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    unpadder = PKCS7(8 * BLOCK).unpadder()
    plaintext = unpadder.update(padded) + unpadder.finalize()  # ValueError if the padding is wrong
    return plaintext.decode("utf-8")  # strict: a UnicodeDecodeError is a ValueError


def open_or_none(master_key: bytes, item: dict) -> str | None:
    try:
        return open_value(
            master_key,
            item["column"].encode("utf-8"),
            item["rowKey"].encode("utf-8"),
            unhexlify(item["iv"]),
            unhexlify(item["value"]),
        )
    # ValueError: refused, not hexadecimal, or not UTF-8. The others: a field is missing or is not text.
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def main() -> None:
    document = json.load(sys.stdin.buffer)  # bytes: JSON is UTF-8 whatever the locale is
    master_key = unhexlify(document["key"])
    if len(master_key) != 32:
        sys.exit("the key must have 64 hexadecimal digits")
    json.dump([open_or_none(master_key, item) for item in document["values"]], sys.stdout)  # in ASCII, escaped
    print()


if __name__ == "__main__":
    main()
