"""ESC-50's classes, and what AudioSet calls the same sounds."""

from __future__ import annotations

from pathlib import Path

from wav2clip_gen.errors import W2CError
from wav2clip_gen.training.shards import read_table

ESC_50 = (
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind", "pouring_water",
    "toilet_flush", "thunderstorm",
    "crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing", "brushing_teeth",
    "snoring", "drinking_sipping",
    "door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening", "washing_machine",
    "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking",
    "helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells", "airplane", "fireworks",
    "hand_saw",
)  # fmt: skip

# For each class the AudioSet names that are right for it. Three have none: can_opening, drinking_sipping,
# washing_machine.
AUDIOSET = {
    "dog": ("Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)", "Canidae, dogs, wolves"),
    "rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo", "Fowl"),
    "pig": ("Pig", "Oink"),
    "cow": ("Cattle, bovinae", "Moo"),
    "frog": ("Frog", "Croak"),
    "cat": ("Cat", "Purr", "Meow", "Caterwaul"),
    "hen": ("Chicken, rooster", "Cluck", "Fowl"),
    "insects": ("Insect", "Mosquito", "Fly, housefly", "Buzz", "Bee, wasp, etc."),
    "sheep": ("Sheep", "Bleat"),
    "crow": ("Crow", "Caw"),
    "rain": ("Rain", "Raindrop", "Rain on surface"),
    "sea_waves": ("Ocean", "Waves, surf"),
    "crackling_fire": ("Fire", "Crackle"),
    "crickets": ("Cricket", "Insect"),
    "chirping_birds": ("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet"),
    "water_drops": ("Drip", "Raindrop"),
    "wind": ("Wind", "Wind noise (microphone)"),
    "pouring_water": ("Pour", "Trickle, dribble", "Fill (with liquid)", "Water", "Liquid"),
    "toilet_flush": ("Toilet flush",),
    "thunderstorm": ("Thunderstorm", "Thunder"),
    "crying_baby": ("Baby cry, infant cry", "Crying, sobbing"),
    "sneezing": ("Sneeze",),
    "clapping": ("Clapping", "Applause"),
    "breathing": ("Breathing", "Gasp", "Wheeze"),
    "coughing": ("Cough", "Throat clearing"),
    "footsteps": ("Walk, footsteps", "Run"),
    "laughing": ("Laughter", "Baby laughter", "Giggle", "Snicker", "Belly laugh", "Chuckle, chortle"),
    "brushing_teeth": ("Toothbrush", "Electric toothbrush"),
    "snoring": ("Snoring",),
    "door_wood_knock": ("Knock", "Door", "Tap"),
    "mouse_click": ("Clicking",),
    "keyboard_typing": ("Typing", "Computer keyboard", "Typewriter"),
    "door_wood_creaks": ("Creak", "Squeak", "Door"),
    "vacuum_cleaner": ("Vacuum cleaner",),
    "clock_alarm": ("Alarm clock", "Alarm"),
    "clock_tick": ("Clock", "Tick", "Tick-tock"),
    "glass_breaking": ("Glass", "Shatter", "Breaking", "Smash, crash"),
    "helicopter": ("Helicopter",),
    "chainsaw": ("Chainsaw",),
    "siren": (
        "Siren", "Civil defense siren", "Emergency vehicle", "Police car (siren)", "Ambulance (siren)",
        "Fire engine, fire truck (siren)",
    ),
    "car_horn": ("Vehicle horn, car horn, honking", "Toot"),
    "engine": ("Engine", "Idling", "Accelerating, revving, vroom", "Medium engine (mid frequency)"),
    "train": ("Train", "Rail transport", "Railroad car, train wagon", "Train whistle", "Train horn"),
    "church_bells": ("Church bell", "Bell", "Change ringing (campanology)"),
    "airplane": ("Fixed-wing aircraft, airplane", "Aircraft", "Jet engine", "Aircraft engine"),
    "fireworks": ("Fireworks", "Firecracker"),
    "hand_saw": ("Sawing",),
}  # fmt: skip


def audioset_names(data: Path) -> list[str]:
    """The AudioSet names (YAMNet's 521 of the 527) that the data folder lists.

    Raises:
        TrainingError: The list is missing.
        W2CError: It is another list than the table above was written for.
    """
    path = data / "teachers" / "yamnet_class_map.csv"
    names = [row["display_name"] for row in read_table(path, "display_name")]
    unknown = {name for these in AUDIOSET.values() for name in these} - set(names)
    if unknown:
        raise W2CError(f"{path}: lacks {sorted(unknown)[0]!r}", hint="put YAMNet's own list of classes there")
    return names


def in_words(label: str) -> str:
    """The question that a label is to the text tower."""
    return f"the sound of {label.replace('_', ' ').lower()}"
