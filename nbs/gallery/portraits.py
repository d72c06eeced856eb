"""What `attributes` is told of faces: meanings, and three sets of frames and phrases that share no more than `woman` and `man`."""
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from iin_nb.core import generator

GENDER, MOUTH, HAIR, AGE = ("woman", "man"), ("serious", "smiling"), (None, "dark", "brown", "blond", "gray"), (None, "young", "old")

# gender, mouth, hair, glasses, beard and age: how each can be said, by set; what is None in a meaning is not said
LEARN = """
woman: woman, lady, female, girl, female person, woman's face, gal, feminine-looking person, wife, businesswoman, waitress
woman: madam, her face
man: man, guy, male, gentleman, male person, man's face, fellow, masculine-looking person, husband, businessman, waiter
man: sir, his face
young woman: young woman, young lady, woman in her twenties, youthful woman, girl of eighteen, college girl, young female
young woman: woman not yet thirty
young man: young man, young guy, man in his twenties, youthful man, boy of eighteen, college boy, young male
young man: man not yet thirty
old woman: old woman, older lady, woman of a certain age, aged woman, woman in her seventies, elder lady, old lady
old woman: female pensioner, woman well over fifty
old man: old man, older gentleman, man of a certain age, aged man, man in his seventies, elder fellow, old gentleman
old man: male pensioner, man well over fifty
smiling: smiling, happy, laughing, cheerful, with a smile, who smiles, glad, merry, delighted, amused, radiant, giggling
smiling: friendly, jolly, chuckling, good-humored, with a big smile, with a laugh, with a merry look, who is laughing
smiling: who shows the teeth in a smile
serious: serious, not smiling, unsmiling, without a smile, with a closed mouth, who looks earnest, sober, somber, grim
serious: unhappy, sad, gloomy, expressionless, frowning, severe, strict, with a serious look, with a neutral expression
serious: with tight lips, who is not amused, who does not smile
dark: dark hair, black hair, jet-black hair, dark black hair, ebony hair, inky hair, black curls
brown: brown hair, brunette hair, brownish hair, hair of a brown tone, dark brown hair, auburn-brown hair, brown curls
blond: blond hair, fair hair, golden hair, blonde hair, sandy hair, straw-colored hair, blond curls
gray: gray hair, white hair, silver hair, grey hair, snow-white hair, hair turned gray, white curls
glasses: glasses, eyeglasses, a pair of glasses, reading glasses, framed glasses, dark-rimmed glasses, lenses in a frame
beard: a beard, a bearded chin, facial hair, a goatee, stubble, a mustache and a beard, an unshaven chin, a long beard
"""

STOP = """
woman: female face, feminine face
man: male face, masculine face
young woman: female youngster, woman of twenty
young man: male youngster, man of twenty
old woman: woman past sixty, senior lady
old man: man past sixty, senior gentleman
smiling: joyful, with smiling lips
serious: solemn, with no smile
dark: blackish hair, hair as black as coal
brown: chestnut hair, hair of a brown color
blond: yellow hair, light blond hair
gray: grayish hair, hair gone white
glasses: spectacles, glasses on the nose
beard: a stubbly beard, a full beard
"""

TEST = """
woman: mother, actress, woman
man: father, actor, man
young woman: teenage girl, woman of twenty-five
young man: teenage boy, man of twenty-five
old woman: grandmother, elderly woman
old man: grandfather, elderly man
smiling: grinning, beaming, with a broad grin
serious: stern, grave, with a straight face
dark: raven hair, dark locks
brown: hazel-brown hair, brown locks
blond: flaxen hair, blond locks
gray: graying hair, gray locks
glasses: eyewear, spectacles with thin rims
beard: whiskers, a bushy beard
"""



def _read(text: str) -> dict[str, tuple[str, ...]]:
    "{what is meant: phrases} of lines `what: phrase, phrase`; one thing may have several lines."
    found = {}
    for what, phrases in (line.split(": ") for line in text.strip().splitlines()):
        found[what] = found.get(what, ()) + tuple(phrases.split(", "))
    return found


PHRASES = {"learn": _read(LEARN), "stop": _read(STOP), "test": _read(TEST)}

