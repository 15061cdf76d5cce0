"""Secrets and private data as people write them, none of them real; secrets come in two halves, so that no scanner
takes this file for a leak."""

from __future__ import annotations

SECRETS = {  # the secret itself, and the kind it is of
    "AKIA" + "QWERTYUIOPASDFGH": "key",
    "ghp_" + "aZ3kP9qLm2Xc7Vb1Nd5Rt8Yw0Es4Uf6Gh2Jk": "key",
    "xoxb-" + "123456789012-123456789012-AbCdEfGhIjKlMnOpQrStUvWx": "key",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc": "key",
    "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY": "key",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U": "key",
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----": "key",
    "-----BEGIN ENCRYPTED " + "PRIVATE KEY-----": "key",
    "7Hq2Zx9LpW4vTn8RbK3m" + "Yc6JdQ1s": "key",
    "My password is sword" + "fish": "password",
    "Password: hun" + "ter2": "password",
    "the wifi password for the guests is blue" + "whale77": "password",
    "Das Passwort lautet Som" + "mer!24": "password",
    "mot de passe : tourne" + "sol9": "password",
    "API key = 9f8e7d" + "6c5b4a": "password",
    "PIN: 47" + "11": "password",
    "4111 1111 " + "1111 1111": "card number",
    "5500-0000-" + "0000-0004": "card number",
    "DE89 3704 0044 " + "0532 0130 00": "account number",
    "GB82WEST1234" + "5698765432": "account number",
    "756.9217." + "0769.85": "number of a person",
    "536-90-" + "4399": "number of a person",
}
NO_SECRETS = [
    "The password is wrong again, can you reset it?",
    "Your password has expired.",
    "The key is on the table.",
    "Order 4111 1111 1111 1112 was shipped.",
    "See https://docs.example/pumps/seals-and-gaskets for more.",
    "It is an internationalization-of-everything kind of day.",
    "The commit is 3f2a9c41d07be6583f2a9c41d07be6583f2a9c41.",
    "I need 1 000 000 seals by 04/03/2025.",
    "Pin the note to the door.",
]
MASKED = {  # private data, and the kind that stands there instead
    "+49 30 1234567": "phone",
    "(030) 1234567": "phone",
    "0171 2345678": "phone",
    "555-123-4567": "phone",
    "+1 (555) 123-4567": "phone",
    "tom.berg@berg.example": "email",
    "12 Mill Lane": "address",
    "Mühlenstraße 12, 10115 Berlin": "address",
    "12 rue de la Paix": "address",
    "Calle Mayor 12": "address",
    "SW1A 1AA": "address",
    "P.O. Box 1234": "address",
    "https://tom:tulip@files.example/a": "link",
    "https://files.example/reset?token=abcdef": "link",
    "https://files.example/s/7Hq2Zx9LpW4vTn8RbK3mYc6JdQ1s": "link",
}
KEPT = [
    "on 04/03/2025 at 10:12",
    "2025-03-04 10:12:00",
    "1 000 000 seals",
    "version 1.2.3.4",
    "order 1234567",
    "https://www.example.org/news/2024/pumps",
    "from 2019-2024",
    "the years 1999 - 2003",
    "level 3.14159265",
]
