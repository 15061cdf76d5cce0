"""`dps-local learn`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dps_local.cli.loading import load_model, make_prompter
from dps_local.cli.options import JsonOption, ModelOptions, ProfileOption, ScoreOptions, option_groups
from dps_local.cli.terminal import terminal
from dps_local.drawing.text import counted
from dps_local.maps.calibration import Calibration
from dps_local.prompting.profile import Profile
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.learned_map import LearnedMap, Lesson

UNIT = " nats a token"


@option_groups
def learn(
    score: ScoreOptions,
    model: ModelOptions,
    profile: Annotated[str, ProfileOption],
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the head map before the last one.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn from what is new in a profile: score it, and measure on your own words what steering is worth now.

    What you wrote or edited counts; answers that you only kept do not. The head map that steers your chats stays until
    the new one is shown to be no worse: it helps where the other does not, or the lower bound of what it is worth is no
    lower.
    """
    user = Profile.load(profile)  # first, as its mistakes are found at once
    prompter = make_prompter(load_model(model), user, score.settings(model), terminal.notice)
    learned = LearnedMap(CachedMap(prompter, score.scoring(model)))
    if undo:
        calibration = learned.undo().calibration
        if as_json:
            terminal.json({"replaced": True, "now": asdict(calibration) if calibration else None})
        else:
            terminal.write(f"the earlier head map is back: steering is worth {_worth(calibration, UNIT)}\n")
        return
    with terminal.progress("scoring heads", preparation="reading the profile") as progress:
        lesson = learned.learn(progress, terminal.notice)
    if as_json:
        terminal.json(lesson.as_json() if lesson else {"new": 0, "gone": 0, "replaced": False})
    else:
        terminal.write(f"{_sentence(lesson)}\n")


def _sentence(lesson: Lesson | None) -> str:
    if lesson is None:
        return "no change: nothing that you wrote or edited is new"
    if lesson.first:
        text = f"{counted(lesson.new, 'item')}; steering is worth {_worth(lesson.now, UNIT)}"
    else:
        items = f"{counted(lesson.new, 'new item')}{f', {lesson.gone} gone' if lesson.gone else ''}"
        would = "is now" if lesson.replaced else "would now be"
        was = "was" if lesson.replaced else "is"
        text = f"{items}; steering {would} worth {_worth(lesson.now, UNIT)}, it {was} {_worth(lesson.before)}"
        if not lesson.replaced:
            text += ": the earlier head map stays"
    return text if lesson.helps else f"{text}; steering stays off"


def _worth(calibration: Calibration | None, unit: str = "") -> str:
    return f"{calibration.worth}{unit}" if calibration else "an unknown amount"