# {m}: the mouth as an adjective; {who}: the noun and what the person has or does
FRAMES = {part: tuple(text.strip().splitlines()) for part, text in {
    "learn": """
a {m} {who}
the {m} {who}
a picture of a {m} {who}
a photo of a {m} {who}
a portrait of a {m} {who}
{m} {who}
this is a {m} {who}
I see a {m} {who}
here is a {m} {who}
a face: a {m} {who}
show me a {m} {who}
draw a {m} {who}
we are looking at a {m} {who}
there is a {m} {who} in the picture
look, a {m} {who}
you can see a {m} {who} here
an image of a {m} {who}
a snapshot of a {m} {who}
the face of a {m} {who}
it is a {m} {who}
I would like a picture of a {m} {who}
please paint a {m} {who}
give me a {m} {who}
can you draw a {m} {who}?
a painting that shows a {m} {who}
the photo shows a {m} {who}
yesterday I met a {m} {who}
he took a photograph of a {m} {who}
a drawing of a {m} {who} on paper
on the wall hangs a portrait of a {m} {who}
""",
    "stop": """
somebody took a picture of a {m} {who}
imagine a {m} {who}
a close-up of a {m} {who}
""",
    "test": """
on the poster one sees a {m} {who}
who is it? a {m} {who}
she painted a {m} {who} in oil
the camera caught a {m} {who}
find me a {m} {who} for the cover
{m}: that is the {who}
""",
}.items()}


@dataclass(frozen=True)
class Meaning:
    "What a sentence says; None or False: it does not say."
    gender: str
    mouth: str
    hair: str | None = None
    glasses: bool = False
    beard: bool = False
    age: str | None = None


MEANINGS = tuple(Meaning(g, m, h, e, b, a) for g in GENDER for m in MOUTH for h in HAIR for e in (False, True)
                 for b in ((False, True) if g == "man" else (False,)) for a in AGE)
NUMBER = {m: i for i, m in enumerate(MEANINGS)}


def sentence(meaning: Meaning, part: str, g: torch.Generator) -> str:
    "One of the ways in which `part` ('learn', 'stop', 'test') says it, by chance."
    pick = lambda options: options[int(torch.randint(len(options), (1,), generator=g))]
    say = {k: pick(v) for k, v in PHRASES[part].items()}
    who = say[f"{meaning.age} {meaning.gender}" if meaning.age else meaning.gender]
    has = [say[meaning.hair]] if meaning.hair else []
    has += [say["glasses"]] * meaning.glasses + [say["beard"]] * meaning.beard
    has = [has[i] for i in torch.randperm(len(has), generator=g)]
    mouth, after = say[meaning.mouth], ""
    if mouth.startswith(("with ", "who ", "without ")): mouth, after = "", " " + mouth   # said after the noun
    with_ = " with " + " and ".join(([", ".join(has[:-1])] if has[:-1] else []) + has[-1:]) if has else ""
    text = pick(FRAMES[part]).format(m=mouth, who=who + with_ + (" and" if has and after.startswith(" with") else "") + after)
    text = re.sub(r"^: that is the", "that is a", re.sub(r"\s+", " ", text)).strip()
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def sentences(meanings: tuple[Meaning, ...], part: str, n: int, seed: int) -> list[str]:
    "n sentences for each meaning, those of one meaning together."
    g = generator(seed)
    return [sentence(m, part, g) for m in meanings for _ in range(n)]


def meanings(male: Tensor, smile: Tensor, hair: Tensor, glasses: Tensor, beard: Tensor, young: Tensor, said: float,
             g: torch.Generator) -> Tensor:
    """Numbers (N,) of what is said of N faces: gender and mouth always; hair, glasses, a beard, the age with probability `said` each.

    male, smile, glasses, beard (N,) boolean; hair (N,) index into HAIR; young (N,) index into AGE."""
    keep = torch.rand(4, len(male), generator=g) < said
    found = [NUMBER[Meaning(GENDER[int(m)], MOUTH[int(s)], HAIR[int(h)], bool(e), bool(b and m), AGE[int(y)])] for m, s, h, e, b, y in zip(
        male, smile, torch.where(keep[0], hair, 0), glasses & keep[1], beard & keep[2], torch.where(keep[3], young, 0), strict=True)]
    return torch.tensor(found)
