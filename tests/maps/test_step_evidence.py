"""What a chat says of steering before it is measured."""

from __future__ import annotations

from dataclasses import replace

from dps_local.maps.step_evidence import NO_KIND, StepEvidence

MAIL = StepEvidence(("headlines", "mail", NO_KIND), (0.02, 0.9, 0.08), 0.137, 0.052, 0.996, 12, 645)


def test_what_helps_is_said_with_what_it_rests_on() -> None:
    assert MAIL.sentence() == (
        "steering is expected to be worth +0.137 ± 0.052 nats a token on your writing, by other people's mail (90%) "
        "and 12 texts of yours (645 tokens)"
    )


def test_what_hardly_helps_stays_off_and_says_why() -> None:
    unsure = replace(MAIL, gain=-0.01, probability=0.42, texts=0)
    said = "steering is expected to be worth −0.010 ± 0.052 nats a token on your writing, by other people's mail (90%)"
    assert unsure.sentence() == f"{said}; it helps with 42%, and 90% are needed: it stays off"
    assert unsure.sentence(forced=True).endswith("90% are needed: --gamma steers all the same")


def test_writing_of_no_known_kind_is_said_to_be_so() -> None:
    other = replace(MAIL, shares=(0.0, 0.3, 0.7), probability=0.5)
    assert other.no_kind
    assert not MAIL.no_kind
    assert other.sentence() == (
        "steering is expected to be worth +0.137 ± 0.052 nats a token on your writing, by 12 texts of yours "
        "(645 tokens), which are unlike other people's headlines and mail; it helps with 50%, and 90% are needed: it "
        "stays off"
    )
